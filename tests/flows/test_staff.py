"""What administrators do, over fake ports: who may, what is written down, and that the last of them stays."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import trio
import trio.testing

from regsvc.domain.account import NO_PASSWORD, Address, Claim
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Role, User
from regsvc.domain.staff import Actor, By, Entry, Newcomer, Sought, State, Wish
from regsvc.domain.values import Email, Secret, Username
from regsvc.flows.staff import Staff
from regsvc.observe import open_log
from regsvc.ports import Unavailable
from tests.flows.fakes import START
from tests.flows.staff_fakes import Office, StaffShelf
from tests.instruments import HangUp
from tests.lines import Lines

NOBODY = UUID(int=0xFFFF)
MACHINE = Actor(By.ADMIN_TOKEN, ip="192.0.2.9")
DISABLE, ENABLE = Wish(disabled=True), Wish(disabled=False)
PROMOTE, DEMOTE = Wish(role=Role.ADMIN), Wish(role=Role.USER)


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def log() -> Iterator[Lines]:
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        yield lines


def email(text: str = "Eve@Example.org") -> Email:
    read = Email.parse(text)
    assert isinstance(read, Email)
    return read


def refused(outcome: object) -> Refusal:
    assert isinstance(outcome, Refused)
    return outcome.why


def told(lines: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What lines of staff say, without what every line has."""
    names = ("actor_id", "action", "subject_id", "refusal")
    return [tuple(line[name] for name in names if line.get(name) is not None) for line in lines]


def test_only_an_administrator_is_let_in(office: Office, log: Lines) -> None:
    boss, ada = office.shelf.boss(), office.shelf.member()
    assert office.staff.admit(boss, "192.0.2.7") == Actor(By.ACCOUNT, boss.id, "192.0.2.7")
    assert refused(office.staff.admit(ada, None)) is Refusal.NOT_ADMIN
    assert refused(office.staff.admit(replace(boss, disabled_at=START), None)) is Refusal.NOT_ADMIN
    assert told(log.of("staff_refused"))[0] == (str(ada.id), "admit", "not_admin")


async def test_a_disabled_account_has_no_session_left(office: Office, log: Lines) -> None:
    boss, ada = office.shelf.boss(), office.shelf.member()
    for number in (1, 2):
        office.shelf.login(ada, number)
    other = office.shelf.login(boss, 3)
    entry = await office.staff.change(Actor(By.ACCOUNT, boss.id, "192.0.2.7"), ada.id, DISABLE)
    assert isinstance(entry, Entry)
    assert (entry.state, entry.disabled_at) == (State.DISABLED, START)
    assert office.shelf.users[ada.id] == replace(ada, disabled_at=START, updated_at=START)
    ended = [session for session in office.shelf.logins.values() if session.end_reason is Ending.DISABLED]
    assert {session.user_id for session in ended} == {ada.id}
    assert office.shelf.alive(boss.id) == [other.id]
    (event,) = office.shelf.published()
    assert (event.name, event.subject, event.actor) == ("admin.user_disabled", ada.id, boss.id)
    assert (event.ip, event.data) == ("192.0.2.7", {"sessions": "2"})
    assert told(log.of("staff_acted")) == [(str(boss.id), "user_disabled", str(ada.id))]


async def test_what_changes_nothing_is_not_written_down(office: Office, log: Lines) -> None:
    ada = office.shelf.member()
    for wish in (ENABLE, DEMOTE, Wish()):
        entry = await office.staff.change(MACHINE, ada.id, wish)
        assert isinstance(entry, Entry)
        assert entry.state is State.ACTIVE
    assert await office.staff.end_sessions(MACHINE, ada.id) == 0
    assert office.shelf.users[ada.id] == ada
    assert (office.shelf.deeds(), log.events) == ([], [])


async def test_every_change_leaves_one_event(office: Office) -> None:
    ada = office.shelf.member()
    office.shelf.boss()
    for wish in (DISABLE, DISABLE, ENABLE, PROMOTE, PROMOTE, DEMOTE, Wish(disabled=True, role=Role.ADMIN)):
        await office.staff.change(MACHINE, ada.id, wish)
    names = ["disabled", "enabled", "promoted", "demoted", "disabled", "promoted"]
    assert office.shelf.deeds() == [(f"admin.user_{name}", ada.id) for name in names]
    assert all(event.data["by"] == "admin_token" for event in office.shelf.published())


@pytest.mark.parametrize("wish", [DISABLE, DEMOTE, Wish(disabled=True, role=Role.USER), None])
async def test_the_last_administrator_stays(office: Office, log: Lines, wish: Wish | None) -> None:
    boss = office.shelf.boss()
    office.shelf.member()
    office.shelf.put(replace(office.shelf.boss("idle"), disabled_at=START))

    async def leave() -> object:
        if wish is None:
            return await office.staff.remove(MACHINE, boss.id)
        return await office.staff.change(MACHINE, boss.id, wish)

    assert refused(await leave()) is Refusal.LAST_ADMIN
    assert (office.shelf.users[boss.id], office.shelf.deeds()) == (boss, [])
    verb = "delete_user" if wish is None else "change_user"
    assert told(log.of("staff_refused")) == [("admin_token", verb, str(boss.id), "last_admin")]
    office.shelf.boss("second")
    assert not isinstance(await leave(), Refused)


