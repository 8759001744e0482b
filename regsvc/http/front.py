"""The front: an app where every answer, good or bad, leaves by the same door and is logged once.

Quart routes and holds the request; what it costs on the way and we do not use (sessions, a URL adapter built from the
client's Host, signals, hooks before and after) is left out, and so is its handling of errors: all of them end in
`Front._problem`, which looks at every leaf of a group where Quart-Trio takes the first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from typing import Final, cast

import trio
from quart import Quart, Request, Response
from quart.routing import QuartRule
from quart.sessions import NullSession, SecureCookieSessionInterface, SessionInterface
from quart.wrappers.base import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter
from werkzeug.wrappers import Response as WerkzeugResponse

from regsvc import observe
from regsvc.flows.errand import Errand
from regsvc.http import kinds, quota
from regsvc.http.caller import Asked, Caller, Network, client_address, client_key, request_id
from regsvc.http.connection import LeanConnection
from regsvc.http.kinds import Kind
from regsvc.http.overload import Workload
from regsvc.http.problems import Told, tell, unavailable
from regsvc.http.protection import Protection
from regsvc.http.reply import Answer, View, Wording, nothing, worded
from regsvc.http.routes import Route
from regsvc.http.streamed import Streamed
from regsvc.http.wire import Unreadable
from regsvc.ports import Unavailable

BODY_MAX: Final = 16 * 1024  # bytes
_RULE: Final = str.maketrans("{}", "<>")  # how werkzeug writes a parameter
_STATUS_KINDS: Final[Mapping[int, Kind]] = {
    404: kinds.NOT_FOUND,
    405: kinds.METHOD_NOT_ALLOWED,
    408: kinds.REQUEST_TIMEOUT,
    413: kinds.PAYLOAD_TOO_LARGE,
    415: kinds.UNSUPPORTED_MEDIA_TYPE,
}


class Sessionless(SessionInterface):
    """Makes no session: nothing here is remembered in a cookie."""

    def __init__(self) -> None:
        self._none = NullSession()

    async def open_session(self, _app: Quart, _request: BaseRequestWebsocket) -> NullSession:
        """Return the one empty session; it is never saved."""
        return self._none


class Rule(QuartRule):
    """A rule that makes no code for building its URL until it is asked for one, which it never is.

    werkzeug would compile two functions for each rule, an eighth of a worker's start.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: FBT001, FBT002 - werkzeug's signature
        compile_now = super()._compile_builder

        def build(rule: Rule, **values: object) -> tuple[str, str]:
            made: tuple[str, str] = compile_now(append_unknown).__get__(rule, None)(**values)
            return made

        return build


