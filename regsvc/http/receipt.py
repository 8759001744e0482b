"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): the same request again gets the first one's answer.

Rule 1. The answer is kept in the transaction whose work it tells of, so there is never one without the other, however
        the service dies. What changed nothing (a body that cannot be read, a refusal, an outage) is kept nowhere, and
        done again.
Rule 2. A key is of its route (by its name, so that aliases are one), of the credentials which that route takes, as
        they were sent, and of the content: the body, byte for byte, and what the path names.
Rule 3. An answer is given again as it was: its times, the id of the first request in a problem. What the front says of
        each request (X-Request-ID, limits) is said of each.
"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import trio
from quart import Response
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers

from regsvc import observe
from regsvc.domain.quota import Limit
from regsvc.flows.errand import Errand
from regsvc.http import cookies, kinds, wire
from regsvc.http.caller import Asked, asked
from regsvc.http.problems import Dialect, Told, tell
from regsvc.http.reply import Answer, View, Wording, nothing, worded
from regsvc.http.routes import Auth, Route
from regsvc.ports import Finished, Running, Seals, Slot, Ticket, Tickets, Unavailable, Unit

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
KEY_MAX: Final = 255  # characters
SOON: Final = timedelta(seconds=1)
GIVE_BACK: Final = 5.0  # seconds; a key that is not given back is free when its lease is over
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')  # sf-string, RFC 9651, 3.3.3
_BARE: Final = re.compile(r"[A-Za-z0-9._~:+/=@-]+")  # what many send, such as a UUID without quotes: the same key

T = TypeVar("T")


async def answered(act: Callable[[Errand], Awaitable[T]], shown: Callable[[T], Answer]) -> Answer:
    """Do what a flow does for the request at hand, and show its outcome; as a receipt of it would, if it is kept."""
    errand = asked().caller.errand
    if isinstance(errand.receipt, Slip):
        errand.receipt.shown = shown
    return shown(await act(errand))


@dataclass(slots=True)
class Slip:
    """The receipt of one request (flows.errand.Receipt)."""

    asked: Asked
    route: Route
    slot: Slot
    ticket: Ticket
    seals: Seals
    wording: Wording
    shown: Callable[[Any], Answer] | None = None
    kept: bool = False

    async def keep(self, unit: Unit, outcome: object) -> None:
        """Keep the answer. Raises Unavailable when the key is somebody else's by now."""
        if self.shown is None:
            raise LookupError("a view says how its outcome is shown before it asks for it (http.receipt.answered)")
        written = await self._written(worded(self.shown(outcome)))
        await unit.receipts.keep(self.ticket, self.seals.close(self.slot, written))
        self.kept = True

    async def _written(self, answer: Response | Told) -> bytes:
        """Write an answer down in both dialects, for who asks again may do so at an alias."""
        response, other = (
            self.wording.respond(answer, self.route.name, self.asked.caller.request_id, dialect)
            for dialect in (Dialect.STANDARD, Dialect.LEGACY)
        )
        body, legacy = [await one.get_data(as_text=True) for one in (response, other)]
        headers = [(name, value) for name, value in response.headers if name != "Content-Length"]
        refusal = answer.why if isinstance(answer, Told) else None
        whole = (response.status_code, headers, body, legacy if legacy != body else None, refusal)
        return json.dumps(whole, separators=(",", ":")).encode()


def _read(request: Asked, written: bytes) -> Response:
    """Make the response again."""
    status, headers, body, legacy, request.caller.refusal = json.loads(written)
    shown = legacy if legacy is not None and request.dialect is Dialect.LEGACY else body
    response = nothing() if status == 204 else TrioResponse(shown, status)
    response.headers.pop("Content-Type", None)
    response.headers.extend([(name, value) for name, value in headers])  # JSON made lists of the pairs
    response.headers[REPLAYED] = "true"
    return response


