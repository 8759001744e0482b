"""Who does what a request with an Idempotency-Key asks, on a real database: one does, and all get what he kept."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Final

import pytest
import trio

from regsvc.domain.values import Secret
from regsvc.ports import Different, Finished, Running, Slot, Ticket, Unavailable
from regsvc.store import Store, open_store
from regsvc.store.receipt import STRANGERS_MAX
from regsvc.trio_asyncpg import Connection
from tests.store.scenes import new_id, together

LEASE: Final = timedelta(seconds=25)
OVER: Final = timedelta(0)
SLOT: Final = Slot(b"place", b"content", b"key")
OTHER: Final = replace(SLOT, content=b"other content")
ANSWER: Final = b"sealed"
Taken = Ticket | Finished | Running | Different


async def take(store: Store, slot: Slot = SLOT, lease: timedelta = LEASE) -> Taken:
    return await store.tickets.take([slot], lease)


async def taken(store: Store, slot: Slot = SLOT, lease: timedelta = LEASE) -> Ticket:
    ticket = await take(store, slot, lease)
    assert isinstance(ticket, Ticket)
    return ticket


async def keep(store: Store, ticket: Ticket, answer: bytes = ANSWER) -> None:
    async with store.begin() as unit:
        await unit.receipts.keep(ticket, answer)


async def age(raw: Connection, column: str) -> None:
    """Let a time of every row have come just now."""
    await raw.execute(f"UPDATE idempotency_keys SET {column} = clock_timestamp()")  # noqa: S608 - a name of ours


async def rows(raw: Connection) -> int:
    count: int = await raw.fetchval("SELECT count(*) FROM idempotency_keys")
    return count


async def test_one_does_it_and_the_others_wait_then_get_his_answer(store: Store) -> None:
    ticket = await taken(store)
    assert isinstance(await take(store), Running)
    await keep(store, ticket)
    assert await take(store) == Finished(ANSWER)
    assert await take(store) == Finished(ANSWER)


async def test_a_key_is_of_its_place(store: Store) -> None:
    await taken(store)
    assert isinstance(await take(store, replace(SLOT, place=b"another")), Ticket)


@pytest.mark.parametrize("finished", [False, True])
async def test_other_content_is_told_so_whether_or_not_the_first_is_finished(store: Store, *, finished: bool) -> None:
    ticket = await taken(store)
    if finished:
        await keep(store, ticket)
    assert isinstance(await take(store, OTHER), Different)
    assert isinstance(await take(store), Finished if finished else Running)


async def test_what_is_given_back_is_free_for_any_content(store: Store, raw: Connection) -> None:
    assert await store.tickets.give_back(await taken(store))
    assert await rows(raw) == 0
    assert isinstance(await take(store, OTHER), Ticket)


async def test_an_answer_that_was_kept_is_not_given_back(store: Store) -> None:
    ticket = await taken(store)
    await keep(store, ticket)
    assert not await store.tickets.give_back(ticket)
    assert await take(store) == Finished(ANSWER)


async def test_what_is_undone_keeps_no_answer(store: Store) -> None:
    ticket = await taken(store)
    with pytest.raises(RuntimeError):  # noqa: PT012 - the block is the transaction
        async with store.begin() as unit:
            await unit.receipts.keep(ticket, ANSWER)
            raise RuntimeError
    assert isinstance(await take(store), Running)
    await keep(store, ticket)
    assert await take(store) == Finished(ANSWER)


@pytest.mark.parametrize("slot", [SLOT, OTHER])
async def test_a_lapsed_lease_is_taken_over_and_its_holder_does_nothing_any_more(store: Store, slot: Slot) -> None:
    late = await taken(store, lease=OVER)
    heir = await taken(store, slot)
    with pytest.raises(Unavailable) as lost:
        await keep(store, late, b"of the late one")
    assert lost.value.what == "receipts"
    assert not await store.tickets.give_back(late)  # nor does he free what is another's
    assert isinstance(await take(store, slot), Running)
    await keep(store, heir)
    assert await take(store, slot) == Finished(ANSWER)


async def test_a_holder_who_is_late_keeps_his_answer_if_nobody_took_over(store: Store) -> None:
    late = await taken(store, lease=OVER)
    await keep(store, late)
    assert await take(store) == Finished(ANSWER)


async def test_an_answer_is_kept_once(store: Store) -> None:
    ticket = await taken(store)
    await keep(store, ticket)
    with pytest.raises(Unavailable):
        await keep(store, ticket, b"another answer")
    assert await take(store) == Finished(ANSWER)


async def test_it_is_kept_for_a_day_by_the_clock_of_the_database(store: Store, raw: Connection) -> None:
    await keep(store, await taken(store))
    left = await raw.fetchval("SELECT expires_at - clock_timestamp() FROM idempotency_keys")
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    await age(raw, "expires_at")
    again = await taken(store, OTHER)
    await keep(store, again, b"of the next day")
    assert await take(store, OTHER) == Finished(b"of the next day")
    assert await rows(raw) == 1


async def test_a_key_that_comes_with_too_many_contents_is_burnt(store: Store, raw: Connection) -> None:
    await keep(store, await taken(store))
    for number in range(STRANGERS_MAX):
        assert isinstance(await take(store, replace(SLOT, content=b"%d" % number)), Different)
    assert await take(store) == Finished(ANSWER)
    for _ in range(3):
        assert isinstance(await take(store, OTHER), Different)
    assert isinstance(await take(store), Different)
    assert await raw.fetchval("SELECT strangers FROM idempotency_keys") == STRANGERS_MAX + 1
    await age(raw, "expires_at")
    await keep(store, await taken(store))
    assert await take(store) == Finished(ANSWER)


async def test_of_guesses_at_once_each_is_counted(store: Store, rounds: int | None) -> None:
    for round_ in range(rounds or 3):
        slot = replace(SLOT, place=b"guessed %d" % round_)
        await keep(store, await taken(store, slot))

        async def guess(number: int, slot: Slot = slot) -> None:
            assert isinstance(await take(store, replace(slot, content=b"%d" % number)), Different)

        await together(STRANGERS_MAX, guess)
        assert await take(store, slot) == Finished(ANSWER)
        await together(2, guess)
        assert isinstance(await take(store, slot), Different)


@dataclass
class Racers:
    """Clients who send one request at once, each again until he is answered; what they do is counted.

    `lapsing`: so often each one's lease is over as soon as it begins, and the next one takes it from him.
    """

    store: Store
    slot: Slot
    lapsing: int
    done: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    async def run(self, number: int) -> None:
        for turn in count():
            match await take(self.store, self.slot, OVER if turn < self.lapsing else LEASE):
                case Ticket() as ticket:
                    await self._do(ticket, b"of racer %d" % number)
                case Finished(answer):
                    self.answers.append(answer)
                    return
                case other:
                    assert isinstance(other, Running)
                    await trio.lowlevel.checkpoint()

    async def _do(self, ticket: Ticket, answer: bytes) -> None:
        try:
            await keep(self.store, ticket, answer)
        except Unavailable:
            assert self.lapsing
        else:
            self.done.append(answer)


@pytest.mark.parametrize("lapsing", [0, 2], ids=["held", "lapsing"])
async def test_of_twenty_at_once_one_does_it_and_all_get_his_answer(
    store: Store, lapsing: int, rounds: int | None
) -> None:
    for round_ in range(rounds or 3):
        racers = Racers(store, replace(SLOT, place=b"race %d" % round_), lapsing)
        await together(20, racers.run)
        assert len(racers.done) == 1
        assert racers.answers == racers.done * 20


async def test_who_asks_while_an_answer_is_committed_gets_it(store: Store) -> None:
    ticket, got = await taken(store), []
    asks = trio.Event()

    async def ask() -> None:
        asks.set()
        got.append(await take(store))

    async with trio.open_nursery() as nursery, store.begin() as unit:
        await unit.receipts.keep(ticket, ANSWER)
        nursery.start_soon(ask, name="the same again")
        await asks.wait()
    assert got == [Finished(ANSWER)]


async def test_what_was_kept_under_the_previous_secret_is_found(store: Store) -> None:
    before = replace(SLOT, place=b"under the previous")
    ticket = await taken(store, before)
    both = [SLOT, before]
    assert isinstance(await store.tickets.take(both, LEASE), Running)
    await keep(store, ticket)
    assert await store.tickets.take(both, LEASE) == Finished(ANSWER)
    assert isinstance(await store.tickets.take([SLOT, replace(before, content=b"other")], LEASE), Different)
    new = replace(SLOT, place=b"new")
    assert isinstance(await store.tickets.take([new, replace(new, place=b"none")], LEASE), Ticket)


async def test_a_row_that_comes_and_goes_is_under_way(migrated: str) -> None:
    """Between a take that fails and the look the row may go; that another one is there again each time is bad luck."""

    async with open_store(Secret(migrated), new_id=new_id, pool_min=1, pool_max=2) as store:
        tickets = store.tickets
        looks = 0

        class Fleeting:
            """Statements that see somebody at each take, and nobody at each look."""

            async def value(self, *_: object, **__: object) -> None:
                await trio.lowlevel.checkpoint()

            async def row(self, *_: object, **__: object) -> None:
                nonlocal looks
                looks += 1
                await trio.lowlevel.checkpoint()

        unlucky = replace(tickets, queries=Fleeting())  # type: ignore[type-var]
        assert isinstance(await unlucky.take([SLOT], LEASE), Running)
        assert looks == 3


async def test_nothing_in_a_row_is_what_was_sent(store: Store, raw: Connection) -> None:
    await keep(store, await taken(store))
    row = await raw.fetchrow("SELECT * FROM idempotency_keys")
    assert row is not None
    assert set(row.keys()) == {"slot", "body_mac", "holder", "lease_until", "strangers", "answer", "expires_at"}
    assert SLOT.key not in row.values()


async def test_without_a_database_it_says_so() -> None:
    nowhere = Secret("postgresql://nobody@127.0.0.1:1/none")
    async with open_store(nowhere, new_id=new_id, pool_min=0, timeout=timedelta(seconds=1)) as store:
        with pytest.raises(Unavailable):
            await take(store)
        with pytest.raises(Unavailable):
            await store.tickets.give_back(Ticket(b"place", new_id()))
