"""`regsvc keys`: what it prints, for people and for programs, and what it leaves in the database."""

import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from regsvc.adapters.crypto import Keyring
from regsvc.cli import main
from regsvc.domain.values import Secret
from regsvc.settings import load_settings, with_secret
from regsvc.store.migrations import migrate
from regsvc.world import open_keys

Run = Callable[..., Result]
SECRET = "a secret that signing keys are sealed under"
NEW_SECRET = "the secret that comes after the first one"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Run:
    """Run `regsvc keys` on a database that was migrated; names are variables."""
    trio.run(migrate, Secret(database))
    for name in list(os.environ):
        if name.startswith(("REGSVC_", "DATABASE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGSVC_DATABASE_URL", database)
    monkeypatch.setenv("REGSVC_PROFILE", "dev")
    monkeypatch.setenv("REGSVC_SECRET", SECRET)

    def run(*words: str, **environ: str) -> Result:
        found = CliRunner().invoke(
            main, ["keys", *words], env={f"REGSVC_{name}": text for name, text in environ.items()}
        )
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return run


async def start() -> None:
    """Do with the keys what a service does when it starts."""
    told = with_secret(load_settings(os.environ, Path(".env")))
    assert told.dsn is not None
    async with open_keys(told, told.dsn) as ring:
        await ring.load()


def listed(run: Run, **environ: str) -> list[dict[str, Any]]:
    found = run("list", "--json", **environ)
    assert found.exit_code == 0
    return [json.loads(line) for line in found.stdout.splitlines()]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_before_the_first_start_there_are_none_and_none_are_made(run: Run) -> None:
    for _ in range(2):
        found = run("list")
        assert (found.exit_code, found.stdout) == (0, "")
        assert "no keys yet" in found.stderr
        assert listed(run) == []


def test_keys_are_listed_with_what_they_are_for(run: Run) -> None:
    trio.run(start)
    [first] = listed(run)
    assert first.keys() == {"kid", "algorithm", "state", "created_at", "not_before", "retired_at"}
    assert (first["algorithm"], first["state"], first["retired_at"]) == ("EdDSA", "signing", None)
    told = json.loads(run("rotate", "--lead", "3600", "--json").stdout)
    second, old = listed(run)
    assert (second["kid"], second["state"], second["not_before"]) == (told["kid"], "next", told["signs_from"])
    assert (old["kid"], old["state"]) == (first["kid"], "signing")
    signs_from = moment(second["not_before"])
    assert moment(second["created_at"]) + timedelta(hours=1) == signs_from
    assert timedelta(minutes=30) <= moment(old["retired_at"]) - signs_from <= timedelta(minutes=32)


def test_people_see_a_table_and_a_sentence(run: Run) -> None:
    trio.run(start)
    found = run("rotate", "--lead", "0")
    assert (found.exit_code, found.stdout) == (0, "")
    assert "signs from" in found.stderr
    head, new, old = run("list").stdout.splitlines()
    assert head.split()[:3] == ["kid", "algorithm", "state"]
    assert new.split()[2] == "signing"
    assert old.split()[2] == "verifying"
    assert new.split()[0] in found.stderr


def test_a_rotation_is_by_the_algorithm_that_is_set(run: Run) -> None:
    trio.run(start)
    run("rotate", "--lead", "0", JWT_ALGORITHM="HS256")
    assert [(key["algorithm"], key["state"]) for key in listed(run, JWT_ALGORITHM="HS256")] == [
        ("HS256", "signing"),
        ("EdDSA", "verifying"),
    ]


def test_another_secret_shows_keys_that_cannot_be_read_and_a_rotation_helps(run: Run) -> None:
    trio.run(start)
    assert [key["state"] for key in listed(run, SECRET=NEW_SECRET)] == ["unreadable"]
    assert [key["state"] for key in listed(run, SECRET=NEW_SECRET, SECRET_PREVIOUS=SECRET)] == ["signing"]
    run("rotate", "--lead", "0", SECRET=NEW_SECRET)
    assert [key["state"] for key in listed(run, SECRET=NEW_SECRET)] == ["signing", "unreadable"]
    assert "unreadable" in run("list", SECRET=NEW_SECRET).stdout


@pytest.mark.parametrize("words", [("rotate", "--lead", "-1"), ("rotate", "--lead", "soon"), ("turn",)])
def test_wrong_usage_exits_with_2(run: Run, words: Sequence[str]) -> None:
    assert run(*words).exit_code == 2


def test_a_database_that_is_away_exits_with_75(run: Run) -> None:
    for word in ("list", "rotate"):
        found = run(word, DATABASE_URL="postgresql://nobody@127.0.0.1:1/x")
        assert (found.exit_code, found.stdout) == (os.EX_TEMPFAIL, "")


def test_a_running_ring_hears_of_a_rotation_and_signs_with_it_in_time(run: Run) -> None:
    """The whole way: a ring on the real shelf, a rotation by the verb, both keys live, then the new one signs."""
    told = with_secret(load_settings(os.environ, Path(".env")))
    assert told.dsn is not None
    dsn = told.dsn

    async def live() -> None:
        async with open_keys(told, dsn) as ring:
            await ring.load()
            old = ring.signing().kid
            await trio.to_thread.run_sync(partial(run, "rotate", "--lead", "5"))
            await ring.load()
            assert ring.signing().kid == old
            assert len(kids(ring)) == 2
            due_in = ring.due_in()
            assert due_in is not None
            await trio.sleep(due_in.total_seconds())
            assert ring.signing().kid != old
            assert ring.verifying(old) is not None
            await ring.load()
            assert ring.signing().kid != old, "the database's clock says so too"

    trio.run(live)


def kids(ring: Keyring) -> set[str]:
    keys = ring.public()["keys"]
    assert isinstance(keys, list)
    return {key["kid"] for key in keys}
