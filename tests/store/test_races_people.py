"""Real collisions of those who have an account: one successor, one name, one end, and nobody waits in a circle."""

from dataclasses import replace
from functools import partial

import pytest
import trio

from regsvc.domain.delivery import Letter, Mail
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Opened, Repeated, Reused, Role, Rotated, User
from regsvc.domain.values import Username
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.cuts import cut, points, whole
from tests.store.scenes import (
    LEASE,
    LIFETIME,
    MAC,
    activate,
    digest,
    form,
    log_in,
    refresh,
    registered_with_code,
    rows,
    together,
    try_to_log_in,
    user,
)

LEAVES = "SELECT hash FROM refresh_tokens WHERE used_at IS NULL"


async def lock(store: Store, who: User) -> User | None:
    async with store.begin() as unit:
        locked = await unit.people.lock(who.id)
    return locked[0] if locked is not None else None


async def end_all(store: Store, who: User) -> None:
    async with store.begin() as unit:
        locked = await unit.people.lock(who.id)
        assert locked is not None
        await unit.sessions.end(who.id, Ending.LOGOUT_ALL, locked[1])


async def disable(store: Store, who: User) -> None:
    async with store.begin() as unit:
        locked = await unit.people.lock(who.id)
        assert locked is not None
        await unit.people.change(locked[0], replace(locked[0], disabled_at=locked[1]))
        await unit.sessions.end(who.id, Ending.DISABLED, locked[1])


async def take(store: Store, who: User, name: str) -> Refusal | None:
    async with store.begin() as unit:
        locked = await unit.people.lock(who.id)
        assert locked is not None
        return await unit.people.change(locked[0], replace(locked[0], username=Username(name, name)))


