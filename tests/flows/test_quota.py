"""The limits of a worker over buckets in memory: what is counted under which key, and what if those are away."""

from datetime import timedelta
from typing import Any

import pytest
import trio

from regsvc.domain import quota
from regsvc.domain.quota import Limit
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Secret
from regsvc.flows.quota import LEFT_ALONE, TOLD_MOST, Count, RequestMeter, check
from regsvc.ports import Unavailable
from tests.flows.fakes import Hashing
from tests.flows.quota_fakes import CLIENT, FEW, SECOND, Buckets, limited, metered
from tests.lines import Lines

ALICE = "alice@example.org"
HASHED = "hashed:right"
RIGHT = Secret("right")
WRONG = Secret("wrong")


def counts(found: quota.Policies, **told: Count) -> dict[quota.Policy, Count]:
    """Return the counts of every policy, those that are not told of being nothing."""
    return {policy: told.get(limit.name.lower(), Count(0, 0, 0)) for limit, policy in found.items()}


def tightest(meter: RequestMeter) -> tuple[str, int] | None:
    """Return which policy the client is told of, and what remains by it."""
    return None if meter.level is None else (meter.level.policy.name, meter.level.remaining)


# ------------------------------------------------------------------------------------------------ keys


async def test_the_front_takes_all_it_has_to_at_once_and_flows_one_by_one() -> None:
    buckets = Buckets()
    meter = limited(buckets).meter(CLIENT)
    assert await meter.enter((Limit.GLOBAL, Limit.REGISTRATION), "register") is None
    assert await meter.enter((Limit.GLOBAL, Limit.LOGIN), "login") is None
    for limit in (Limit.LOGIN_ACCOUNT, Limit.PASSWORD, Limit.ACTIVATION, Limit.GUESSING):
        assert await meter.take(limit, ALICE) is None
    assert buckets.trips == [
        [f"global:{CLIENT} register", f"registration:{CLIENT}"],
        [f"global:{CLIENT} login", f"login:{CLIENT}"],
        ["login-account:#gro.elpmaxe@ecila"],
        [f"password:{CLIENT} #gro.elpmaxe@ecila"],
        [f"activation:{ALICE}"],  # an id, in truth
        ["guessing:everybody"],
    ]


async def test_whoever_comes_without_an_address_is_one_client() -> None:
    buckets = Buckets()
    assert await limited(buckets).meter(None).enter((Limit.LOGIN,), "login") is None
    assert buckets.trips == [["login:-"]]


# ------------------------------------------------------------------------------------------------ refusals


async def test_one_more_than_the_limit_is_refused_until_its_time_has_come(log: Lines) -> None:
    buckets = Buckets()
    limits = limited(buckets)
    told = [await limits.meter(CLIENT).enter((Limit.GLOBAL, Limit.REGISTRATION), "register") for _ in range(6)]
    assert told == [None] * 5 + [Refused(Refusal.RATE_LIMITED, retry_after=timedelta(seconds=720))]
    assert await limits.meter("192.0.2.2").enter((Limit.REGISTRATION,), "register") is None
    buckets.now += 719 * SECOND
    [early] = [await limits.meter(CLIENT).enter((Limit.REGISTRATION,), "register")]
    assert early == Refused(Refusal.RATE_LIMITED, retry_after=timedelta(seconds=1))
    buckets.now += SECOND
    assert await limits.meter(CLIENT).enter((Limit.REGISTRATION,), "register") is None
    lines = log.of("rate_limited")
    assert [(line["policy"], line["client"], line["retry_after_s"]) for line in lines] == [
        ("registration", CLIENT, 720),
        ("registration", CLIENT, 1),
    ]
    assert limits.statistics().policies == counts(FEW, **{"global": Count(6, 0, 0), "registration": Count(7, 2, 0)})


async def test_the_client_is_told_the_tightest_of_all_that_its_request_took() -> None:
    meter = limited(Buckets()).meter(CLIENT)
    assert tightest(meter) is None
    await meter.enter((Limit.GLOBAL, Limit.LOGIN), "login")
    assert tightest(meter) == ("login", 29)
    await meter.take(Limit.LOGIN_ACCOUNT, ALICE)
    assert tightest(meter) == ("login-account", 9)