class Front(QuartTrio):
    """An app that answers by its table."""

    url_rule_class = Rule  # type: ignore[assignment]  # Quart does the same with its own
    asgi_http_class = LeanConnection
    request_class = Asked

    def __init__(
        self,
        table: Sequence[Route],
        views: Mapping[str, View],
        wording: Wording,
        trusted: Sequence[Network],
        turnstile: quota.Turnstile,
        protection: Protection,
        workload: Workload | None = None,
    ) -> None:
        super().__init__("regsvc.http", static_folder=None)
        self.config["MAX_CONTENT_LENGTH"] = BODY_MAX
        self.session_interface = cast("SecureCookieSessionInterface", Sessionless())
        self.url_map.merge_slashes = False  # else `/v1//health` is a redirect to wherever Host says
        if odd := {route.name for route in table} ^ views.keys():
            raise ValueError(f"table and views do not agree on {', '.join(sorted(odd))}")
        self._wording, self._trusted, self._answers, self._turnstile = wording, trusted, views, turnstile
        self._protection = protection
        self._workload = workload or Workload()
        for route in table:
            for path in route.paths:
                rule = path.translate(_RULE)
                self.add_url_rule(rule, route.name, methods=[route.method, "OPTIONS"], provide_automatic_options=False)
        rules = [cast("QuartRule", rule) for rule in self.url_map.iter_rules() if not rule.arguments]
        self._plain = {(method, rule.rule): rule for rule in rules for method in rule.methods or ()}

    async def do_teardown_request(self, exc: BaseException | None, request_context: object = None) -> None:
        """Do nothing: there are no hooks, and looking for them costs every request."""

    async def do_teardown_appcontext(self, exc: BaseException | None) -> None:
        """Do nothing, as above."""

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Route by path and method alone; what the client calls us does not matter."""
        if request is None:
            return None
        rule = self._plain.get((request.method, request.path))
        if rule is None:
            return self._adapter(request)
        request.url_rule, request.view_args = rule, {}  # found at a glance, so that Quart matches no more
        return None

    def _adapter(self, request: BaseRequestWebsocket) -> MapAdapter:
        return self.url_map.bind("regsvc", path_info=request.path, default_method=request.method)

    async def handle_request(self, request: Request) -> Response | WerkzeugResponse:
        """Answer a request, whatever becomes of it; cancellation leaves, nothing else does."""
        asked, began, head = cast("Asked", request), trio.current_time(), request.headers
        peer = request.scope.get("client") or (None,)  # none on a unix socket
        address = client_address(peer[0], head.getlist("X-Forwarded-For"), self._trusted)
        asked.caller = caller = Caller(request_id(head), address, errand=Errand(client_key(address)))
        within = observe.request_context(caller.request_id, head.get("Traceparent"))
        with within as place, observe.span("request", "HTTP", at=place) as span:
            async with self.request_context(request):
                answer = await self._answer(asked)
            if caller.meter is not None and (level := caller.meter.level) is not None:
                answer.headers.extend(quota.headers(level, answer.headers.get("Retry-After")))
            ids = ((b"x-request-id", caller.request_id.encode()), (b"traceparent", str(place).encode()))
            asked.lines = (*ids, *self._protection.lines(answer.headers, head))
            if span:
                _describe(span, asked, answer.status_code)
            if isinstance(answer, Streamed):  # it has only begun
                here = copy_context()
                answer.at_the_end(lambda octets: here.run(_tell, asked, answer, began, octets))
            else:
                _tell(asked, answer, began, answer.content_length)
        return answer

    async def _answer(self, asked: Asked) -> Response:
        try:
            outcome = worded(await self._carry(asked))
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - the one place where every error is worded
            outcome = self._problem(error, asked)
        if isinstance(outcome, Told):
            asked.caller.refusal = outcome.why
        route = asked.url_rule.endpoint if asked.url_rule is not None else None
        return self._wording.respond(outcome, route, asked.caller.request_id, asked.dialect)

    async def _carry(self, asked: Asked) -> Answer:
        """Answer a request if it is not one too many, within its time."""
        hold = self._workload.enter(asked.url_rule.endpoint if asked.url_rule is not None else None)
        if isinstance(hold, Told):
            return hold
        asked.caller.hold = hold
        with hold:
            return await self._dispatch(asked)
        seconds = round(hold.scope.deadline - hold.began, 3)
        observe.emit("request_overdue", method=asked.method, route=asked.template, deadline_s=seconds)
        return self._workload.refusal(kinds.SERVICE_UNAVAILABLE)

    async def _dispatch(self, asked: Asked) -> Answer:
        if asked.url_rule is None:
            raise asked.routing_exception or LookupError("the router neither matched nor refused a request")
        if asked.method == "OPTIONS":
            return self._options(asked)
        name = asked.url_rule.endpoint
        refused = await self._turnstile.enter(asked.caller, name)
        return refused or await self._answers[name](**(asked.view_args or {}))

    def _options(self, asked: Asked) -> Response:
        methods = ", ".join(sorted(self._adapter(asked).allowed_methods()))
        answer = nothing()
        answer.headers["Allow"] = methods
        if self._protection.cors is not None:
            answer.headers.extend(self._protection.cors.preflight(asked.headers, methods))
        return answer

    def _problem(self, error: BaseException, asked: Asked) -> Told:
        """Word an error, by the gravest of its leaves; whatever is a bug is logged, each of them."""
        leaves = list(_leaves(error))
        if not all(isinstance(leaf, Exception) for leaf in leaves):
            raise error  # cancelled, or the process is asked to stop
        worded = [_worded(leaf) for leaf in leaves]
        for leaf, problem in zip(leaves, worded, strict=True):
            if problem is None:
                observe.exception("http_bug", leaf, method=asked.method, route=asked.template)
            elif isinstance(leaf, Unavailable) and leaf.what == "database":
                observe.database_away(leaf.why)  # requests may be the only ones who notice, as where a disk is full
        gravest = max((problem or tell(kinds.INTERNAL_ERROR) for problem in worded), key=_gravity)
        if gravest.kind.status < 500:
            reason = ", ".join(fault.code for fault in gravest.errors) or gravest.detail
            observe.emit(
                "request_unreadable",
                method=asked.method,
                route=asked.template,
                status=gravest.kind.status,
                reason=reason,
            )
        return gravest


def _tell(asked: Asked, answer: Response, began: float, bytes_out: int | None) -> None:
    """Log a request, which is over."""
    caller = asked.caller
    observe.emit(
        "http_request",
        method=asked.method,
        route=asked.template,
        status=answer.status_code,
        duration_ms=round((trio.current_time() - began) * 1000, 3),
        bytes_in=caller.bytes_in,
        bytes_out=bytes_out,
        client=caller.address,
        user_id=caller.user_id,
        refusal=caller.refusal,
    )


def _describe(span: observe.Span, asked: Asked, status: int) -> None:
    """Tell what there is to tell of a request, never its path; the server has seen to it that its method is known."""
    span.name = asked.method
    if asked.url_rule is not None:
        span.name += f" {asked.template}"
        span.tell("route", asked.template)
    span.tell("method", asked.method)
    span.tell("scheme", asked.scheme)
    span.tell("status", status)
    span.tell("refusal", asked.caller.refusal)


def _gravity(problem: Told) -> tuple[bool, int]:
    return problem.kind is kinds.INTERNAL_ERROR, problem.kind.status


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _worded(error: BaseException) -> Told | None:
    """Word what was to be expected; None: it was not, so it is a bug."""
    match error:
        case Unreadable(told=known):
            return known
        case Unavailable():
            return unavailable(error)
        case MethodNotAllowed(valid_methods=methods):
            return replace(tell(kinds.METHOD_NOT_ALLOWED), allow=tuple(methods or ()))
        case HTTPException(code=int(status)) if status < 500:
            return tell(_STATUS_KINDS.get(status, kinds.MALFORMED_REQUEST))
        case _:
            return None
