"""Real collisions on one database, and transactions cut at every point: one winner, and all or nothing."""

from functools import partial

from regsvc.domain.account import Claim, Owner, Register
from regsvc.domain.refusals import Refusal, Refused
from regsvc.store import Store
from regsvc.trio_asyncpg import Connection
from tests.store.cuts import cut, points, whole
from tests.store.scenes import (
    CLAIMS,
    RULES,
    activate,
    form,
    look,
    register,
    registered_with_code,
    sizes,
    together,
)


async def try_to_register(store: Store, name: str, outcomes: list[Claim | Refused], _: int) -> None:
    outcomes.append((await register(store, form(name))).outcome)


async def try_to_activate(store: Store, event: Register, outcomes: list[Owner | Refused], _: int) -> None:
    outcomes.append((await activate(store, event)).outcome)


async def test_of_fifty_registrations_at_once_one_is_live(store: Store, raw: Connection, rounds: int | None) -> None:
    for round_ in range(rounds or 2):
        outcomes: list[Claim | Refused] = []
        name = f"race{round_}"

        await together(50, partial(try_to_register, store, name, outcomes))
        won = [outcome for outcome in outcomes if isinstance(outcome, Claim)]
        assert len(won) == 1
        assert {o.why for o in outcomes if isinstance(o, Refused)} == {Refusal.REGISTRATION_PENDING}
        state, _ = await look(store, name)
        assert state.claims == tuple(won)
    counted = await sizes(raw)
    assert counted["registrations"] == counted["outbox"] == counted["events"] == counted["addresses"] == (rounds or 2)


async def test_of_fifty_claims_at_once_all_that_fit_are_live(store: Store) -> None:
    outcomes: list[Claim | Refused] = []

    async def race(_: int) -> None:
        outcomes.append((await register(store, form(), CLAIMS)).outcome)

    await together(50, race)
    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == CLAIMS.claims_max
    assert len((await look(store))[0].claims) == CLAIMS.claims_max


async def test_of_fifty_activations_at_once_one_wins(store: Store, raw: Connection, rounds: int | None) -> None:
    for round_ in range(rounds or 2):
        event = await registered_with_code(store, form(f"race{round_}"))
        outcomes: list[Owner | Refused] = []

        await together(50, partial(try_to_activate, store, event, outcomes))
        assert sum(isinstance(outcome, Owner) for outcome in outcomes) == 1
        refused = {outcome.why for outcome in outcomes if isinstance(outcome, Refused)}
        assert refused == {Refusal.USER_ALREADY_ACTIVATED}
    assert await raw.fetchval("SELECT count(*) FROM events WHERE name = 'user.activated'") == (rounds or 2)


async def test_of_twenty_guesses_at_once_each_is_counted(store: Store) -> None:
    event = await registered_with_code(store, form())
    outcomes: list[Owner | Refused] = []

    async def race(_: int) -> None:
        outcomes.append((await activate(store, event, b"wrong")).outcome)

    await together(20, race)
    counts = sorted(o.attempts_left for o in outcomes if isinstance(o, Refused) and o.attempts_left is not None)
    assert counts == [0] * 16 + [1, 2, 3, 4]
    assert (await look(store))[0].failures.count == RULES.code_attempts


async def test_two_addresses_that_want_one_username_both_become_accounts(store: Store, raw: Connection) -> None:
    events = [await registered_with_code(store, form(f"n{n}", username="same")) for n in range(20)]

    async def race(number: int) -> None:
        assert isinstance((await activate(store, events[number])).outcome, Owner)

    await together(20, race)
    assert await raw.fetchval("SELECT count(*) FROM users") == 20
    assert await raw.fetchval("SELECT count(*) FROM users WHERE username_key = 'same'") == 1


async def test_a_registration_cut_anywhere_is_whole_or_nothing(store: Store, raw: Connection) -> None:
    total = await points(lambda: register(store, form("whole")))
    kept = 1
    for n in range(1, total + 3):
        name = f"cut{n}"
        stopped = await cut(partial(register, store, form(name)), n)
        found = bool((await look(store, name))[0].claims)
        assert found or stopped
        kept += found
    counted = await sizes(raw)
    assert counted["registrations"] == counted["outbox"] == counted["events"] == kept
    assert 2 <= kept <= total  # both ends were met
    await whole(store)


async def test_an_activation_cut_anywhere_is_whole_or_nothing(store: Store, raw: Connection) -> None:
    total = await points(lambda: activate_new(store, "whole"))
    made = 1
    for n in range(1, total + 3, 2):
        event = await registered_with_code(store, form(f"cut{n}"))
        await cut(partial(activate, store, event), n)
        state, _ = await look(store, f"cut{n}")
        assert (state.owner is None) == bool(state.claims)
        made += state.owner is not None
    assert await raw.fetchval("SELECT count(*) FROM events WHERE name = 'user.activated'") == made
    assert await raw.fetchval("SELECT count(*) FROM codes WHERE used_at IS NOT NULL") == made
    await whole(store)


async def activate_new(store: Store, name: str) -> None:
    await activate(store, await registered_with_code(store, form(name)))
