"""What a flow keeps of its answer: in the transaction that brings it about, whole or not at all."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.staff import Actor, By
from regsvc.domain.values import Secret
from regsvc.flows.account import Credentials, Registration
from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.session import Where
from regsvc.ports import Unavailable
from tests.flows.fakes import Hashing
from tests.flows.house import (
    ADA,
    CODE,
    HOUR,
    LAPTOP,
    NEW,
    RIGHT,
    WRONG,
    House,
    email,
    failed_everywhere,
    hung_up_everywhere,
    whole,
)
from tests.flows.receipt_fakes import Kept, Notebook
from tests.flows.staff_fakes import Office

Act = Callable[[Errand], Awaitable[object]]
Story = Callable[[House], Awaitable[Act]]
WHO: Final = Credentials(ADA, RIGHT)
WRONG_CODE: Final = Secret("999999")


async def register(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    return lambda errand: house.accounts.register(Registration(ADA, RIGHT), errand)


async def activate(house: House) -> Act:
    house.mint(await house.registered(), purpose="activate")
    return lambda errand: house.accounts.activate(WHO, CODE, errand)


async def resend(house: House) -> Act:
    await house.registered()
    house.shelf.now += HOUR
    return lambda errand: house.accounts.resend(WHO, errand)


async def login(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    house.shelf.member(password_hash=f"old:{RIGHT.reveal()}")
    return lambda errand: house.sessions.login(ADA, RIGHT, LAPTOP, errand)


async def verify(house: House) -> Act:
    house.mint(await house.registered())
    return lambda errand: house.sessions.verify(ADA, CODE, LAPTOP, errand)


async def refresh(house: House) -> Act:
    house.shelf.member()
    admitted = await house.admitted()
    return lambda errand: house.sessions.refresh(admitted.refresh_token, LAPTOP, errand)


async def reuse(house: House) -> Act:
    act = await refresh(house)
    await act(PLAIN)
    house.shelf.now += HOUR
    return act


async def logout(house: House) -> Act:
    house.shelf.member()
    visitor = await house.visitor()
    return lambda errand: house.sessions.logout(visitor, errand)


async def logout_all(house: House) -> Act:
    house.shelf.member()
    visitor = await house.visitor()
    return lambda errand: house.sessions.logout_all(visitor, errand)


async def forgot(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    house.shelf.member()
    return lambda errand: house.recovery.forgot(ADA, errand)


async def send_code(house: House) -> Act:
    await house.registered()
    return lambda errand: house.recovery.send_code(ADA, errand)


async def reset(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    token = house.mint_reset(house.shelf.member())
    return lambda errand: house.recovery.reset(token, NEW, errand)


async def change_password(house: House) -> Act:
    house.shelf.member()
    visitor = await house.visitor()
    return lambda errand: house.profiles.change_password(visitor, RIGHT, NEW, errand)


async def propose_email(house: House) -> Act:
    house.shelf.member()
    visitor = await house.visitor()
    return lambda errand: house.profiles.propose_email(visitor, email("new@example.org"), RIGHT, errand)


async def proposed(house: House, code: Secret) -> Act:
    user = house.shelf.member()
    visitor = await house.visitor()
    await house.profiles.propose_email(visitor, email("new@example.org"), RIGHT)
    house.mint_change(user)
    return lambda errand: house.profiles.confirm_email(visitor, code, errand)


async def confirm_email(house: House) -> Act:
    return await proposed(house, CODE)


async def miss_a_code(house: House) -> Act:
    house.mint(await house.registered(), purpose="activate")
    return lambda errand: house.accounts.activate(WHO, WRONG_CODE, errand)


async def miss_a_longer_code(house: House) -> Act:
    house.mint(await house.registered())
    return lambda errand: house.sessions.verify(ADA, WRONG_CODE, LAPTOP, errand)


async def miss_the_code_of_an_address(house: House) -> Act:
    return await proposed(house, WRONG_CODE)


DONE: Final[Sequence[Story]] = (
    register, activate, resend, login, verify, refresh, logout, logout_all, forgot, send_code, reset, change_password,
    propose_email, confirm_email,
)  # fmt: skip
MISSED: Final[Sequence[Story]] = (miss_a_code, miss_a_longer_code, miss_the_code_of_an_address, reuse)


def named(story: Story) -> str:
    return story.__name__


def with_key(house: House) -> tuple[Notebook, Errand]:
    """Return an errand whose answer is kept on the house's shelf."""
    notebook = Notebook()
    house.shelf.kept.update(notebook.rows())
    return notebook, Errand(receipt=notebook)


def answer(house: House) -> bytes | None:
    """Return what was kept."""
    [row] = house.shelf.kept.values()
    return row.answer


@pytest.mark.parametrize("story", [*DONE, *MISSED], ids=named)
async def test_what_is_answered_is_kept(house: House, story: Story) -> None:
    act = await story(house)
    notebook, errand = with_key(house)
    done = await act(errand)
    assert notebook.outcomes == [done]
    assert isinstance(done, Refused) == (story in MISSED)
    assert answer(house) == repr(done).encode()


@pytest.mark.parametrize("story", [*DONE, *MISSED], ids=named)
async def test_who_has_lost_his_key_changes_nothing(house: House, story: Story) -> None:
    act = await story(house)
    notebook, errand = with_key(house)
    house.shelf.kept[notebook.ticket.place] = Kept(b"content", notebook.ticket.holder, b"of another")
    before = state(house)
    with pytest.raises(Unavailable, match="receipts"):
        await act(errand)
    assert state(house) == before
    whole(house)


