"""The checker itself: it is content with a good run, and says the name of each invariant that a broken one breaks."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.store.embedded import Cluster
from regsvc.store.migrations import migrate
from tests.canaries import Canaries
from tests.chaos.evidence import TABLES, Copy, Evidence, read_rows
from tests.chaos.invariants import CHECKS, assert_held, violations
from tests.chaos.ledger import CARRIED, Ledger, Refused, wait_carried
from tests.postgres import dsn_of, psql, temporary_database

ADA, KIM, BOB = (UUID(int=number) for number in (1, 2, 3))  # an account, a claim, and nobody
SECRET = "correct horse battery staple"
STORY = """
    INSERT INTO addresses (email_key) VALUES ('ada@example.test'), ('kim@example.test');
    INSERT INTO users (id, email, email_key, password_hash, created_at, activated_at, updated_at)
    VALUES (:ada, 'Ada@example.test', 'ada@example.test', 'x', now(), now(), now());
    INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
    VALUES (:kim, 'kim@example.test', 'kim@example.test', 'x', now(), now() + '1 min', now() + '1 day');
    INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at, used_at) VALUES
        (:ada, 'activate', 'x', now(), now() + '1 min', now() + '1 s'),
        (:kim, 'activate', 'x', now(), now() + '1 min', NULL);
    INSERT INTO outbox (id, kind, topic, subject_id, state, not_before, not_after, created_at, sent_at) VALUES
        (:ada, 'mail', 'activation', :ada, 'sent', now(), now(), now(), now()),
        (:kim, 'mail', 'activation', :kim, 'sent', now(), now(), now(), now());
    INSERT INTO events (id, at, name, subject_id) VALUES
        (:ada, now(), 'user.registered', :ada), (:kim, now(), 'user.registered', :kim),
        (:bob, now(), 'user.activated', :ada);
    INSERT INTO sessions (id, user_id, device, created_at, last_used_at, expires_at)
    VALUES (:ada, :ada, 'd', now(), now(), now() + '1 day');
    INSERT INTO refresh_tokens (hash, session_id, parent, used_at, expires_at, kept_until) VALUES
        ('one', :ada, NULL, now(), now() + '1 day', now() + '1 day'),
        ('two', :ada, 'one', NULL, now() + '1 day', now() + '1 day');