async def test_who_does_not_administer_any_more_may_go(office: Office) -> None:
    idle = office.shelf.put(replace(office.shelf.boss("idle"), disabled_at=START))
    assert isinstance(await office.staff.change(MACHINE, idle.id, DEMOTE), Entry)
    assert await office.staff.remove(MACHINE, idle.id) is None


async def test_a_deleted_account_is_gone_with_its_sessions(office: Office) -> None:
    ada = office.shelf.member()
    office.shelf.login(ada)
    assert await office.staff.remove(MACHINE, ada.id) is None
    assert (office.shelf.users, office.shelf.logins) == ({}, {})
    assert office.shelf.deeds() == [("admin.user_deleted", ada.id)]


async def test_sessions_are_shown_and_ended(office: Office) -> None:
    ada = office.shelf.member()
    session = office.shelf.login(ada)
    assert await office.staff.sessions(ada.id) == [session]
    assert await office.staff.end_sessions(MACHINE, ada.id) == 1
    assert office.shelf.logins[session.id].end_reason is Ending.STAFF
    assert await office.staff.sessions(ada.id) == []
    (event,) = office.shelf.published()
    assert (event.name, event.data) == ("admin.sessions_ended", {"sessions": "1", "by": "admin_token"})


@pytest.mark.parametrize(
    "ask",
    [
        lambda staff: staff.show(NOBODY),
        lambda staff: staff.find(email()),
        lambda staff: staff.find(Username("Eve", "eve")),
        lambda staff: staff.sessions(NOBODY),
        lambda staff: staff.change(MACHINE, NOBODY, DISABLE),
        lambda staff: staff.remove(MACHINE, NOBODY),
        lambda staff: staff.end_sessions(MACHINE, NOBODY),
    ],
)
async def test_an_unknown_account_is_said_to_be_one(office: Office, ask: Callable[[Staff], Awaitable[object]]) -> None:
    assert refused(await ask(office.staff)) is Refusal.NO_SUCH_USER
    assert office.shelf.deeds() == []


async def test_an_account_is_found_by_all_its_names(office: Office) -> None:
    ada = office.shelf.member(username=Username("Ada", "ada"))
    found = [
        await office.staff.show(ada.id),
        await office.staff.find(email("ADA@example.org")),
        await office.staff.find(Username("ADA", "ada")),
    ]
    assert [entry.id for entry in found if isinstance(entry, Entry)] == [ada.id] * 3


async def test_accounts_are_listed_page_by_page(office: Office) -> None:
    people = [office.shelf.member(f"user{n}@example.org") for n in range(4)]
    office.shelf.boss()
    claim(office.shelf)

    async def page(query: str | None, sought: Sought | None = None, before: User | None = None) -> tuple[str, bool]:
        start = before.id if before else None
        found = await office.staff.list(query=query, sought=sought, before=start, limit=3)
        return " ".join(entry.email.partition("@")[0] for entry in found.items), found.more

    assert await page(None) == ("boss user3 user2", True)
    assert await page(None, before=people[2]) == ("user1 user0", False)
    assert await page(" USER") == ("user3 user2 user1", True)
    assert await page("USER1@Example.org") == ("user1", False)
    assert await page(None, Sought.ADMIN) == ("boss", False)
    assert await page(None, Sought.PENDING) == ("Eve", False)
    assert await page("boss", Sought.DISABLED) == ("", False)


def claim(shelf: StaffShelf) -> Claim:
    made = Claim(UUID(int=0xA), "Eve@Example.org", "hash", START, START, START)
    shelf.addresses[email().key] = Address(claims=(made,))
    return made


async def test_an_account_is_made_active_and_claims_to_its_address_go(office: Office) -> None:
    claim(office.shelf)
    who = Newcomer(email(), Username("Eve", "eve"), role=Role.ADMIN)
    entry = await office.staff.create(MACHINE, who, Secret("long enough for once"))
    assert isinstance(entry, Entry)
    made = office.shelf.users[entry.id]
    assert (made.password_hash, made.activated_at) == ("hashed:long enough for once", START)
    assert (made.email_key, made.role, made.username) == (email().key, Role.ADMIN, Username("Eve", "eve"))
    assert office.shelf.addresses[email().key].claims == ()
    (event,) = office.shelf.published()
    assert (event.name, event.subject) == ("admin.user_created", entry.id)
    assert event.data == {"role": "admin", "by": "admin_token"}


async def test_an_account_may_be_made_without_a_password(office: Office) -> None:
    entry = await office.staff.create(MACHINE, Newcomer(email()), None)
    assert isinstance(entry, Entry)
    assert office.shelf.users[entry.id].password_hash == NO_PASSWORD