def state(house: House) -> object:
    shelf = house.shelf
    tables = (shelf.addresses, shelf.users, shelf.logins, shelf.chain, shelf.codes, shelf.changes)
    return [dict(table) for table in tables], list(shelf.effects)


# ------------------------------------------------------------------------------------------------ refusals


async def username(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    house.shelf.member()
    return lambda errand: house.accounts.register(Registration(ADA, RIGHT), errand)


async def raced(house: House) -> Act:
    """Somebody registers while the password is hashed."""
    await house.registered(email("else@example.org"))
    theirs = house.shelf.addresses.pop(email("else@example.org").key)
    house.hashing.busy = lambda: house.shelf.addresses.update({ADA.key: theirs})
    return lambda errand: house.accounts.register(Registration(ADA, RIGHT), errand)


async def too_soon(house: House) -> Act:
    await house.registered()
    return lambda errand: house.accounts.resend(WHO, errand)


async def wrong_password(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    house.shelf.member()
    return lambda errand: house.sessions.login(ADA, WRONG, LAPTOP, errand)


async def unknown_refresh(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    return lambda errand: house.sessions.refresh(Secret("unknown"), LAPTOP, errand)


async def expired_refresh(house: House) -> Act:
    act = await refresh(house)
    house.shelf.now += 24 * 8 * HOUR
    return act


async def unknown_reset(house: House) -> Act:  # noqa: ASYNC124 - stories are async
    token = house.mint_reset(house.shelf.member())
    house.hashing.busy = house.shelf.codes.clear
    return lambda errand: house.recovery.reset(token, NEW, errand)


async def changed_meanwhile(house: House) -> Act:
    user = house.shelf.member()
    visitor = await house.visitor()
    house.shelf.member("ada@example.org", NEW.reveal(), id=user.id)
    return lambda errand: house.profiles.change_password(visitor, RIGHT, NEW, errand)


async def taken_address(house: House) -> Act:
    house.shelf.member("new@example.org")
    return await propose_email(house)


async def nothing_proposed(house: House) -> Act:
    house.shelf.member()
    visitor = await house.visitor()
    return lambda errand: house.profiles.confirm_email(visitor, CODE, errand)


REFUSED: Final[Sequence[Story]] = (
    username, raced, too_soon, wrong_password, unknown_refresh, expired_refresh, unknown_reset, changed_meanwhile,
    taken_address, nothing_proposed,
)  # fmt: skip


@pytest.mark.parametrize("story", REFUSED, ids=named)
async def test_a_refusal_that_changed_nothing_is_not_kept(house: House, story: Story) -> None:
    act = await story(house)
    notebook, errand = with_key(house)
    assert isinstance(await act(errand), Refused)
    assert notebook.outcomes == []
    assert answer(house) is None


@dataclass
class Rehashed(Hashing):
    """Hashing during which another login hashes the same password anew."""

    happens: list[Callable[[], Any]] = field(default_factory=list)

    async def check(self, password: Secret, stored: Sequence[str], client: str | None = None) -> Sequence[bool]:
        right = await super().check(password, stored, client)
        while self.happens:
            self.happens.pop()()
        return right


async def test_a_login_that_looks_twice_keeps_its_answer_once() -> None:
    hashing = Rehashed()
    house = House(hashing=hashing)
    user = house.shelf.member(password_hash=f"old:{RIGHT.reveal()}")
    hashing.happens = [lambda: house.shelf.member(user.email, id=user.id)]
    notebook, errand = with_key(house)
    done = await house.sessions.login(ADA, RIGHT, Where("curl", None), errand)
    assert hashing.checked == [1, 1]
    assert notebook.outcomes == [done]
    assert answer(house) is not None


# ------------------------------------------------------------------------------------------------ administrators


async def test_what_an_administrator_did_is_kept_and_his_refusal_is_not() -> None:
    office = Office()
    user = office.shelf.member()
    mail = office.shelf.letter(user.id)
    notebook = Notebook()
    office.shelf.kept.update(notebook.rows())
    actor = Actor(By.ADMIN_TOKEN)
    assert await office.staff.discard_mail(actor, mail.id, Errand(receipt=notebook)) is None
    assert notebook.outcomes == [None]
    refused = await office.staff.discard_mail(actor, mail.id, Errand(receipt=notebook))
    assert refused == Refused(Refusal.NO_SUCH_MAIL)
    assert notebook.outcomes == [None]


# ------------------------------------------------------------------------------------------------ struck anywhere


@pytest.mark.parametrize("story", [register, verify, refresh, reset, miss_a_code], ids=named)
async def test_struck_anywhere_there_is_the_answer_and_what_it_tells_of_or_neither(story: Story) -> None:
    ends: set[bool] = set()
    before: object = None

    async def told(house: House) -> None:
        nonlocal before
        act = await story(house)
        _, errand = with_key(house)
        before = state(house)
        await act(errand)

    def holds(house: House) -> None:
        whole(house)
        if house.shelf.kept:
            kept = answer(house) is not None
            assert kept == (state(house) != before)
            ends.add(kept)

    assert await failed_everywhere(told, holds, RuntimeError) > 5
    assert await hung_up_everywhere(told, holds) > 2
    assert ends == {True, False}
