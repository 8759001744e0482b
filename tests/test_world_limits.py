"""Limits as the composition root builds them: where they are counted, and what they are."""

import pytest

from regsvc import world
from regsvc.domain.quota import Limit
from regsvc.observe.shared import Shared
from tests.worker import settings


@pytest.mark.parametrize("store", ["memory", "postgres", "redis"])
async def test_limits_are_counted_where_the_settings_say(store: str) -> None:
    told = settings(RATE_LIMIT_STORE=store, REDIS_URL="redis://127.0.0.1:1/0", MAIL_CHANNEL="mailbox")
    async with world.open_world(told, Shared.create(1)) as built:
        assert built.limits.statistics().store == store


@pytest.mark.parametrize("enabled", [True, False])
async def test_limits_are_those_of_the_settings(*, enabled: bool) -> None:
    told = settings(
        RATE_LIMIT_STORE="memory",
        RATE_LIMIT_REGISTRATION_PER_HOUR="7",
        RATE_LIMIT_ACTIVATION_PER_MINUTE="8",
        RATE_LIMIT_LOGIN_PER_MINUTE="9",
        RATE_LIMIT_GLOBAL_PER_MINUTE="10",
        ENABLE_RATE_LIMITING=str(enabled),
        LOG_PII="true",
        MAIL_CHANNEL="mailbox",
    )
    async with world.open_world(told, Shared.create(1)) as built:
        found = built.limits.statistics()
        assert found.enabled is enabled
        limits = {policy.limit_of: policy.limit for policy in found.policies}
        meter = built.limits.meter("192.0.2.1")
        refused = [await meter.take(Limit.LOGIN_ACCOUNT, "alice@example.org") for _ in range(10)]
        assert [one is not None for one in refused] == [False] * 9 + [enabled]
        assert "alice" not in built.limits.hidden("alice@example.org")
    assert limits == {
        Limit.GLOBAL: 10,
        Limit.REGISTRATION: 7,
        Limit.LOGIN: 27,
        Limit.LOGIN_ACCOUNT: 9,
        Limit.ACTIVATION: 8,
        Limit.PASSWORD: 9,
        Limit.GUESSING: 300,
    }
