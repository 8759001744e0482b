"""Limits at the front: what a request costs before it is read, and what every answer says of where its client stands.

Told is the tightest policy of a request: the one that refused it, else the one that is used up first. Twice: in the
`X-RateLimit-…` that everybody knows, and in structured fields (draft-ietf-httpapi-ratelimit-headers-10, RFC 9651).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from quart import Response

from regsvc.domain.quota import Level, Limit
from regsvc.domain.refusals import Refused
from regsvc.domain.staff import Actor
from regsvc.flows.errand import Errand
from regsvc.flows.quota import AT_THE_FRONT, Limits
from regsvc.http import kinds
from regsvc.http.caller import Caller
from regsvc.http.problems import whole_seconds
from regsvc.http.reply import reply
from regsvc.http.routes import Route, Tag
from regsvc.http.staff_models import StaffHashing, StaffLimit, StaffLimits

LIMITED: Final = frozenset((Tag.ACCOUNT, Tag.SESSION, Tag.PROFILE, Tag.ADMINISTRATION))
_NUMBER: Final = {"type": "integer", "minimum": 0}
HEADERS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "X-RateLimit-Limit": ("How often at once, by the tightest policy of this request.", _NUMBER),
    "X-RateLimit-Remaining": ("How often still at once.", _NUMBER),
    "X-RateLimit-Reset": ("Seconds until it is all of them again; of a refused request: until one is good.", _NUMBER),
    "RateLimit-Policy": (
        'The same as a structured field, such as `"registration";q=5;w=3600`: name, limit, seconds.',
        {"type": "string"},
    ),
    "RateLimit": ('Likewise, such as `"registration";r=4;t=720`: name, remaining, seconds.', {"type": "string"}),
}
"""What is said of each in the document, and its schema."""
PER: Final[Mapping[Limit, str]] = {
    Limit.GLOBAL: "client and route",
    Limit.REGISTRATION: "client",
    Limit.LOGIN: "client",
    Limit.LOGIN_ACCOUNT: "address or username",
    Limit.ACTIVATION: "registration, after its password was right",
    Limit.PASSWORD: "client and account, wrong passwords only",
    Limit.GUESSING: "everybody, wrong codes only; beyond it nobody is refused, but the log warns",
}


def limited(route: Route) -> Route:
    """Return a route as the table has it, with what every limited route has: probes and pages are none."""
    if route.tag not in LIMITED:
        return route
    problems = dict.fromkeys((*route.problems, kinds.RATE_LIMIT_EXCEEDED))
    return replace(route, limits=(Limit.GLOBAL, *route.limits), problems=tuple(problems))


@dataclass(frozen=True, slots=True)
class Turnstile:
    """Lets requests in, by the name of their route."""

    limits: Limits
    routes: Mapping[str, Sequence[Limit]]  # what is taken at the front

    @classmethod
    def of(cls, table: Sequence[Route], limits: Limits) -> "Turnstile":
        """Return the one of these routes."""
        taken = {route.name: tuple(one for one in route.limits if one in AT_THE_FRONT) for route in table}
        return cls(limits, {name: some for name, some in taken.items() if some})

    async def enter(self, caller: Caller, route: str) -> Refused | None:
        """Give the request its errand, and take what it costs whatever it says; return the refusal."""
        if (taken := self.routes.get(route)) is None:
            return None
        caller.meter = meter = self.limits.meter(caller.errand.client)
        caller.errand = Errand(caller.errand.client, meter)
        return await meter.enter(taken, route)


def standing(
    limits: Limits, table: Sequence[Route], hashing: Callable[[], StaffHashing]
) -> Callable[[Actor], Awaitable[Response]]:
    """Return the view that shows how the limits of this worker stand, and the queue of its hashes."""
    routes = {limit: [f"{one.method} {one.path}" for one in table if limit in one.limits] for limit in Limit}

    async def shown(_: Actor) -> Response:  # noqa: ASYNC124 - a view
        found = limits.statistics()
        lines = [
            StaffLimit(
                name=policy.name,
                limit=policy.limit,
                window_seconds=whole_seconds(policy.window),
                per=PER[policy.limit_of],
                routes=routes[policy.limit_of],
                taken=count.allowed + count.refused,
                refused=count.refused,
                unseen=count.unseen,
            )
            for policy, count in found.policies.items()
        ]
        where = {"enabled": found.enabled, "store": found.store, "store_up": found.up}
        return reply(StaffLimits.model_validate({**where, "limits": lines, "hashing": hashing()}))

    return shown


def headers(level: Level, retry_after: str | None) -> Mapping[str, str]:
    """Return what an answer says of a level; where it says when to come again too, for whatever reason, then that."""
    policy, remaining = level.policy, level.remaining
    reset = whole_seconds(level.reset) if retry_after is None else retry_after
    return {
        "X-RateLimit-Limit": str(policy.limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(reset),
        "RateLimit-Policy": f'"{policy.name}";q={policy.limit};w={whole_seconds(policy.window)}',
        "RateLimit": f'"{policy.name}";r={remaining};t={reset}',
    }
