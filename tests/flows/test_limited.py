"""Where flows ask whether there was too much of something: before what costs, and never at a stranger's expense."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest

from regsvc.domain import account
from regsvc.domain.account import DuplicatePolicy
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import LinkToken, Secret, Username
from regsvc.flows.account import ACTIVATE, Credentials
from regsvc.flows.errand import Errand
from regsvc.flows.quota import Limits
from regsvc.flows.session import Admitted
from tests.flows.house import ADA, CODE, LAPTOP, MINUTE, NEW, RIGHT, WRONG, House, email
from tests.flows.quota_fakes import CLIENT, Buckets, limited, metered
from tests.lines import Lines

Ask = Callable[[House, Secret, Errand], Awaitable[object]]
ELSEWHERE = "192.0.2.99"
OTHER_CODE = Secret("113355")


@pytest.fixture
def buckets() -> Buckets:
    return Buckets()


@pytest.fixture
def limits(buckets: Buckets) -> Limits:
    return limited(buckets)


def why(outcome: object) -> Refusal | None:
    return outcome.why if isinstance(outcome, Refused) else None


# ------------------------------------------------------------------------------------------------ log in


async def test_an_account_is_logged_in_to_so_often_from_wherever(house: House, limits: Limits, log: Lines) -> None:
    house.shelf.member()
    outcomes = []
    for number in range(12):
        errand = metered(limits, f"192.0.2.{number}")
        outcomes.append(await house.sessions.login(ADA, WRONG if number % 2 else RIGHT, LAPTOP, errand))
    assert [isinstance(one, Admitted) for one in outcomes[:10]] == [True, False] * 5
    assert outcomes[10] == outcomes[11] == Refused(Refusal.RATE_LIMITED, retry_after=timedelta(seconds=6))
    assert len(house.hashing.checked) == 10, "nothing is hashed for who is refused"
    assert [line["refusal"] for line in log.of("login_refused")][-2:] == ["rate_limited"] * 2


async def test_a_name_and_an_address_are_counted_apart_so_that_neither_tells_of_the_other(
    house: House, limits: Limits, buckets: Buckets
) -> None:
    ada = Username("Ada", "ada")
    house.shelf.member(username=ada)
    for _ in range(10):
        assert isinstance(await house.sessions.login(ada, RIGHT, LAPTOP, metered(limits)), Admitted)
    assert why(await house.sessions.login(ada, RIGHT, LAPTOP, metered(limits))) is Refusal.RATE_LIMITED
    assert isinstance(await house.sessions.login(ADA, RIGHT, LAPTOP, metered(limits)), Admitted)
    assert buckets.trips[0] == ["login-account:#ada"]


async def test_a_log_in_that_looks_twice_counts_once(house: House, limits: Limits, buckets: Buckets) -> None:
    ada = house.shelf.member(password="another password")

    def changed() -> None:
        house.hashing.busy = lambda: None
        house.shelf.member(id=ada.id, password="yet another")

    house.hashing.busy = changed
    await house.sessions.login(ADA, Secret("another password"), LAPTOP, metered(limits))
    assert len(buckets.trips) == 1


# ------------------------------------------------------------------------------------------------ activate


async def test_codes_are_shown_so_often_by_whoever_has_the_password_and_by_nobody_else(
    house: House, limits: Limits, buckets: Buckets
) -> None:
    claim = await house.registered()
    house.mint(claim, purpose=ACTIVATE)
    stranger, ada = Credentials(ADA, WRONG), Credentials(ADA, RIGHT)
    for _ in range(10):
        assert why(await house.accounts.activate(stranger, CODE, metered(limits, ELSEWHERE))) is (
            Refusal.INVALID_CREDENTIALS
        )
    assert why(await house.accounts.activate(stranger, CODE, metered(limits, ELSEWHERE))) is Refusal.RATE_LIMITED
    assert buckets.owed(f"activation:{claim}") == 0
    for _ in range(3):
        assert why(await house.accounts.activate(ada, OTHER_CODE, metered(limits))) is Refusal.INVALID_ACTIVATION_CODE
    assert why(await house.accounts.activate(ada, CODE, metered(limits, ELSEWHERE))) is Refusal.RATE_LIMITED
    assert why(await house.accounts.activate(ada, CODE, metered(limits))) is Refusal.RATE_LIMITED
    [address] = house.shelf.addresses.values()
    assert address.failures.count == 3, "what is refused spends no try"


async def test_a_link_is_followed_however_often_codes_were_shown(
    house: House, limits: Limits, buckets: Buckets
) -> None:
    claim = await house.registered()
    house.mint(claim, purpose=ACTIVATE)
    ada = Credentials(ADA, RIGHT)
    told = [why(await house.accounts.activate(ada, OTHER_CODE, metered(limits))) for _ in range(4)]
    assert told[3] is Refusal.RATE_LIMITED
    before = buckets.owed(f"activation:{claim}")
    for token in (None, LinkToken(claim, Secret("0" * 32))):
        assert why(await house.accounts.follow(ada, token, metered(limits))) not in {None, Refusal.RATE_LIMITED}
    assert buckets.owed(f"activation:{claim}") == before


async def test_another_claim_with_the_same_password_gives_no_more_tries(limits: Limits) -> None:
    house = House(rules=account.Rules(duplicates=DuplicatePolicy.CLAIMS, limit_mails=False))
    ada = Credentials(ADA, RIGHT)
    told = []
    for _ in range(4):
        house.mint(await house.registered(), purpose=ACTIVATE)
        told.append(why(await house.accounts.activate(ada, OTHER_CODE, metered(limits))))
    assert told == [Refusal.INVALID_ACTIVATION_CODE] * 3 + [Refusal.RATE_LIMITED]


# ------------------------------------------------------------------------------------------------ other passwords


async def _resend(house: House, password: Secret, errand: Errand) -> object:
    return await house.accounts.resend(Credentials(ADA, password), errand)


async def _standing(house: House, password: Secret, errand: Errand) -> object:
    return await house.accounts.standing(Credentials(ADA, password), timedelta(), errand)


async def _change_password(house: House, password: Secret, errand: Errand) -> object:
    visitor = await house.visitor()
    done = await house.profiles.change_password(visitor, password, NEW, errand)
    house.shelf.put(visitor.user)  # as it was
    return done


async def _propose_email(house: House, password: Secret, errand: Errand) -> object:
    house.shelf.now += MINUTE  # mails have to wait for each other
    return await house.profiles.propose_email(await house.visitor(), email("ada@example.net"), password, errand)


async def _remove(house: House, password: Secret, errand: Errand) -> object:
    visitor = await house.visitor()
    done = await house.profiles.remove(visitor, password, errand)
    house.shelf.put(visitor.user)  # as it was
    return done


@pytest.mark.parametrize("ask", [_resend, _standing, _change_password, _propose_email, _remove])
async def test_wrong_passwords_of_a_client_are_few_and_right_ones_are_as_many_as_they_are(
    house: House, limits: Limits, ask: Ask
) -> None:
    if ask in (_resend, _standing):
        await house.registered()
    else:
        house.shelf.member(id=UUID(int=7))
    right = [why(await ask(house, RIGHT, metered(limits))) for _ in range(12)]
    assert Refusal.RATE_LIMITED not in right
    assert right[0] in {None, Refusal.RESEND_TOO_SOON}
    wrong = [why(await ask(house, WRONG, metered(limits))) for _ in range(12)]
    expected = Refusal.INVALID_CREDENTIALS if ask in (_resend, _standing) else Refusal.WRONG_PASSWORD
    assert wrong == [expected] * 10 + [Refusal.RATE_LIMITED] * 2
    assert why(await ask(house, RIGHT, metered(limits, CLIENT))) is Refusal.RATE_LIMITED
    assert why(await ask(house, RIGHT, metered(limits, ELSEWHERE))) is not Refusal.RATE_LIMITED
