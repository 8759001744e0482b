"""The verbs: what they print, for people and for programs, and what they exit with."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import click
import pytest
import trio
from click.testing import CliRunner, Result

from regsvc import __version__
from regsvc.bcrypt_lanes import Package
from regsvc.cli import given, main
from regsvc.domain.values import Secret
from regsvc.settings import Settings
from regsvc.settings.words import variable
from regsvc.store.embedded import Cluster, EmbeddedError
from regsvc.store.migrations import migrate
from regsvc.supervisor import CannotListen
from regsvc.trio_asyncpg import open_connection
from tests import lines

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb in an empty folder, with the environment's variables as named."""
    for name in list(os.environ):
        if name.startswith(("REGSVC_", "DATABASE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, **environ: str) -> Result:
        found = CliRunner().invoke(main, words, env=environ)
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return run


def test_help_is_there_for_every_verb_and_names_examples(run: Run) -> None:
    context = click.Context(main)
    shown = run("--help").stdout
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        if command.hidden:
            assert f"\n  {name}" not in shown
            continue
        assert f"\n  {name}" in shown
        text = run(name, "--help").stdout
        assert "Examples:" in text
        if isinstance(command, click.Group):
            assert all(run(name, inner, "--help").exit_code == 0 for inner in command.list_commands(context))


def test_help_does_not_import_what_it_does_not_need() -> None:
    heavy = {"trio", "quart", "pydantic", "asyncpg", "rich", "structlog", "asyncio", "bcrypt"}
    script = "import sys\nfrom regsvc.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(found.stdout.splitlines()[-1].split())


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version").stdout == f"regsvc, version {__version__}\n"


def test_usage_errors_exit_with_2(run: Run) -> None:
    assert run("bake").exit_code == 2
    assert run("mail", "show", "17").exit_code == 2
    assert run("mail", "retry").exit_code == 2
    assert run("mail", "retry", "--all", str(uuid4())).exit_code == 2


@pytest.mark.parametrize("words", [("serve",), ("migrate",), ("config",), ("openapi",), ("mail", "list")])
def test_every_verb_refuses_wrong_settings_in_one_line(run: Run, words: tuple[str, ...]) -> None:
    found = run(*words, REGSVC_PORT="http")
    assert (found.exit_code, found.stdout) == (os.EX_CONFIG, "")
    assert found.stderr == "regsvc: REGSVC_PORT: got 'http', takes a whole number, 0 to 65535\n"


def test_config_shows_values_their_origin_and_no_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REGSVC_CODE_LENGTH=6\n")
    told = {"REGSVC_SECRET": "xyzzy" * 10, "DATABASE_URL": "postgresql://me:xyzzy@db/x", "REGSVC_PROFILE": "dev"}
    found = run("config", **told)
    assert found.exit_code == 0
    assert "xyzzy" not in found.output
    shown = {line.split()[0]: line.split()[1:] for line in found.stdout.splitlines()}
    assert shown["REGSVC_CODE_LENGTH"] == ["6", ".env"]
    assert shown["REGSVC_DATABASE_URL"] == ["postgresql://…@db/x", "environment"]
    assert shown["REGSVC_SECRET"] == ["…", "environment"]
    assert shown["REGSVC_PORT"] == ["8000", "default"]


def test_config_for_programs_has_every_variable(run: Run, tmp_path: Path) -> None:
    shown = json.loads(run("config", "--json").stdout)
    assert shown.keys() == {variable(name) for name in Settings.model_fields}
    assert shown["REGSVC_SECRET"]["value"] == "made at the first start"
    (tmp_path / ".regsvc").mkdir()
    (tmp_path / ".regsvc" / "secret").write_text("x" * 40)
    shown = json.loads(run("config", "--json").stdout)
    assert shown["REGSVC_SECRET"] == {"value": "…", "from": "generated, in .regsvc/secret"}


def test_config_says_what_computes_bcrypt_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "environment; here: the bcrypt package, for it was asked for"
    shown = json.loads(run("config", "--json", REGSVC_HASH_LANES="0").stdout)
    assert shown["REGSVC_HASH_LANES"] == {"value": "0", "from": asked}
    monkeypatch.setitem(sys.modules, "regsvc.bcrypt_lanes._lanes", None)  # as where nothing could be compiled
    shown = json.loads(run("config", "--json").stdout)
    assert shown["REGSVC_HASH_LANES"]["value"] == "auto"
    assert "here: the bcrypt package, for the lanes are not compiled" in shown["REGSVC_HASH_LANES"]["from"]
    lanes = SimpleNamespace(LANES_MAX=3, digest_many=lambda *given: Package().digest(*given))
    monkeypatch.setitem(sys.modules, "regsvc.bcrypt_lanes._lanes", lanes)
    shown = json.loads(run("config", "--json", REGSVC_HASH_LANES="2").stdout)
    assert shown["REGSVC_HASH_LANES"]["from"].endswith("here: up to 2 lanes, for the lanes pass their self-test")


def test_the_documents_need_no_settings(run: Run) -> None:
    table = run("config", "--table", REGSVC_PORT="http")
    assert table.exit_code == 0
    assert len(table.stdout.splitlines()) == len(Settings.model_fields) + 2
    example = run("config", "--env-example").stdout
    assert all(line.startswith("#") or not line for line in example.splitlines())


def test_the_example_uncommented_is_the_defaults(run: Run, tmp_path: Path) -> None:
    example = run("config", "--env-example").stdout
    lines = [line.removeprefix("# ") for line in example.splitlines() if line.startswith("# REGSVC_")]
    before = run("config", "--json").stdout
    (tmp_path / ".env").write_text("\n".join(lines))
    after = json.loads(run("config", "--json").stdout)
    assert {name: entry["value"] for name, entry in after.items()} == {
        name: entry["value"] for name, entry in json.loads(before).items()
    }


def test_openapi_is_made_with_the_settings(run: Run) -> None:
    document = json.loads(run("openapi", REGSVC_PUBLIC_URL="https://accounts.example.org").stdout)
    assert document["openapi"].startswith("3.1")
    assert "/v1/users/register" in document["paths"]
    one_line = run("openapi", "--no-indent").stdout
    assert len(one_line.splitlines()) == 1


def test_migrate_tells_what_it_applied_and_nothing_twice(run: Run, database: str) -> None:
    told = {"REGSVC_DATABASE_URL": database, "REGSVC_PROFILE": "dev"}
    first = run("migrate", "--json", **told)
    assert first.exit_code == 0
    assert json.loads(first.stdout)["applied"][0] == "0001 accounts"
    assert json.loads(run("migrate", "--json", **told).stdout) == {"applied": []}
    assert "up to date" in run("migrate", **told).stderr


def test_migrate_tells_of_what_the_audit_trail_has_beside_its_months(run: Run, database: str) -> None:
    told = {"REGSVC_DATABASE_URL": database, "REGSVC_PROFILE": "dev"}
    assert "audit trail" not in run("migrate", **told).stderr
    execute(database, "INSERT INTO events (id, at, name) VALUES (gen_random_uuid(), '2020-02-02Z', 'x')")
    assert "the default partition of the audit trail has rows" in run("migrate", **told).stderr


def test_a_database_that_is_away_exits_with_75(run: Run) -> None:
    told = {"REGSVC_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "REGSVC_PROFILE": "dev"}
    found = run("migrate", **told)
    assert found.exit_code == os.EX_TEMPFAIL
    assert found.stderr.startswith("regsvc: database: ")
    assert run("mail", "list", **told).exit_code == os.EX_TEMPFAIL


def test_a_database_that_another_version_migrated_exits_with_78(run: Run, database: str) -> None:
    told = {"REGSVC_DATABASE_URL": database, "REGSVC_PROFILE": "dev"}
    run("migrate", **told)
    execute(database, "UPDATE migrations SET checksum = '\\x00' WHERE version = 1")
    found = run("migrate", **told)
    assert found.exit_code == os.EX_CONFIG
    assert len(found.stderr.splitlines()) == 1


def test_the_embedded_database_is_started_for_a_verb_and_stopped_after_it(run: Run, tmp_path: Path) -> None:
    found = run("migrate", REGSVC_DATA_DIR=str(tmp_path / "data"))
    assert found.exit_code == 0
    assert "making a database" in found.stderr
    assert (tmp_path / "data" / "postgres" / "PG_VERSION").exists()
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


def test_an_embedded_database_that_cannot_run_exits_with_78(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Cluster:
        raise EmbeddedError("no programs")

    monkeypatch.setattr("regsvc.store.embedded.open_embedded", broken)
    found = run("migrate")
    assert (found.exit_code, found.stderr) == (os.EX_CONFIG, "regsvc: no programs\n")


def test_a_bug_shows_as_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("regsvc.settings.load_settings", bug)
    with pytest.raises(ZeroDivisionError):
        run("openapi")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_somebody_at_a_terminal_sees_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with given.progress("migrating"):
        pass
    assert "migrating" in terminal.getvalue()


def test_nobody_listening_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(click, "echo", closed)
    given.say("hello?")


# ---------------------------------------------------------------------------------------------------------------- mail


def execute(dsn: str, statement: str) -> list[Any]:
    async def work() -> list[Any]:
        async with open_connection(dsn) as connection:
            return list(await connection.fetch(statement))

    return trio.run(work)


@pytest.fixture
def outbox(database: str) -> dict[str, str]:
    """A database with three dead mails and a sent one; what names it."""

    async def prepare() -> None:
        await migrate(Secret(database))

    trio.run(prepare)
    execute(
        database,
        "INSERT INTO outbox"
        " (id, kind, topic, subject_id, state, attempts, not_before, not_after, created_at, sent_at, last_error)"
        " SELECT ('01a1fb8f-0000-7000-8000-00000000000' || n)::uuid, 'mail', 'activation', gen_random_uuid(),"
        " CASE WHEN n < 4 THEN 'dead' ELSE 'sent' END, 8, at, at + interval '1 hour', at,"
        " CASE WHEN n < 4 THEN NULL ELSE at END, 'mailbox full'"
        " FROM generate_series(1, 4) AS n, LATERAL (SELECT now() + n * interval '1 second') AS moment (at)",
    )
    return {"REGSVC_DATABASE_URL": database, "REGSVC_PROFILE": "dev"}


def ids(run: Run, outbox: dict[str, str], state: str) -> list[str]:
    listed = run("mail", "list", "--state", state, "--json", **outbox)
    return [json.loads(line)["id"] for line in listed.stdout.splitlines()]


def test_mails_are_listed_for_people_and_in_pages(run: Run, outbox: dict[str, str]) -> None:
    shown = run("mail", "list", **outbox).stdout.splitlines()
    assert len(shown) == 5
    assert sum("mailbox full" in line for line in shown) == 4
    [newest] = [
        json.loads(line)["id"] for line in run("mail", "list", "--limit", "1", "--json", **outbox).stdout.splitlines()
    ]
    rest = run("mail", "list", "--before", newest, "--json", **outbox).stdout.splitlines()
    assert len(rest) == 3
    assert newest not in {json.loads(line)["id"] for line in rest}


def test_one_mail_is_shown(run: Run, outbox: dict[str, str]) -> None:
    [first, *_] = ids(run, outbox, "dead")
    assert "last_error:  mailbox full" in run("mail", "show", first, **outbox).stdout
    assert json.loads(run("mail", "show", first, "--json", **outbox).stdout)["attempts"] == 8
    missing = run("mail", "show", str(uuid4()), **outbox)
    assert (missing.exit_code, missing.stdout) == (1, "")


def test_dead_mails_are_retried_or_discarded_by_name(run: Run, outbox: dict[str, str]) -> None:
    first, second, _ = ids(run, outbox, "dead")
    assert run("mail", "retry", first, **outbox).exit_code == 0
    assert run("mail", "discard", second, **outbox).exit_code == 0
    assert ids(run, outbox, "ready") == [first]
    [sent] = ids(run, outbox, "sent")
    assert run("mail", "retry", sent, **outbox).exit_code == 1
    assert run("mail", "discard", second, **outbox).exit_code == 1


@pytest.mark.parametrize(("verb", "ready"), [("retry", 3), ("discard", 0)])
def test_all_dead_mails_are_settled_at_once(run: Run, outbox: dict[str, str], verb: str, ready: int) -> None:
    assert run("mail", verb, "--all", **outbox).exit_code == 0
    assert (len(ids(run, outbox, "dead")), len(ids(run, outbox, "ready"))) == (0, ready)
    assert run("mail", verb, "--all", **outbox).exit_code == 0  # nothing to do is no failure


# --------------------------------------------------------------------------------------------------------------- serve


def test_serve_s_options_go_before_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def supervise(told: Settings, database: object, **_: object) -> int:
        seen.append(told)
        assert database is None
        return os.EX_OK

    monkeypatch.setattr("regsvc.supervisor.supervise", supervise)
    environ = {"REGSVC_PORT": "1", "REGSVC_DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev"}
    assert run("serve", "--port", "0", "--workers", "2", "--host", "::1", **environ).exit_code == 0
    assert (seen[0].port, seen[0].workers, seen[0].host) == (0, 2, "::1")
    assert seen[0].secret is not None


def test_a_bug_of_the_supervisor_is_a_line_of_the_log(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def supervise(*_: object, **__: object) -> int:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("regsvc.supervisor.supervise", supervise)
    environ = {"REGSVC_DATABASE_URL": "postgresql://db/x", "REGSVC_PROFILE": "dev"}
    found = run("serve", REGSVC_LOG_FORMAT="json", **environ)
    assert (found.exit_code, found.output) == (os.EX_SOFTWARE, "")
    [line] = lines.read_all(capfd.readouterr().out.encode())
    assert (line["event"], line["error"]) == ("process_failed", "ZeroDivisionError")
    assert "in supervise" in line["traceback"]


def test_what_is_no_bug_is_told_in_a_line_and_not_in_the_log(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def supervise(*_: object, **__: object) -> int:
        raise CannotListen("somebody listens there", again=True)

    monkeypatch.setattr("regsvc.supervisor.supervise", supervise)
    found = run("serve", REGSVC_DATABASE_URL="postgresql://db/x", REGSVC_PROFILE="dev")
    assert (found.exit_code, found.stderr) == (os.EX_TEMPFAIL, "regsvc: somebody listens there\n")
    assert capfd.readouterr().out == ""


def test_a_worker_without_its_supervisor_ends() -> None:
    script = "from regsvc.cli import main; main()"
    words = [
        "worker",
        "--parent",
        "4194304",
        "--lifeline",
        "0",
        "--ready",
        "1",
        "--shared",
        "0",
        "--slab",
        "0",
    ]
    found = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (os.EX_TEMPFAIL, b"")
