"""`regsvc user`: the flows of administrators from the command line, on the database that the settings name."""

import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
from click.testing import CliRunner, Result

from regsvc.adapters.crypto.work import Alone
from regsvc.cli import main
from regsvc.cli import user as verbs
from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.values import Secret
from regsvc.trio_asyncpg import open_connection

Run = Callable[..., Result]
SECRET = "a secret of a test, which is long enough"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def run(database: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb of `regsvc user` on a database of the test's own."""
    for name in list(os.environ):
        if name.startswith(("REGSVC_", "DATABASE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    told = {
        "REGSVC_DATABASE_URL": database,
        "REGSVC_PROFILE": "dev",
        "REGSVC_SECRET": SECRET,
        "REGSVC_PASSWORD_ROUNDS": "4",
    }

    def run(*words: str, stdin: str | bytes | None = None, **environ: str) -> Result:
        found = CliRunner().invoke(main, ("user", *words), input=stdin, env={**told, **environ})
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return run


def rows(dsn: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    async def look() -> list[tuple[Any, ...]]:
        async with open_connection(dsn) as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    return trio.run(look)


def events(dsn: str) -> list[str]:
    found = rows(dsn, "SELECT name, data ->> 'by', actor FROM events WHERE name LIKE 'admin.%' ORDER BY at")
    assert {row[1:] for row in found} <= {("command_line", None)}
    return [row[0].removeprefix("admin.") for row in found]


def made(run: Run, *words: str) -> str:
    """Make an account without a password; return its id."""
    found = run("create", *words, "--no-password")
    assert found.exit_code == 0, found.stderr
    return str(UUID(found.stdout.strip()))


def test_the_first_administrator_is_made_before_the_first_start(run: Run, database: str) -> None:
    words = ("Ada@Example.org", "--admin", "--username", "Ada", "--locale", "de-AT")
    found = run("create", *words, "--password-stdin", "--json", stdin=f"{PASSWORD}\n")
    assert found.exit_code == 0, found.stderr
    shown = json.loads(found.stdout)
    assert (shown["email"], shown["role"], shown["state"]) == ("Ada@Example.org", "admin", "active")
    ((stored, name, locale),) = rows(database, "SELECT password_hash, username_key, locale FROM users")
    assert stored.startswith("bcrypt-hmac-sha384$")
    assert (name, locale) == ("ada", "de-AT")
    assert events(database) == ["user_created"]
    assert PASSWORD not in found.output


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_a_password_from_standard_input_is_a_line(
    run: Run, database: str, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    taken: list[str] = []

    def kept(self: object, password: Any) -> Alone:
        taken.append(password.reveal())
        return Alone(lambda: "hash")

    monkeypatch.setattr("regsvc.adapters.crypto.passwords.Bcrypt.to_hash", kept)
    assert run("create", "ada@example.org", "--password-stdin", stdin=f" {PASSWORD}{ending}").exit_code == 0
    assert taken == [f" {PASSWORD}"]


@pytest.mark.parametrize(
    ("stdin", "why"),
    [
        ("short\n", "at least 8 characters"),
        ("password1234\n", "everybody tries first"),
        ("ada@example.org\n", "the address"),
        ("two\nlines of it\n", "no control characters"),
        (b"\xff\xfe\xfd long enough\n", "not UTF-8"),
        ("", "at least 8 characters"),
    ],
)
def test_a_password_is_held_to_the_same_rules(run: Run, database: str, stdin: str | bytes, why: str) -> None:
    found = run("create", "ada@example.org", "--password-stdin", stdin=stdin)
    assert (found.exit_code, found.stdout) == (1, "")
    assert why in found.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_password_is_asked_for_twice_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prompt(text: str, **how: Any) -> str:
        asked.append((text, how))
        return PASSWORD

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("click.prompt", prompt)
    assert verbs._password(from_stdin=False) == Secret(PASSWORD)
    assert asked == [("Password", {"hide_input": True, "confirmation_prompt": True, "err": True})]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "ada@example.org"),
        ("create", "ada@example.org", "--password-stdin", "--no-password"),
        ("create", "ada"),
        ("create", "ada@example.org", "--no-password", "--username", "a b"),
        ("create", "ada@example.org", "--no-password", "--locale", "?"),
        ("create", "ada@example.org", "--password", PASSWORD),
        ("show", "not a name"),
        ("show", "not@an address"),
        ("list", "--state", "dead"),
        ("list", "--limit", "0"),
    ],
)
def test_wrong_usage_exits_with_2_and_touches_no_database(run: Run, words: tuple[str, ...]) -> None:
    nowhere = {"REGSVC_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
    found = run(*words, **nowhere)
    assert (found.exit_code, found.stdout) == (2, "")


def test_a_database_that_is_away_exits_with_75(run: Run) -> None:
    assert run("list", REGSVC_DATABASE_URL="postgresql://nobody@127.0.0.1:1/x").exit_code == os.EX_TEMPFAIL


def test_without_migrations_production_is_told_to_migrate(run: Run) -> None:
    public = {"REGSVC_PUBLIC_URL": "https://id.example.org", "REGSVC_MAIL_CHANNEL": "mailbox"}
    found = run("list", REGSVC_PROFILE="production", REGSVC_PASSWORD_ROUNDS="10", **public)
    assert found.exit_code == os.EX_TEMPFAIL
    assert found.stderr == "regsvc: database: it lacks migrations: run `regsvc migrate`\n"


def test_an_account_is_not_made_twice(run: Run, database: str) -> None:
    made(run, "ada@example.org", "--username", "ada")
    found = run("create", "ADA@example.org", "--no-password")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == "regsvc: ADA@example.org has an account already\n"
    found = run("create", "eve@example.org", "--username", "ADA", "--no-password")
    assert found.stderr == "regsvc: this username is taken\n"
    assert rows(database, "SELECT password_hash FROM users") == [(NO_PASSWORD,)]
    assert events(database) == ["user_created"]


def test_an_account_is_shown_by_each_of_its_names(run: Run) -> None:
    ada = made(run, "ada@example.org", "--username", "Ada")
    for who in (ada, "ADA@example.org", "ada"):
        assert json.loads(run("show", who, "--json").stdout)["id"] == ada
    lines = run("show", "ada").stdout.splitlines()
    assert [line.split() for line in lines][:4] == [
        ["id:", ada],
        ["email:", "ada@example.org"],
        ["username:", "Ada"],
        ["locale:", "–"],
    ]
    for nobody in (str(uuid4()), "eve@example.org", "eve"):
        for verb in ("show", "disable", "enable", "promote", "demote", "sessions"):
            found = run(verb, nobody)
            assert (found.exit_code, found.stderr) == (1, f"regsvc: there is no account {nobody}\n")
        assert run("delete", nobody, "--yes").exit_code == 1


def test_accounts_are_listed_for_people_and_programs(run: Run) -> None:
    ids = [made(run, f"user{n}@example.org", *(["--admin"] if n == 0 else [])) for n in range(3)]
    first = run("list", "--limit", "2", "--query", "USER", "--json")
    assert [json.loads(line)["id"] for line in first.stdout.splitlines()] == ids[:0:-1]
    assert first.stderr == f"regsvc: there are more: --before {ids[1]}\n"
    rest = run("list", "--limit", "2", "--before", ids[1])
    assert (len(rest.stdout.splitlines()), rest.stderr) == (2, "")
    assert rest.stdout.splitlines()[1].split()[:4] == [ids[0], "active", "admin", "user0@example.org"]
    assert run("list", "--state", "pending", "--json").stdout == ""
    assert len(run("list", "--state", "admin", "--json").stdout.splitlines()) == 1


def test_an_account_is_changed_as_over_the_api(run: Run, database: str) -> None:
    made(run, "boss@example.org", "--admin")
    made(run, "ada@example.org")
    log_in(database, "ada@example.org")
    said = [run(verb, "ada@example.org").stderr for verb in ("disable", "disable", "enable", "promote", "demote")]
    assert said == [
        "regsvc: ada@example.org is disabled, and a user\n",
        "regsvc: ada@example.org is disabled, and a user\n",
        "regsvc: ada@example.org is active, and a user\n",
        "regsvc: ada@example.org is active, and an administrator\n",
        "regsvc: ada@example.org is active, and a user\n",
    ]
    assert rows(database, "SELECT end_reason FROM sessions") == [("disabled",)]
    assert events(database)[2:] == ["user_disabled", "user_enabled", "user_promoted", "user_demoted"]
    for words in (("disable",), ("demote",), ("delete", "--yes")):
        found = run(*words, "boss@example.org")
        assert (found.exit_code, found.stdout) == (1, "")
        assert found.stderr == "regsvc: boss@example.org is the last administrator: promote somebody else first\n"


def log_in(dsn: str, email: str) -> None:
    insert = """INSERT INTO sessions (id, user_id, device, ip, created_at, last_used_at, expires_at)
        SELECT gen_random_uuid(), id, 'curl', '192.0.2.7', now(), now(), now() + interval '1 day'
        FROM users WHERE email = $1"""
    rows(dsn, insert, email)


def test_sessions_are_listed_and_ended(run: Run, database: str) -> None:
    made(run, "ada@example.org")
    log_in(database, "ada@example.org")
    (line,) = run("sessions", "ada@example.org", "--json").stdout.splitlines()
    shown = json.loads(line)
    assert (shown["device"], shown["ip"]) == ("curl", "192.0.2.7")
    assert shown["id"] in run("sessions", "ada@example.org").stdout
    assert run("sessions", "ada@example.org", "--end").stderr == "regsvc: 1 sessions of ada@example.org ended\n"
    assert run("sessions", "ada@example.org", "--json").stdout == ""
    assert events(database) == ["user_created", "sessions_ended"]


@pytest.mark.parametrize(("stdin", "left"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_a_deletion_is_asked_about(run: Run, database: str, stdin: str, left: int) -> None:
    ada = made(run, "ada@example.org")
    found = run("delete", "ada@example.org", stdin=stdin)
    assert f"Delete ada@example.org ({ada}) for good?" in found.stderr
    assert found.exit_code == left
    assert ("nothing is deleted" in found.stderr) is bool(left)
    assert rows(database, "SELECT count(*) FROM users") == [(left,)]


def test_a_deletion_need_not_be_asked_about(run: Run, database: str) -> None:
    made(run, "ada@example.org")
    assert run("delete", "ada@example.org", "--yes").stderr == "regsvc: ada@example.org is deleted\n"
    assert events(database) == ["user_created", "user_deleted"]


def test_export_and_import_are_verbs_of_accounts_too(run: Run) -> None:
    text = run("--help").stdout
    assert "export" in text
    assert "import" in text


def test_what_becomes_of_dead_mails_is_written_down_too(run: Run, database: str) -> None:
    ada = made(run, "ada@example.org")
    insert = """INSERT INTO outbox (id, kind, topic, subject_id, state, not_before, not_after, created_at)
        SELECT gen_random_uuid(), 'mail', 'activation', $1, 'dead', now(), now(), now() FROM generate_series(1, 2)
        RETURNING id"""
    (first,), _ = rows(database, insert, UUID(ada))
    told = {"REGSVC_DATABASE_URL": database, "REGSVC_PROFILE": "dev", "REGSVC_SECRET": SECRET}
    tries = (("retry", str(first), 0), ("retry", str(first), 1), ("discard", "--all", 0), ("discard", "--all", 0))
    for *words, status in tries:
        found = CliRunner().invoke(main, ("mail", *map(str, words)), env=told)
        assert (found.exit_code, found.stdout) == (status, "")
    assert events(database) == ["user_created", "mail_retried", "mail_discarded"]