async def test_of_two_refusals_the_longer_one_is_told() -> None:
    policies = quota.policies(registrations=1, activations=1, logins=1, requests=1)
    limits = limited(Buckets(), policies)
    for refused in (None, Refused(Refusal.RATE_LIMITED, retry_after=timedelta(hours=1))):
        meter = limits.meter(CLIENT)
        assert await meter.enter((Limit.GLOBAL, Limit.REGISTRATION), "register") == refused
        assert meter.level is not None
        assert meter.level.policy.name == "registration"


async def test_a_flood_of_refusals_is_no_flood_of_lines(log: Lines, autojump_clock: Any) -> None:
    limits = limited(Buckets())

    async def flood(times: int) -> None:
        for _ in range(times):
            await limits.meter(CLIENT).enter((Limit.REGISTRATION,), "register")

    await flood(5 + TOLD_MOST + 7)
    assert [line["untold"] for line in log.of("rate_limited")] == [0] * TOLD_MOST
    await trio.sleep(1)
    await flood(2)
    assert [line["untold"] for line in log.of("rate_limited")][TOLD_MOST:] == [7, 0]
    assert limits.statistics().policies[FEW[Limit.REGISTRATION]] == Count(5, TOLD_MOST + 9, 0)


async def test_what_is_switched_off_takes_nothing() -> None:
    buckets = Buckets()
    meter = limited(buckets, enabled=False).meter(CLIENT)
    for _ in range(20):
        assert await meter.enter((Limit.REGISTRATION,), "register") is None
        assert await meter.take(Limit.ACTIVATION, "1") is None
    await meter.give_back(Limit.ACTIVATION, "1")
    assert (buckets.trips, meter.level) == ([], None)


# ------------------------------------------------------------------------------------------------ passwords


async def test_right_passwords_are_never_limited() -> None:
    buckets = Buckets()
    limits = limited(buckets)
    for _ in range(30):
        errand = metered(limits)
        assert await check(Hashing(), RIGHT, [HASHED], ALICE, errand) == [True]
        assert isinstance(errand.meter, RequestMeter)
        assert errand.meter.level is not None
        assert errand.meter.level.remaining == 10
    assert [buckets.owed(bucket) for bucket in buckets.whole_at] == [0]


@pytest.mark.parametrize("stored", [[HASHED], []])
async def test_of_many_wrong_passwords_at_once_no_more_are_looked_at_than_the_limit(stored: list[str]) -> None:
    limits, hashing = limited(Buckets()), Hashing()
    told: list[object] = []

    async def ask() -> None:
        told.append(await check(hashing, WRONG, stored, ALICE, metered(limits)))

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(ask, name=f"guess {number}")
    assert len(hashing.checked) == 10
    assert sum(isinstance(one, Refused) and one.why is Refusal.RATE_LIMITED for one in told) == 990
    assert await check(hashing, RIGHT, [HASHED], ALICE, metered(limits, "192.0.2.2")) == [True]
    assert isinstance(await check(hashing, RIGHT, [HASHED], ALICE, metered(limits)), Refused)


async def test_a_password_that_nobody_had_time_for_was_not_wrong() -> None:
    class Busy(Hashing):
        async def check(self, *_: object) -> list[bool]:
            await trio.lowlevel.checkpoint()
            raise Unavailable("hasher", "full")

    buckets = Buckets()
    with pytest.raises(Unavailable, match="hasher"):
        await check(Busy(), WRONG, [HASHED], ALICE, metered(limited(buckets)))
    assert [buckets.owed(bucket) for bucket in buckets.whole_at] == [0]


async def test_what_was_refused_or_never_taken_is_not_given_back() -> None:
    buckets = Buckets()
    meter = limited(buckets, quota.policies(registrations=1, activations=1, logins=1, requests=1)).meter(CLIENT)
    await meter.give_back(Limit.PASSWORD, ALICE)
    assert await meter.take(Limit.PASSWORD, ALICE) is None
    assert await meter.take(Limit.PASSWORD, ALICE) is not None
    await meter.give_back(Limit.PASSWORD, ALICE)
    assert len(buckets.trips) == 2


