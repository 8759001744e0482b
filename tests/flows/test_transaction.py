"""A transaction of a flow: who hangs up in it does not stop it, and who is too slow does."""

import pytest
import trio
import trio.testing

from regsvc.domain.refusals import Refusal, Refused
from regsvc.flows.transaction import transaction
from regsvc.ports import Unavailable
from tests.flows.fakes import PATIENCE
from tests.flows.house import ADA, LAPTOP, RIGHT, SECOND, House


async def test_who_hangs_up_in_a_transaction_does_not_stop_it(house: House) -> None:
    user = house.shelf.member()
    await house.admitted()
    lock = house.shelf.locks["user", user.id]
    await lock.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.sessions.login, ADA, RIGHT, LAPTOP, name="login")
        await trio.testing.wait_all_tasks_blocked()
        assert len(house.shelf.logins) == 1
        nursery.cancel_scope.cancel(reason="the client hung up")
        lock.release()
    assert len(house.shelf.logins) == 2, "it was committed all the same"


async def test_a_transaction_that_is_too_slow_is_an_outage(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    async def linger() -> None:
        async with transaction(house.shelf.begin, SECOND) as unit:
            await unit.accounts.load(ADA.key)
            await trio.sleep(2)

    with pytest.raises(Unavailable, match=r"database: a transaction took longer than 1 s"):
        await linger()
    assert autojump_clock.current_time() == pytest.approx(1)
    assert not house.shelf.locks["address", ADA.key].locked()


async def test_an_error_is_the_bodys_own_and_a_return_commits(house: House) -> None:
    async def add(refused: Refused | None) -> Refused | None:
        async with transaction(house.shelf.begin, PATIENCE) as unit:
            before, _ = await unit.accounts.load(ADA.key)
            await unit.accounts.save(ADA.key, before, before)
            if refused is None:
                raise LookupError("a bug")
            return refused

    with pytest.raises(LookupError, match="a bug"):
        await add(None)
    assert house.shelf.addresses == {}
    refused = Refused(Refusal.INVALID_CREDENTIALS)
    assert await add(refused) is refused
    assert ADA.key in house.shelf.addresses
