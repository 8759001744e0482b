"""The numbers of the service, for Prometheus and as JSON.

Whoever may read them is answered whatever happens: a token is compared before anybody is asked who has it, and neither
answer waits for the database, but for an administrator's session to be looked up, and that no longer than a second.
"""

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import trio
from pydantic import Field
from quart import Response, request
from quart_trio.wrappers import TrioResponse

from regsvc import __version__
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.staff import Actor
from regsvc.domain.values import Secret
from regsvc.http import kinds, wire
from regsvc.http.models import Instant, Model
from regsvc.http.problems import BAD_TOKEN, tell
from regsvc.http.reply import Answer, View, reply
from regsvc.http.routes import EVENTS, Route
from regsvc.observe import Event, Figures, Labels, RouteLabel, Summary, layout_of
from regsvc.observe.catalogue import TIMINGS
from regsvc.observe.exposition import OPENMETRICS, PLAIN, exposition
from regsvc.observe.figures import of_cells

PATIENCE: Final = 0.9  # seconds, for the database to say who an administrator is
AGAIN: Final = timedelta(seconds=1)
Admit = Callable[[], Awaitable[Actor | Refused]]
"""Tells which administrator asks; raises Unreadable where no token is shown."""
_BUSINESS: Final[Mapping[str, Event]] = {
    "registrations": "registration_created",
    "activations": "activation_succeeded",
    "logins": "login_succeeded",
    "refreshes": "session_refreshed",
    "codes_minted": "code_minted",
    "mails_sent": "mail_sent",
    "mails_deferred": "mail_deferred",
    "mails_dead": "mail_dead",
}


class WorkerCounts(Model):
    """Worker processes: as many as there should be, as there are, and how often one was replaced."""

    asked: int
    alive: int
    restarts: int


class BusinessMetrics(Model):
    """What people did, and what became of their mail."""

    registrations: int
    activations: int
    logins: int
    refreshes: int
    codes_minted: int
    codes_expired: int = Field(description="Codes that were shown too late.")
    mails_sent: int
    mails_deferred: int
    mails_dead: int
    rate_limited: int


class Latency(Model):
    """How long something took, in ms: `min` and `max` exact, the others within 10 %."""

    count: int
    p50: float
    p95: float
    p99: float
    min: float
    max: float


class GaugeValues(Model):
    """How it stands now, over all workers; a lag is the largest of them."""

    hash_queue_waiting: int
    hash_queue_running: int
    hash_lanes: int
    outbox_ready: int = Field(description="Counted to a hundred thousand, as the next two.")
    outbox_leased: int
    outbox_dead: int
    outbox_oldest_seconds: float
    pool_idle: int
    pool_in_use: int
    pool_waiting: int
    connections: int
    requests_in_hand: int
    loop_lag_seconds: float
    sweeper_lag_seconds: float
    database_up: int
    resident_memory_bytes: int
    log_lines_dropped: int


class MetricsReport(Model):
    """What all workers of the machine counted since the service started; only what was seen is named."""

    timestamp: Instant
    version: str
    instance: str
    uptime_s: float
    workers: WorkerCounts
    request_counts: dict[str, int] = Field(description="Answered requests by route; `none`: there was no route.")
    status_counts: dict[str, int]
    error_count: int = Field(description="Answers with a status of 500 or more.")
    business_metrics: BusinessMetrics
    refusals: dict[str, int] = Field(description="By their names in the log.")
    events: dict[str, int] = Field(description="Events of the log, whatever its level.")
    latencies: dict[str, Latency] = Field(description="By route.")
    timings: dict[str, Latency]
    gauges: GaugeValues


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the numbers are read from, and the token that is to be shown for them; None: everybody reads them."""

    read: Callable[[], Figures]
    token: Secret | None = None
    instance: str = ""


def nothing_counted() -> Metrics:
    """Return the numbers of a service where nothing is counted, to show their form."""
    layout = layout_of(Labels((), ()))
    return Metrics(lambda: of_cells(layout, []))


def views(metrics: Metrics, admit: Admit) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table; administrators read the JSON too."""

    async def text() -> Answer:  # noqa: ASYNC124 - views are async
        if metrics.token is not None and not _shown(metrics.token):
            return BAD_TOKEN
        plain = wants_plain(request.headers.get("Accept", ""))
        body = exposition(metrics.read(), __version__, plain=plain)
        return TrioResponse(body, 200, content_type=PLAIN if plain else OPENMETRICS)

    async def json() -> Answer:
        if metrics.token is not None and not _shown(metrics.token):
            with trio.move_on_after(PATIENCE):
                actor = await admit()
                return actor if isinstance(actor, Refused) else _reported(metrics)
            return replace(tell(kinds.SERVICE_UNAVAILABLE), retry_after=AGAIN)
        return _reported(metrics)

    return {"metrics": text, "metrics_report": json}