"""
PROBLEM = b'{"type": "about:blank", "title": "no", "status": 503, "detail": "later"}'
_numbers = count()
_made: dict[str, float] = {}  # when: its codes have lived since then, however long the tests take


def named(sql: str) -> str:
    """Fill in who is meant."""
    for name, who in (("ada", ADA), ("kim", KIM), ("bob", BOB)):
        sql = sql.replace(f":{name}", f"'{who}'")
    return sql.replace(":secret", SECRET)


@pytest.fixture(scope="module")
def story(postgres: Cluster) -> Iterator[str]:
    """The name of a database that a good run left."""
    name = f"story_{os.getpid()}"
    with temporary_database(postgres, name) as where:
        trio.run(lambda: migrate(Secret(where)))
        psql(postgres, named(STORY), database=name)
        _made["story"] = time.time()
        yield name


@pytest.fixture
def database(postgres: Cluster, story: str) -> Iterator[str]:
    """The name of a copy that may be broken."""
    name = f"broken_{os.getpid()}_{next(_numbers)}"
    with temporary_database(postgres, name, template=story):
        yield name


def refused(
    status: int = 503, media: str = "application/problem+json", retry_after: str = "1", body: bytes = PROBLEM
) -> Refused:
    return Refused("register", status, media, retry_after, body)


@dataclass
class Run:
    """A good run, as its record has it."""

    seen: Evidence
    name: str = ""

    @classmethod
    async def read(cls, where: str) -> "Run":
        emails = {ADA: "Ada@example.test", KIM: "kim@example.test"}
        ledger = Ledger(acknowledged=dict(emails), refused=[refused()])
        ledger.activated[ADA] += 1
        copies = [Copy(f"<{claim}>", email, _made["story"]) for claim, email in emails.items()]
        secrets = Canaries()
        secrets.add("password", SECRET)
        return cls(Evidence(ledger, copies, await read_rows(where), '{"event":"worker_started"}\n', secrets=secrets))


def nothing(_: Evidence) -> None:
    """The record is as it was."""


@dataclass(frozen=True)
class Broken:
    """How a run may be broken, and what is said of that."""

    said: str
    sql: str = ""
    record: Callable[[Evidence], object] = field(default=nothing)

    def __str__(self) -> str:
        return self.said


def twice(seen: Evidence) -> None:
    seen.copies.append(seen.copies[0])


def late(seen: Evidence) -> None:
    seen.copies[1] = Copy("<late>", "kim@example.test", _made["story"] + 16)


def says(text: str) -> Callable[[Evidence], None]:
    def say(seen: Evidence) -> None:
        seen.said += text

    return say


def hears(*heard: Refused) -> Callable[[Evidence], None]:
    return lambda seen: seen.ledger.refused.extend(heard)


BROKEN = (
    Broken("I1: kim@example.test was acknowledged and is gone", "DELETE FROM registrations WHERE id = :kim"),
    Broken("I1: kim@example.test was acknowledged and never mailed", record=lambda seen: seen.copies.pop()),
    Broken(
        "I2: bob@example.test was mailed",
        record=lambda seen: seen.copies.append(Copy("<b>", "bob@example.test", _made["story"])),
    ),
    Broken(f"I3: {ADA} was activated 2 times", record=lambda seen: seen.ledger.activated.update([ADA])),
    Broken(f"I3: {KIM} was told that it is active", record=lambda seen: seen.ledger.activated.update([KIM])),
    Broken(
        f"I3: {ADA} became an account 2 times",
        "INSERT INTO events (id, at, name, subject_id) VALUES (:kim, now(), 'user.activated', :ada)",
    ),
    Broken("I3: ada@ was activated with another's", record=lambda seen: seen.ledger.intruders.append("ada@")),
    Broken(f"I3: the code of {ADA} was used at", "UPDATE codes SET used_at = expires_at WHERE used_at IS NOT NULL"),
    Broken(
        "I4: ada@example.test has 2 accounts",
        """DROP INDEX users_email_key; INSERT INTO users
        SELECT :bob, email, email_key, NULL, NULL, NULL, 'x', 'user', NULL, now(), now(), now() FROM users;
        INSERT INTO events (id, at, name, subject_id) VALUES (:kim, now(), 'user.activated', :bob)""",
    ),
    Broken("I4: Ada@example.test is stored as Ada@", "UPDATE users SET email_key = email"),
    Broken("I4: ADA@ was registered while it was held", record=lambda seen: seen.ledger.twins.append("ADA@")),
    Broken("I5: 1 duplicates, 0 interruptions", record=twice),
    Broken("I6: a code did not work in its life: ada", record=lambda seen: seen.ledger.refused_codes.append("ada")),
    Broken("I6: the code of kim@example.test had", record=late),
    Broken("I6: the code of kim@example.test had", "UPDATE codes SET expires_at = minted_at + '44 s'"),
    Broken("I7: 1 claims without their address", "DELETE FROM addresses WHERE email_key LIKE 'kim%'"),
    Broken("I7: 1 claims without a mail", "DELETE FROM outbox WHERE id = :kim"),
    Broken("I7: 1 claims without an event", "DELETE FROM events WHERE id = :kim"),
    Broken("I7: 1 mails about nobody", "UPDATE outbox SET subject_id = :bob WHERE id = :ada"),
    Broken("I7: 1 live codes of nobody", "UPDATE codes SET used_at = NULL"),
    Broken("I7: 1 accounts without their event", "DELETE FROM events WHERE id = :bob"),
    Broken(
        "I7: 1 accounts beside claims to their address",
        """UPDATE registrations SET email_key = 'ada@example.test'""",
    ),
    Broken(
        "I8: 1 sessions with two unused tokens",
        "DROP INDEX refresh_tokens_leaf; UPDATE refresh_tokens SET used_at = NULL",
    ),
    Broken("I8: 1 sessions that ended and have", "UPDATE sessions SET ended_at = now(), end_reason = 'refresh_reused'"),
    Broken("I8: 1 sessions that live and have no unused", "UPDATE refresh_tokens SET used_at = now()"),
    Broken("I8: 1 used tokens without a successor", "UPDATE refresh_tokens SET parent = NULL"),
    Broken("I9: a password in the log", record=says(f'{{"event":"x","reason":"{SECRET}"}}\n')),
    Broken("I9: a password in the metrics", record=lambda seen: setattr(seen, "metrics", f'a{{b="{SECRET}"}} 1\n')),
    Broken(
        "I9: a password in an error",
        record=hears(refused(body=PROBLEM[:-1] + f', "hint": "{SECRET}"}}'.encode())),
    ),
    Broken("I9: a password in a row", "UPDATE outbox SET last_error = 'said :secret' WHERE id = :kim"),
    Broken("I10: register: 500 is unexpected", record=hears(refused(500))),
    Broken("I10: register: 504 is unexpected", record=hears(refused(504))),
    Broken("I10: register: 503 is text/html", record=hears(refused(media="text/html"))),
    Broken("I10: register: 503 is no JSON", record=hears(refused(body=b"<p>later"))),
    Broken("I10: register: 503 is no problem document", record=hears(refused(body=b'{"status": 503}'))),
    Broken("I10: register: 404 says it is 503", record=hears(refused(404))),
    Broken("I10: register: 503 does not say when", record=hears(refused(retry_after=""))),
    Broken("I10: 2 workers were started, 0 were told", record=says('{"event":"worker_started"}\n')),
    Broken("I10: 1 connections were refused or cut", record=lambda seen: setattr(seen.ledger, "cut_off", 1)),
    Broken("I10: http_bug", record=says('{"event":"http_bug"}\n')),
    Broken("I10: actor_crashed", record=says('{"event":"actor_crashed"}\n')),
)


async def test_a_good_run_breaks_nothing(postgres: Cluster, story: str) -> None:
    assert violations((await Run.read(dsn_of(postgres, story))).seen) == []


async def test_what_it_was_told_to_bear_is_no_violation(postgres: Cluster, story: str) -> None:
    run = await Run.read(dsn_of(postgres, story))
    twice(run.seen)
    says('{"event":"worker_started"}\n')(run.seen)
    run.seen.copies.append(Copy("<a notice>", "kim@example.test", _made["story"] + 50, has_code=False))
    run.seen.ledger.cut_off, run.seen.interruptions, run.seen.told = 3, 1, 1
    assert violations(run.seen) == []


@pytest.mark.parametrize("broken", BROKEN, ids=str)
async def test_each_way_to_break_one_is_found(postgres: Cluster, database: str, broken: Broken) -> None:
    if broken.sql:
        psql(postgres, named(broken.sql), database=database)
    run = await Run.read(dsn_of(postgres, database))
    broken.record(run.seen)
    with pytest.raises(AssertionError) as failure:
        assert_held(run.seen)
    assert any(line.startswith(broken.said) for line in str(failure.value).splitlines())
    name = broken.said.partition(":")[0]
    assert str(failure.value).startswith(name) or name in {"I4", "I7"}  # whose breaking breaks others too


def test_no_invariant_is_without_a_way_to_break_it() -> None:
    assert {broken.said.partition(":")[0] for broken in BROKEN} == set(CHECKS)


async def test_mail_that_stays_in_the_outbox_is_named_too(postgres: Cluster, database: str) -> None:
    assert psql(postgres, CARRIED, database=database) == "t"
    psql(postgres, "UPDATE outbox SET state = 'ready', sent_at = NULL", database=database)
    with pytest.raises(AssertionError, match=r"^I1: mail is still in the outbox after"):
        await wait_carried(dsn_of(postgres, database), 0.05)


def test_every_table_is_searched(postgres: Cluster, story: str) -> None:
    tables = set(psql(postgres, TABLES, database=story).split())
    assert tables >= {"users", "registrations", "outbox", "codes", "events_default", "sessions", "refresh_tokens"}