@dataclass(frozen=True, slots=True)
class Receipts:
    """Sees to it that a request with a key is done once. `lease`: nobody is at work on a request for longer."""

    tickets: Tickets
    seals: Seals
    lease: timedelta = field(default=timedelta(seconds=25))

    def keyed(self, route: Route, view: View, wording: Wording) -> View:
        """Return the view of a route that takes a key. It raises what the view raises, and Unavailable."""

        async def once(**named: str) -> Answer:
            key = read_key(asked().headers)
            act = partial(view, **named)
            return await act() if key is None else await self._answer(route, key, act, wording)

        return once

    async def _answer(self, route: Route, key: str, act: Callable[[], Awaitable[Answer]], wording: Wording) -> Answer:
        request = asked()
        slots = self.seals.slots(route.name, credentials(request, route.auth), key, await content(request))
        match await self.tickets.take(slots, self.lease):
            case Ticket() as ticket:
                slip = Slip(request, route, slots[0], ticket, self.seals, wording)
                return await self._first(slip, act)
            case Finished(sealed):
                await _uncount(request, route)
                response = _read(request, self.seals.open(slots, sealed))
                observe.emit("idempotency_replayed", route=request.template, status=response.status_code)
                return response
            case Running(retry_after):
                await _uncount(request, route)
                return _in_use(retry_after)
            case _:  # Different
                return tell(kinds.IDEMPOTENCY_KEY_REUSED)

    async def _first(self, slip: Slip, act: Callable[[], Awaitable[Answer]]) -> Answer:
        caller = slip.asked.caller
        caller.errand = replace(caller.errand, receipt=slip)
        try:
            answer = await act()
        except BaseException:
            with trio.move_on_after(GIVE_BACK, shield=True):
                await self._give_back(slip.ticket)  # where nobody knows if it was committed, this takes nothing away
            raise
        if slip.kept or await self._give_back(slip.ticket):
            return answer
        return _in_use(SOON)  # this was too late, and a refusal may come of what the other one did

    async def _give_back(self, ticket: Ticket) -> bool:
        """Free the key, whatever becomes of this request; return whether it was still this request's."""
        with trio.move_on_after(GIVE_BACK, shield=True), suppress(Unavailable):
            return await self.tickets.give_back(ticket)
        return True  # for all that is known: the lease is longer than a request takes


async def _uncount(request: Asked, route: Route) -> None:
    """Count the request as a request, and no more as one of what its first one did: that was counted."""
    for limit in route.limits:
        if limit is not Limit.GLOBAL:
            await request.caller.errand.meter.give_back(limit, route.name)


def _in_use(retry_after: timedelta) -> Told:
    return replace(tell(kinds.IDEMPOTENCY_KEY_IN_USE), retry_after=retry_after)


def read_key(headers: Headers) -> str | None:
    """Read the key; None where there is none. Raises Unreadable for what is no string of RFC 9651.

    A bare word is taken too, for the string that it would be in quotes. Parameters are none of the draft's.
    """
    lines = headers.getlist(HEADER)
    if not lines:
        return None
    text = lines[0].strip(" ")
    quoted = _QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text if _BARE.fullmatch(text) else ""
    if len(lines) != 1 or not 1 <= len(key) <= KEY_MAX:
        detail = f"{HEADER} is one string in quotes, of 1 to {KEY_MAX} characters of ASCII."
        raise wire.Unreadable(tell(kinds.MALFORMED_REQUEST, detail))
    return key


def credentials(request: Asked, auth: Auth) -> bytes:
    """Return what the request shows of what the route takes, as it was sent."""
    shown: Sequence[str] = ()
    if auth is Auth.COOKIE:
        shown = cookies.values(request.headers)
    elif auth is not Auth.NONE:
        shown = request.headers.getlist("Authorization")
    return "\n".join(shown).encode("utf-8", "surrogatepass")


async def content(request: Asked) -> bytes:
    """Return what the request says: its body, and what its path names."""
    named = json.dumps(request.view_args or {}, sort_keys=True).encode()
    body: bytes = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    request.caller.bytes_in = len(body)
    return named + b"\n" + body