def wants_plain(accept: str) -> bool:
    """Tell whether somebody takes text, but does not say that he knows OpenMetrics: a browser, or who asks for it."""
    return "text/" in accept and "application/openmetrics-text" not in accept


def _shown(token: Secret) -> bool:
    """Tell whether this token is shown. Raises Unreadable where none is."""
    return hmac.compare_digest(_digest(wire.bearer(request.headers)), _digest(token.reveal()))


def _digest(token: str) -> bytes:
    """Return what tokens are compared by: of one length, whatever theirs is."""
    return hashlib.sha256(token.encode()).digest()


def _reported(metrics: Metrics) -> Response:
    return reply(report(metrics.read(), metrics.instance))


def report(figures: Figures, instance: str) -> MetricsReport:
    """Return the numbers as JSON has them."""
    requests: dict[str, int] = {}
    for route, _, counted in figures.requests():
        requests[route] = requests.get(route, 0) + counted
    statuses, events, refusals, gauges = figures.statuses(), figures.events(), figures.refusals(), figures.gauges()
    started = gauges.pop("started_at")
    latencies = {route: figures.route_summary(route) for route in requests}
    timings = {name.removesuffix("_seconds"): figures.timing_summary(name) for name in TIMINGS}
    business = {name: events.get(event, 0) for name, event in _BUSINESS.items()}
    late, limited = figures.counter("codes_expired"), refusals.get(Refusal.RATE_LIMITED.value, 0)
    return MetricsReport(
        timestamp=datetime.fromtimestamp(time.time(), UTC),
        version=__version__,
        instance=instance,
        uptime_s=round(time.monotonic() - started, 3) if started else 0.0,
        workers=WorkerCounts(
            asked=int(gauges.pop("workers_asked")),
            alive=int(gauges.pop("workers_alive")),
            restarts=events.get("worker_restarted", 0),
        ),
        request_counts=requests,
        status_counts=statuses,
        error_count=sum(counted for status, counted in statuses.items() if status >= "500"),
        business_metrics=BusinessMetrics(**business, codes_expired=late, rate_limited=limited),
        refusals=refusals,
        events=events,
        latencies={name: _latency(found) for name, found in latencies.items() if found is not None},
        timings={name: _latency(found) for name, found in timings.items() if found is not None},
        gauges=GaugeValues.model_validate({**gauges, "log_lines_dropped": figures.counter("log_lines_dropped")}),
    )


def _latency(found: Summary) -> Latency:
    values = (found.p50, found.p95, found.p99, found.least, found.most)
    p50, p95, p99, least, most = (round(seconds * 1000, 3) for seconds in values)
    return Latency(count=found.count, p50=p50, p95=p95, p99=p99, min=least, max=most)


def labels_of(table: Sequence[Route]) -> Labels:
    """Return what is counted of these routes, by their canonical names, and the names of all refusals."""
    refusals = dict.fromkeys((*(refusal.value for refusal in Refusal), *(kind.word for kind in kinds.KINDS.values())))
    asked: dict[tuple[str, str], str] = {}
    for route in table:
        for path in route.paths:
            methods = ("GET", "HEAD", "OPTIONS") if route.method == "GET" else (route.method, "OPTIONS")
            for method in methods:
                asked.setdefault((method, path), route.name)  # of several methods of a path, OPTIONS is the first's
    return Labels(
        tuple(
            RouteLabel(
                f"{route.method} {route.path}",
                route.tag.name.lower(),
                tuple(one for one, name in asked.items() if name == route.name),
                timed=route.success.media_type != EVENTS,
            )
            for route in table
        ),
        tuple(refusals),
    )