async def test_an_account_is_not_made_over_another_or_with_a_bad_password(office: Office, log: Lines) -> None:
    office.shelf.member(username=Username("Ada", "ada"))
    create, good = office.staff.create, Secret("long enough for once")
    taken = Newcomer(email(), Username("ADA", "ada"))
    assert refused(await create(MACHINE, Newcomer(email("ADA@example.org")), good)) is Refusal.USER_ALREADY_EXISTS
    assert refused(await create(MACHINE, taken, good)) is Refusal.USERNAME_TAKEN
    office.hashing.full = True  # a flaw is told before anything is hashed
    weak = await create(MACHINE, Newcomer(email()), Secret("password"))
    assert isinstance(weak, Refused)
    assert (weak.why, weak.field, weak.flaw and weak.flaw.code) == (Refusal.WEAK_PASSWORD, "password", "common")
    same = await create(MACHINE, Newcomer(email()), Secret("eve@example.org"))
    assert isinstance(same, Refused)
    assert (len(office.shelf.users), office.shelf.deeds()) == (1, [])
    assert [line[2] for line in told(log.of("staff_refused"))] == [
        "user_already_exists", "username_taken", "weak_password", "weak_password",
    ]  # fmt: skip


async def test_a_dead_mail_is_retried_or_discarded_and_its_receiver_s_trail_says_so(office: Office) -> None:
    ada = office.shelf.member()
    first, second, sent = (office.shelf.letter(ada.id, state, n) for n, state in enumerate(("dead", "dead", "sent")))
    assert (await office.staff.mails(state="dead", before=None, limit=1)).items == [second]
    assert await office.staff.retry_mail(MACHINE, first.id) is None
    assert office.shelf.letters[first.id].state == "ready"
    assert await office.staff.discard_mail(MACHINE, second.id) is None
    assert set(office.shelf.letters) == {first.id, sent.id}
    for mail in (first.id, sent.id, second.id):  # ready, sent, gone
        assert refused(await office.staff.retry_mail(MACHINE, mail)) is Refusal.NO_SUCH_MAIL
        assert refused(await office.staff.discard_mail(MACHINE, mail)) is Refusal.NO_SUCH_MAIL
    assert office.shelf.deeds() == [("admin.mail_retried", ada.id), ("admin.mail_discarded", ada.id)]
    assert office.shelf.published()[0].data["mail"] == str(first.id)


async def test_the_trail_is_read_page_by_page(office: Office) -> None:
    ada, bob = office.shelf.member(), office.shelf.member("bob@example.org")
    for wish in (DISABLE, ENABLE, DISABLE):
        await office.staff.change(MACHINE, ada.id, wish)
        office.shelf.now += timedelta(seconds=1)
    await office.staff.change(MACHINE, bob.id, DISABLE)
    newest = await office.staff.events(subject=None, name=None, before=None, limit=2)
    assert ([one.subject for one in newest.items], newest.more) == ([bob.id, ada.id], True)
    last = newest.items[-1]
    rest = await office.staff.events(subject=None, name=None, before=(last.at, last.id), limit=2)
    assert ([one.name for one in rest.items], rest.more) == (["admin.user_enabled", "admin.user_disabled"], False)
    found = await office.staff.events(subject=ada.id, name="admin.user_disabled", before=None, limit=9)
    assert len(found.items) == 2


def whole(shelf: StaffShelf, ada: User) -> bool:
    """Disabled with its sessions ended and one event, or nothing at all."""
    disabled = shelf.users[ada.id].disabled_at is not None
    return disabled is bool(shelf.deeds()) is not bool(shelf.alive(ada.id))


async def test_a_hang_up_at_any_point_leaves_all_or_nothing() -> None:
    office, n = Office(), 0
    ada = office.shelf.member()
    while not office.shelf.deeds():
        office, n = Office(), n + 1
        ada = office.shelf.member()
        office.shelf.login(ada)
        with trio.CancelScope() as scope:
            instrument = HangUp(scope, n)
            trio.lowlevel.add_instrument(instrument)
            try:
                await office.staff.change(MACHINE, ada.id, DISABLE)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert whole(office.shelf, ada), f"hung up at {n}"


@pytest.mark.parametrize("error", [ConnectionError, Unavailable])
async def test_every_port_call_may_fail(error: type[Exception]) -> None:
    office, n = Office(), 0
    while not office.shelf.deeds():
        n += 1
        office = Office(StaffShelf(fail_at=n, error=error))
        ada = office.shelf.member()
        office.shelf.login(ada)
        with contextlib.suppress(error):
            await office.staff.change(MACHINE, ada.id, DISABLE)
        assert whole(office.shelf, ada), f"failed at {n}"
    assert n > 5


async def test_a_transaction_that_takes_too_long_is_an_outage(
    office: Office, autojump_clock: trio.testing.MockClock
) -> None:
    office.shelf.stall = trio.Event()
    ada = office.shelf.member()
    with pytest.raises(Unavailable):
        await office.staff.change(MACHINE, ada.id, DISABLE)
    assert office.shelf.users[ada.id] == ada
