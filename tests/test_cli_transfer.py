"""`regsvc user export` and `import`: what goes in comes out, what does not is told, and whatever cuts them short."""

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trio
from click.testing import CliRunner, Result

from regsvc.cli import main, streams, transfer
from regsvc.domain.transfer import LINE_MAX
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from regsvc.store.migrations import migrate
from regsvc.store.transfer import Roll
from regsvc.trio_asyncpg import open_connection
from tests.waiting import until_asked

Run = Callable[..., Result]
HASH = bcrypt.hashpw(b"an old password", bcrypt.gensalt(4)).decode()
SMALL = "import regsvc.cli.transfer as t; t.BATCH = 10; t.PAGE = 10; from regsvc.cli import main; main()"


@pytest.fixture
def told(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name a migrated database, in an empty folder."""
    for name in list(os.environ):
        if name.startswith(("REGSVC_", "DATABASE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    trio.run(partial(migrate, Secret(database)))
    return {"REGSVC_DATABASE_URL": database, "REGSVC_PROFILE": "dev", "REGSVC_SECRET": "s" * 40}


@pytest.fixture
def run(told: dict[str, str]) -> Run:
    """Run `regsvc user …`."""

    def run(*words: str, stdin: bytes | None = None, **environ: str) -> Result:
        found = CliRunner().invoke(main, ("user", *words), input=stdin, env={**told, **environ})
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return run


def line(name: str = "ada", **more: object) -> bytes:
    return json.dumps({"email": f"{name}@example.org", "password_hash": HASH, **more}).encode() + b"\n"


def lines(number: int, start: int = 0) -> bytes:
    return b"".join(line(f"p{n}", username=f"user{n}") for n in range(start, start + number))


def ask(told: dict[str, str], query: str) -> list[Any]:
    async def work() -> list[Any]:
        async with open_connection(told["REGSVC_DATABASE_URL"]) as connection:
            return [row[0] for row in await connection.fetch(query)]

    return trio.run(work)


def wait_people(told: dict[str, str], number: int) -> None:
    async def work() -> None:
        async with open_connection(told["REGSVC_DATABASE_URL"]) as connection:

            async def there() -> bool:
                return bool(await connection.fetchval("SELECT count(*) = $1 FROM users", number))

            await until_asked(there)

    trio.run(work)


def people(told: dict[str, str]) -> list[str]:
    """The names of all accounts, in order."""
    return [email.partition("@")[0] for email in ask(told, "SELECT email FROM users ORDER BY email")]


def counts(found: Result) -> dict[str, int]:
    """What the summary says."""
    words = found.stderr.partition("read ")[2].replace(",", "").replace("would be ", "").split()
    return {words[n + 1]: int(words[n]) for n in range(2, 10, 2)} | {"lines": int(words[0])}


def refusals(text: str) -> list[tuple[int, str | None, str]]:
    found = [json.loads(told) for told in text.splitlines() if told.startswith("{")]
    assert all(one.keys() == {"line", "field", "code", "message"} for one in found)
    return [(one["line"], one["field"], one["code"]) for one in found]


# -------------------------------------------------------------------------------------------------------------- import

MIXED = b"".join(
    [
        line("ada", username="ada"),
        b"\n",
        line("bob", passwordhash=1, role="root"),
        line("cy", username="ADA"),
        line("Ada"),
        b'{"email": "' + b"x" * LINE_MAX + b'"}\n',
        line("dan", password_hash="an old password"),
        line("eve"),
    ]
)
REFUSED = [
    (3, "passwordhash", "unknown_key"),
    (3, "role", "invalid_role"),
    (4, "username", "duplicate"),
    (5, "email", "duplicate"),
    (6, None, "too_long"),
    (7, "password_hash", "unknown_hash"),
]


def test_what_is_right_goes_in_and_all_else_is_reported(run: Run, told: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "users.ndjson").write_bytes(MIXED)
    found = run("import", "users.ndjson", "--report", "refused.ndjson")
    assert (found.exit_code, found.stdout) == (1, "")
    assert counts(found) == {"lines": 7, "created": 2, "updated": 0, "unchanged": 0, "refused": 5}
    report = (tmp_path / "refused.ndjson").read_text("utf-8")
    assert refusals(report) == REFUSED
    assert refusals(found.stderr) == []
    assert people(told) == ["ada", "eve"]
    assert "an old password" not in report + found.stderr
    assert HASH not in report + found.stderr


def test_without_a_report_the_first_refused_lines_are_shown(run: Run) -> None:
    found = run("import", stdin=b"{}\n" * 15)
    assert found.exit_code == 1
    shown = refusals(found.stderr)
    assert shown == [(n // 2 + 1, ("email", "password_hash")[n % 2], "missing") for n in range(20)]
    assert "15 lines were refused; --report FILE tells of all" not in found.stderr
    found = run("import", stdin=b"17\n" * 30)
    assert len(refusals(found.stderr)) == transfer.SHOWN
    assert "30 lines were refused; --report FILE tells of all" in found.stderr


def test_the_same_file_again_changes_nothing_and_says_so(run: Run, told: dict[str, str]) -> None:
    first = run("import", "-", stdin=lines(12))
    assert (first.exit_code, counts(first)["created"]) == (0, 12)
    seen = ask(told, "SELECT u::text FROM users u ORDER BY id"), ask(told, "SELECT count(*) FROM events")
    for words in (("--update",), ()):
        again = run("import", *words, stdin=lines(12))
        assert (again.exit_code, counts(again)["unchanged"]) == (0, 12)
    assert seen == (ask(told, "SELECT u::text FROM users u ORDER BY id"), ask(told, "SELECT count(*) FROM events"))


def test_what_is_there_otherwise_is_refused_or_with_update_overwritten(run: Run, told: dict[str, str]) -> None:
    run("import", stdin=lines(3))
    changed = line("p1", role="admin") + line("p2")
    refused = run("import", stdin=changed)
    assert (refused.exit_code, refusals(refused.stderr)) == (1, [(1, "email", "exists")])
    updated = run("import", "--update", stdin=changed)
    assert updated.exit_code == 0
    assert counts(updated) == {"lines": 2, "created": 0, "updated": 1, "unchanged": 1, "refused": 0}
    assert ask(told, "SELECT email FROM users WHERE role = 'admin'") == ["p1@example.org"]


def test_a_dry_run_checks_and_writes_nothing(run: Run, told: dict[str, str]) -> None:
    run("import", stdin=lines(1))
    found = run("import", "--dry-run", "--update", stdin=line("p0", role="admin") + lines(2, 1) + b"{}\n")
    assert found.exit_code == 1
    assert counts(found) == {"lines": 4, "created": 2, "updated": 1, "unchanged": 0, "refused": 1}
    assert "would be created" in found.stderr
    assert people(told) == ["p0"]
    assert ask(told, "SELECT role FROM users") == ["user"]


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_other_systems_are_read(run: Run, told: dict[str, str], tmp_path: Path, packed: bool) -> None:  # noqa: FBT001 - a case
    octets = b"\xef\xbb\xbf" + line("ada").replace(b"\n", b"\r\n") + b"\r\n  \n" + line("bob").rstrip()
    octets = gzip.compress(octets) if packed else octets
    assert run("import", stdin=octets).exit_code == 0
    (tmp_path / "users").write_bytes(octets)
    assert counts(run("import", "users"))["unchanged"] == 2
    assert people(told) == ["ada", "bob"]


def test_nothing_at_all_is_imported_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for found in (run("import", stdin=b""), run("import", "empty"), run("import", stdin=gzip.compress(b""))):
        assert (found.exit_code, counts(found)["lines"]) == (0, 0)


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_damaged_file_is_told_and_what_came_before_is_in(
    run: Run, told: dict[str, str], monkeypatch: pytest.MonkeyPatch, keep: float
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 10)
    whole = gzip.compress(
        b"".join(line(f"p{n}", id=f"{n:08x}-0000-4000-8000-{os.urandom(6).hex()}") for n in range(99))
    )
    found = run("import", stdin=whole[: int(len(whole) * keep)])
    assert found.exit_code == 1
    assert "the input is damaged after line" in found.stderr
    assert counts(found)["created"] == len(people(told)) > 0


def test_lines_far_apart_are_still_about_the_same_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    found = run("import", "--update", stdin=lines(5) + line("p0", role="admin"))
    assert refusals(found.stderr) == [(6, "email", "duplicate")]


def test_what_is_lost_with_the_database_is_told_with_what_is_in(
    run: Run, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take, calls = Roll.take, 0

    async def lost(self: Roll, *words: Any, **knobs: Any) -> Sequence[Any]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Unavailable("database", "it is gone")
        return await take(self, *words, **knobs)

    monkeypatch.setattr(transfer, "BATCH", 10)
    monkeypatch.setattr(Roll, "take", lost)
    found = run("import", stdin=lines(50))
    assert found.exit_code == os.EX_TEMPFAIL
    assert "regsvc: database: it is gone" in found.stderr
    assert counts(found)["created"] == len(people(told)) == 20


def test_wrong_usage_and_databases_that_are_not_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "users").write_bytes(lines(1))
    assert run("import", "nowhere.ndjson").exit_code == 2
    assert run("import", "users", "--report", "no/such/folder").exit_code == 2
    assert run("export", "--state", "asleep").exit_code == 2
    away = "postgresql://nobody@127.0.0.1:1/x"
    for words in (("import", "users"), ("export",)):
        assert run(*words, REGSVC_DATABASE_URL=away).exit_code == os.EX_TEMPFAIL
        assert run(*words, REGSVC_PORT="http").exit_code == os.EX_CONFIG


# -------------------------------------------------------------------------------------------------------------- export


def test_what_was_exported_is_imported_the_same_elsewhere(run: Run, told: dict[str, str], tmp_path: Path) -> None:
    more = {"id": "0192f6c8-4b7e-7c3a-9a53-1d0f2c9e8b11", "created_at": "2020-02-29T12:30:00.123456Z"}
    run("import", stdin=lines(25) + line("zoe", locale="de", disabled=True, **more) + line("yan", role="admin"))
    out = run("export", "--output", "all.ndjson.gz")
    assert (out.exit_code, out.stdout) == (0, "")
    assert (tmp_path / "all.ndjson.gz").stat().st_mode & 0o777 == 0o600
    first = run("export").stdout
    assert gzip.decompress((tmp_path / "all.ndjson.gz").read_bytes()).decode() == first
    assert run("export", "--output", "all.ndjson").exit_code == 0
    assert (tmp_path / "all.ndjson").read_text("utf-8") == first
    ids = [json.loads(each)["id"] for each in first.splitlines()]
    assert ids == sorted(ids)
    assert len(ids) == 27
    ask(told, "TRUNCATE users CASCADE")
    back = run("import", "all.ndjson.gz")
    assert (back.exit_code, counts(back)["created"]) == (0, 27)
    assert run("export").stdout == first


def test_accounts_are_exported_by_their_state(run: Run) -> None:
    run("import", stdin=line("ada") + line("bob", disabled=True))
    for state, expected in (("active", ["ada"]), ("disabled", ["bob"]), ("all", ["ada", "bob"])):
        found = [json.loads(each)["email"][:3] for each in run("export", "--state", state).stdout.splitlines()]
        assert sorted(found) == expected


def test_a_file_is_replaced_only_by_a_whole_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "users"
    output.write_text("before")
    assert run("export", "--output", "users", REGSVC_DATABASE_URL="postgresql://x@127.0.0.1:1/x").exit_code == 75
    monkeypatch.setattr(transfer, "_at_roll", lambda _: signal.SIGTERM)
    assert run("export", "--output", "users").exit_code == 128 + signal.SIGTERM
    assert (output.read_text(), [path.name for path in tmp_path.iterdir()]) == ("before", ["users"])
    monkeypatch.undo()
    missing = run("export", "--output", str(tmp_path / "no" / "users"))
    assert missing.exit_code == 1
    assert "No such file or directory" in missing.stderr


def test_hashes_of_another_secret_are_told_where_they_are_imported(run: Run, told: dict[str, str]) -> None:
    run("create", "ada@example.org", "--password-stdin", stdin=b"correct horse battery staple\n")
    exported = run("export").stdout.encode()
    assert b'"bcrypt-hmac-sha384$' in exported
    ask(told, "TRUNCATE users CASCADE")
    found = run("import", REGSVC_SECRET="t" * 40, stdin=exported + line("bob"))
    assert found.exit_code == 0
    assert "1 hashes were made under another REGSVC_SECRET" in found.stderr
    ask(told, "TRUNCATE users CASCADE")
    assert "another REGSVC_SECRET" not in run("import", stdin=exported).stderr


# -------------------------------------------------------------------------------------------------- whatever cuts short


class Started:
    """`regsvc user …` in a process of its own, ten lines a batch."""

    def __init__(self, told: dict[str, str], *words: str) -> None:
        environ = {**os.environ, **told}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SMALL, "user", *words],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Return its status and its words, after a signal."""
        if number is not None:
            self.process.send_signal(number)
        _, words = self.process.communicate(timeout=15)
        return self.process.returncode, words.decode()


@pytest.fixture
def start(told: dict[str, str]) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def start(*words: str) -> Started:
        started.append(Started(told, *words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whole_batches_are_in_whatever_ends_it_and_the_next_run_does_the_rest(
    told: dict[str, str], run: Run, start: Callable[..., Started], number: int
) -> None:
    importing = start("import")
    assert importing.process.stdin is not None
    importing.process.stdin.write(lines(25))
    importing.process.stdin.flush()
    wait_people(told, 20)  # it waits for the rest of the third
    status, words = importing.end(number)
    if number == signal.SIGKILL:
        assert status == -number
    else:
        assert status == 128 + number
        assert "read 20 lines: 20 created" in words
        assert "interrupted" in words
        assert "Traceback" not in words
        assert "Fatal" not in words
    assert len(people(told)) == 20
    rest = run("import", stdin=lines(25))
    assert rest.exit_code == 0
    assert counts(rest) == {"lines": 25, "created": 5, "updated": 0, "unchanged": 20, "refused": 0}
    assert ask(told, "SELECT count(*) FROM events") == [25]


def test_an_export_nobody_reads_on_ends_quietly(run: Run, start: Callable[..., Started]) -> None:
    run("import", stdin=lines(1000))
    exporting = start("export")
    assert exporting.process.stdout is not None
    assert exporting.process.stdout.read(1) == b"{"
    exporting.process.stdout.close()
    status = exporting.process.wait(timeout=15)
    assert exporting.process.stderr is not None
    assert status == 1
    for line in exporting.process.stderr.read().splitlines():  # on a machine that is busy enough, some progress
        assert line.startswith(b"regsvc: exporting: ")


def test_an_export_that_waits_for_its_reader_can_be_interrupted(run: Run, start: Callable[..., Started]) -> None:
    run("import", stdin=lines(1000))
    exporting = start("export")
    assert exporting.process.stdout is not None
    assert exporting.process.stdout.read(1) == b"{"  # and no more: a pipe holds 64 KiB
    exporting.process.send_signal(signal.SIGINT)
    status = exporting.process.wait(timeout=15)
    assert exporting.process.stderr is not None
    words = exporting.process.stderr.read()
    assert status == 128 + signal.SIGINT
    assert b"interrupted after" in words
    assert b"Traceback" not in words


# ------------------------------------------------------------------------------------------------------------ progress


def test_elsewhere_there_is_a_line_now_and_then(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH", 10)
    assert "importing:" not in run("import", stdin=lines(20)).stderr
    monkeypatch.setattr(streams, "EVERY", 0.0)
    assert "regsvc: importing: 10 lines, 0 refused\n" in run("import", stdin=lines(20)).stderr
    assert "regsvc: exporting: 20 accounts\n" in run("export").stderr