async def test_of_fifty_refreshes_at_once_one_makes_the_successor(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    ada = await user(store)
    for round_ in range(rounds or 2):
        token = digest(round_ << 8)
        await log_in(store, ada, token)
        outcomes: list[object] = []

        async def race(number: int, token: bytes, outcomes: list[object]) -> None:
            outcomes.append(await refresh(store, token, token[:-1] + bytes([number + 1])))

        await together(50, partial(race, token=token, outcomes=outcomes))
        (won,) = [outcome for outcome in outcomes if isinstance(outcome, Rotated)]
        assert [outcome for outcome in outcomes if outcome is not won] == [Repeated(won.link)] * 49
        assert await rows(raw, LEAVES) == [(won.link.digest,)]
        await end_all(store, ada)


async def test_a_copy_used_among_retries_of_its_successor_ends_the_family_once(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    ada = await user(store)
    for _ in range(rounds or 2):
        await log_in(store, ada, digest(1))
        await refresh(store, digest(1), digest(2))
        outcomes: list[object] = []

        async def race(number: int, outcomes: list[object]) -> None:
            outcomes.append(await refresh(store, digest(1 + number % 2), digest(number + 3)))

        await together(20, partial(race, outcomes=outcomes))
        # The successor was used once; from then on its parent is a copy, and the first to show that ends it all.
        outcomes.append(await refresh(store, digest(1), digest(2)))
        assert sum(isinstance(outcome, Rotated) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, Reused) for outcome in outcomes) == 1
        assert await rows(raw, LEAVES) == []
        assert not await store.members.sessions(ada.id)


async def test_no_link_outlives_the_end_of_its_session(store: Store, raw: Connection, rounds: int | None) -> None:
    ada = await user(store)
    for _ in range(rounds or 5):
        await together(8, partial(open_one, store, ada))

        async def race(number: int) -> None:
            if number == 4:
                await end_all(store, ada)
            else:
                await refresh(store, digest(number), digest(number + 100))

        await together(8, race)
        assert not await store.members.sessions(ada.id)
        assert await raw.fetchval("SELECT count(*) FROM refresh_tokens") == 0


async def open_one(store: Store, who: User, number: int) -> None:
    await log_in(store, who, digest(number))


async def test_no_login_outlives_that_its_account_is_disabled(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    for round_ in range(rounds or 2):
        ada = await user(store, f"race{round_}")
        outcomes: list[Opened | Refused] = []

        async def race(number: int, ada: User, outcomes: list[Opened | Refused], round_: int) -> None:
            if number == 5:
                await disable(store, ada)
            else:
                outcomes.append(await try_to_log_in(store, ada, digest(round_ << 8 | number)))

        await together(20, partial(race, ada=ada, outcomes=outcomes, round_=round_))
        refused = {outcome for outcome in outcomes if isinstance(outcome, Refused)}
        assert refused <= {Refused(Refusal.ACCOUNT_DISABLED)}
        assert len(outcomes) == 19
        assert not await store.members.sessions(ada.id)
        for outcome in outcomes:
            visit = await store.members.visit(outcome.session.id) if isinstance(outcome, Opened) else None
            assert visit is None or visit.session.end_reason is Ending.DISABLED
    assert await raw.fetchval("SELECT count(*) FROM refresh_tokens") == 0


async def test_of_twenty_who_take_one_name_at_once_one_has_it(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    people = [await user(store, f"n{n}") for n in range(20)]
    for round_ in range(rounds or 2):
        outcomes: list[Refusal | None] = []

        async def race(number: int, name: str, outcomes: list[Refusal | None]) -> None:
            outcomes.append(await take(store, people[number], name))

        await together(20, partial(race, name=f"name{round_}", outcomes=outcomes))
        assert sorted(outcomes, key=str) == [None, *[Refusal.USERNAME_TAKEN] * 19]
        assert await raw.fetchval("SELECT count(*) FROM users WHERE username_key = $1", f"name{round_}") == 1


async def test_a_name_that_is_taken_while_another_activates_with_it_is_had_once(store: Store, raw: Connection) -> None:
    people = [await user(store, f"n{n}") for n in range(5)]
    events = [await registered_with_code(store, form(f"e{n}", username="same")) for n in range(5)]

    async def race(number: int) -> None:
        if number % 2:
            assert await take(store, people[number // 2], "same") in (None, Refusal.USERNAME_TAKEN)
        else:
            await activate(store, events[number // 2])

    await together(10, race)
    assert await raw.fetchval("SELECT count(*) FROM users") == 10
    assert await raw.fetchval("SELECT count(*) FROM users WHERE username_key = 'same'") == 1


async def test_two_who_swap_their_names_are_refused_and_wait_for_nobody(store: Store) -> None:
    ada, bob = [await user(store, name, username=Username(name, name)) for name in ("ada", "bob")]
    with trio.fail_after(10):
        async with store.begin() as hers, store.begin() as his:
            # Each has let go of the name that the other wants, and nobody knows yet whether that stays so.
            assert await hers.people.change(ada, none := replace(ada, username=None)) is None
            assert await his.people.change(bob, nobody := replace(bob, username=None)) is None
            assert await hers.people.change(none, replace(ada, username=bob.username)) is Refusal.USERNAME_TAKEN
            assert await his.people.change(nobody, replace(bob, username=ada.username)) is Refusal.USERNAME_TAKEN


@pytest.mark.parametrize("crowd", [2, 8])
async def test_of_administrators_who_all_resign_at_once_one_stays(
    store: Store, raw: Connection, rounds: int | None, crowd: int
) -> None:
    people = [await user(store, f"n{n}", role=Role.ADMIN) for n in range(crowd)]
    for _ in range(rounds or 2):
        lasts: list[bool] = []

        async def race(number: int, lasts: list[bool]) -> None:
            async with store.begin() as unit:
                locked = await unit.people.lock(people[number].id)
                assert locked is not None
                lasts.append(last := await unit.people.last_admin(people[number].id))
                if not last:
                    await unit.people.change(locked[0], replace(locked[0], role=Role.USER))

        await together(crowd, partial(race, lasts=lasts))
        assert sorted(lasts) == [False] * (crowd - 1) + [True]
        assert await raw.fetchval("SELECT count(*) FROM users WHERE role = 'admin'") == 1
        await raw.execute("UPDATE users SET role = 'admin'")


async def test_a_removal_among_all_else_leaves_nothing_and_no_circle(
    store: Store, raw: Connection, rounds: int | None
) -> None:
    for round_ in range(rounds or 3):
        ada = await user(store, f"race{round_}")
        await together(3, partial(open_one, store, ada))
        async with store.begin() as unit:
            await unit.outgoing.add([Mail(Letter.NEW_DEVICE, ada.id), Mail(Letter.RESET, ada.id)], trace=None)

        async def race(number: int, ada: User) -> None:
            match number:
                case 0 | 1 | 2:
                    await refresh(store, digest(number), digest(number + 100))
                case 3:
                    await remove(store, ada)
                case 4 | 5:
                    await try_to_log_in(store, ada, digest(number))
                case 6:
                    await carry(store)
                case _:
                    await store.housekeeping.sweep(100)

        await together(8, partial(race, ada=ada))
        assert await lock(store, ada) is None
        tables = "sessions", "refresh_tokens", "codes", "outbox"
        assert [await raw.fetchval(f"SELECT count(*) FROM {table}") for table in tables] == [0] * 4  # noqa: S608


async def remove(store: Store, who: User) -> None:
    async with store.begin() as unit:
        await unit.people.lock(who.id)
        await unit.people.remove(who.id)


async def carry(store: Store) -> None:
    """What the mailer does; by the time it settles a parcel that may be gone."""
    for parcel in await store.mailbag.lease(10, LEASE):
        if parcel.letter is Letter.RESET:
            await store.mailbag.mint(parcel, MAC, LIFETIME)
        await store.mailbag.done(parcel)


async def test_a_refresh_cut_anywhere_is_whole_or_nothing(store: Store, raw: Connection) -> None:
    ada = await user(store)
    await log_in(store, ada, digest(1))
    total = await points(partial(refresh, store, digest(1), digest(2)))
    made = 0
    for n in range(1, total + 3):
        await end_all(store, ada)
        await log_in(store, ada, digest(1))
        await cut(partial(refresh, store, digest(1), digest(2)), n)
        links = await rows(raw, "SELECT hash, used_at IS NULL, parent FROM refresh_tokens ORDER BY hash")
        rotated = [(digest(1), False, None), (digest(2), True, digest(1))]
        assert links in (rotated, [(digest(1), True, None)])
        made += links == rotated
    assert 1 <= made < total  # both ends were met
    await whole(store)
