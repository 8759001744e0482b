"""Transactions that are hung up on at each of their scheduling points."""

from collections.abc import Awaitable, Callable

import trio

from regsvc.domain.values import EmailKey
from regsvc.store import Store
from tests.instruments import HangUp
from tests.store.scenes import together
from tests.waiting import until


async def points(work: Callable[[], Awaitable[object]]) -> int:
    """Count the scheduling points of `work`, generously: the answers of the server come in pieces of their own."""
    counter = HangUp(trio.CancelScope(), 0)
    trio.lowlevel.add_instrument(counter)
    await work()
    trio.lowlevel.remove_instrument(counter)
    return -counter.left


async def cut(work: Callable[[], Awaitable[object]], n: int) -> bool:
    """Run `work`, hung up at its n-th scheduling point; tell whether that stopped it."""
    with trio.CancelScope() as scope:
        instrument = HangUp(scope, n)
        trio.lowlevel.add_instrument(instrument)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def whole(store: Store) -> None:
    """The pool lends as many connections as ever."""
    with trio.fail_after(20):
        await together(8, lambda n: held(store, f"whole{n}"))
        await until(lambda: store.statistics().in_use + store.statistics().recovering == 0)


async def held(store: Store, name: str) -> None:
    async with store.begin() as unit:
        await unit.accounts.load(EmailKey(f"{name}@example.com"))
