"""What a route that takes an Idempotency-Key says of it."""

from dataclasses import replace
from typing import Final

from regsvc.http import kinds
from regsvc.http.receipt import HEADER, KEY_MAX
from regsvc.http.routes import Parameter, Route

KEY: Final = Parameter(
    HEADER,
    "header",
    "A string in quotes, new for each thing to be done: a random UUID. The same request sent again with the same key, "
    "credentials and body within 24 hours is done once, and gets the first one's answer with `Idempotency-Replayed: "
    "true`. A request that was refused without anything being done does not count: it may be sent again, or corrected "
    "first.",
    {"type": "string", "pattern": rf'^("([ !#-\[\]-~]|\\["\\]){{1,{KEY_MAX}}}"|[A-Za-z0-9._~:+/=@-]{{1,{KEY_MAX}}})$'},
)


def keyed(route: Route) -> Route:
    """Return the route with the header and its problems, where it takes it."""
    if not route.keyed:
        return route
    problems = (kinds.MALFORMED_REQUEST, *route.problems, kinds.IDEMPOTENCY_KEY_IN_USE, kinds.IDEMPOTENCY_KEY_REUSED)
    return replace(route, parameters=(*route.parameters, KEY), problems=tuple(dict.fromkeys(problems)))