# ------------------------------------------------------------------------------------------------ the store is away


async def test_while_the_store_is_away_everything_passes_and_one_request_a_second_asks(
    log: Lines, autojump_clock: Any
) -> None:
    buckets = Buckets(away=True)
    limits = limited(buckets)
    for _ in range(10):
        meter = limits.meter(CLIENT)
        assert await meter.enter((Limit.GLOBAL, Limit.REGISTRATION), "register") is None
        await meter.give_back(Limit.REGISTRATION, "register")
        assert meter.level is None
    assert len(buckets.trips) == 1
    assert not limits.statistics().up
    await trio.sleep(LEFT_ALONE)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(limits.meter(CLIENT).enter, (Limit.GLOBAL,), "me", name="asks")
    assert len(buckets.trips) == 2
    buckets.away = False
    assert await limits.meter(CLIENT).enter((Limit.REGISTRATION,), "register") is None
    assert not limits.statistics().up, "nobody has asked it yet"
    await trio.sleep(LEFT_ALONE)
    assert await limits.meter(CLIENT).enter((Limit.REGISTRATION,), "register") is None
    assert limits.statistics().up
    expected = counts(FEW, **{"global": Count(0, 0, 20), "registration": Count(1, 0, 11)})
    assert limits.statistics().policies == expected
    [down], [up] = log.of("rate_limit_store_down"), log.of("rate_limit_store_up")
    assert (down["level"], down["store"], down["reason"]) == ("warning", "memory", "it is not there")
    assert (up["unseen"], up["away_s"]) == (31, 2)


async def test_many_that_wait_for_a_store_while_it_goes_are_one_outage(log: Lines, autojump_clock: Any) -> None:
    limits = limited(Buckets(away=True))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(limits.meter(CLIENT).enter, (Limit.GLOBAL,), "me", name="asks")
    assert len(log.of("rate_limit_store_down")) == 1


async def test_a_store_that_goes_before_something_is_given_back_is_forgiven(log: Lines, autojump_clock: Any) -> None:
    buckets = Buckets()
    limits = limited(buckets)
    meter = limits.meter(CLIENT)
    assert await meter.take(Limit.PASSWORD, ALICE) is None
    buckets.away = True
    await meter.give_back(Limit.PASSWORD, ALICE)
    await meter.give_back(Limit.PASSWORD, ALICE)
    assert (len(buckets.trips), len(log.of("rate_limit_store_down"))) == (2, 1)
    await trio.sleep(LEFT_ALONE)
    buckets.away = False
    await meter.give_back(Limit.PASSWORD, ALICE)
    assert (limits.statistics().up, len(log.of("rate_limit_store_up"))) == (True, 1)


# ------------------------------------------------------------------------------------------------ the alarm


@pytest.mark.parametrize("enabled", [True, False])
async def test_more_failed_activations_than_people_make_are_told_of_once_a_minute(
    log: Lines, autojump_clock: Any, *, enabled: bool
) -> None:
    limits = limited(Buckets(), enabled=enabled)
    meter = limits.meter(CLIENT)
    for _ in range(300):
        await meter.failed_activation()
    assert not log.of("code_guessing_suspected")
    for _ in range(10):
        await limits.meter("192.0.2.2").failed_activation()
    [line] = log.of("code_guessing_suspected")
    assert (line["level"], line["failures"], line["window_s"]) == ("warning", 300, 3600)
    await trio.sleep(60)
    await meter.failed_activation()
    assert len(log.of("code_guessing_suspected")) == 2
    assert meter.level is None, "nobody is limited by it"
    assert not log.of("rate_limited")


async def test_without_a_store_nobody_is_alarmed(log: Lines) -> None:
    await limited(Buckets(away=True)).meter(CLIENT).failed_activation()
    assert log.events == ["rate_limit_store_down"]
