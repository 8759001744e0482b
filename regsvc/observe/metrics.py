"""Counting: a meter adds to the cells of its process's slab, at places that were looked up before.

Why not the objects of prometheus_client, and its multiprocess mode: see `shared`. What it is used for, the text that is
shown, is in `exposition`.

Rule 1. Counting hangs on the log: every event is counted, whatever the log's level, before anything is made of it. So
        what one counts, the other tells of.
Rule 2. Counting never raises and never waits: a field that is missing or odd costs its number, never a request.
Rule 3. The cells of one process may be added to by several threads. Between the reading and the writing of `+= 1` the
        interpreter lets no other thread run, so nothing is lost.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final

from regsvc.observe.catalogue import (
    BUCKETS,
    CENSUS,
    CLASSES,
    FINE,
    NO_ROUTE,
    OTHER,
    STATUSES,
    Gauge,
    Layout,
    Timing,
)
from regsvc.observe.events import Event
from regsvc.observe.shared import CELLS, Slab

EXPIRED: Final = frozenset(("activation_code_expired", "code_expired"))  # of refusals: somebody came too late
MISFITS: Final = (LookupError, TypeError, ValueError, OverflowError)  # what an odd field leads to
_KEPT: Final = frozenset((*CENSUS, "census_at"))
_AGE: Final = 1e9  # seconds; no sum of such is infinite
_INSTANT: Final = 1e-9  # seconds; what took no time at all: 0 says that there was nothing


class Meter:
    """Counts what a process does; without a slab, for nobody but itself."""

    def __init__(self, layout: Layout, slab: Slab | None = None, *, worker: int | None = None) -> None:
        self.layout = layout
        if slab is not None:
            slab.take(fingerprint=layout.fingerprint, worker=worker or 0)
        self.cells = slab.cells if slab is not None else memoryview(bytearray(CELLS * 8)).cast("d")
        for name, cell in layout.gauges.items():
            if name not in _KEPT:  # the last owner's; but what the database said is as true as before
                self.cells[cell] = 0.0
        self._events: Mapping[str, int] = layout.events
        self._expired = layout.counters["codes_expired"]
        self._levels: dict[str, float] = {}
        feeds: dict[str, Callable[[Mapping[str, object]], None]] = {
            "mail_sent": self._mail,
            "activation_refused": self._late,
            "profile_refused": self._late,
        }
        if layout.labels is not None:
            self._routes = _places(layout)
            self._nowhere = _place(layout, NO_ROUTE, NO_ROUTE)
            self._statuses = {int(status): layout.statuses[status] for status in STATUSES}
            self._odd_status = layout.statuses[OTHER]
            self._refusals: dict[object, int] = dict(layout.refusals.items())
            self._odd_refusal = layout.refusals[OTHER]
            feeds |= {"http_request": self._request, "request_unreadable": self._unreadable}
        self._feeds = feeds

    def count(self, event: Event, fields: Mapping[str, object]) -> None:
        """Count an event, and what its fields say."""
        try:
            self.cells[self._events[event]] += 1.0
            if (feed := self._feeds.get(event)) is not None:
                feed(fields)
        except MISFITS:
            return

    def gauge(self, name: Gauge, value: float) -> None:
        """Say how something stands now in this process."""
        self.cells[self.layout.gauges[name]] = value

    def timing(self, name: Timing, seconds: float) -> None:
        """Note how long something took."""
        if not math.isfinite(seconds):
            return
        seconds = max(_INSTANT, min(seconds, _AGE))
        cells, histogram, span = self.cells, self.layout.timings[name], self.layout.timing_spans[name]
        cells[histogram.first + bisect_left(histogram.bounds, seconds)] += 1.0
        cells[histogram.sum] += seconds
        _note(cells, span.first, seconds)

    def level(self, name: str, count: float) -> None:
        """Add to a counter what somebody else has counted since it was told last: `count` since the process began."""
        cell, before = self.layout.counters[name], self._levels.get(name, 0.0)
        self._levels[name] = count
        self.cells[cell] += count - before

    # --------------------------------------------------------------------------------- what fields say

    def _request(self, fields: Mapping[str, object]) -> None:
        """Count an answered request. Runs for every request: places were looked up, and nothing is made."""
        cells, status, took = self.cells, fields["status"], fields["duration_ms"]
        classes, room, room_sum, span = self._routes.get((fields["method"], fields["route"]), self._nowhere)
        if (refusal := fields.get("refusal")) is not None:
            cells[self._refusals.get(refusal, self._odd_refusal)] += 1.0
        cells[self._statuses.get(status, self._odd_status)] += 1.0  # type: ignore[call-overload]  # any key will do
        cells[classes + min(max(status // 100, 1), len(CLASSES)) - 1] += 1.0  # type: ignore[operator]  # see MISFITS
        if span < 0:
            return
        seconds = max(_INSTANT, min(took / 1000.0, _AGE))  # type: ignore[operator]  # likewise; NaN gives way
        cells[room + bisect_left(BUCKETS, seconds)] += 1.0
        cells[room_sum] += seconds
        _note(cells, span, seconds)

    def _unreadable(self, fields: Mapping[str, object]) -> None:
        """Count a request that reached no route, because the server itself refused it; others are answered later."""
        if "method" not in fields:
            status = fields["status"]
            self.cells[self._statuses.get(status, self._odd_status)] += 1.0  # type: ignore[call-overload]  # as above
            self.cells[self._nowhere[0] + min(max(status // 100, 1), len(CLASSES)) - 1] += 1.0  # type: ignore[operator]

    def _mail(self, fields: Mapping[str, object]) -> None:
        self.timing("mail_accept_to_sent_seconds", float(fields["accept_ms"]) / 1000.0)  # type: ignore[arg-type]

    def _late(self, fields: Mapping[str, object]) -> None:
        if fields["refusal"] in EXPIRED:
            self.cells[self._expired] += 1.0


Place = tuple[int, int, int, int]
"""Of a route: the first cell of its classes, of its room's buckets, the room's sum, the first of its fine buckets.

The last is negative where the time that requests take is not counted.
"""


def _place(layout: Layout, route: str, room: str) -> Place:
    histogram = layout.rooms[room]
    return layout.classes[route], histogram.first, histogram.sum, layout.route_spans[route].first


def _places(layout: Layout) -> dict[tuple[object, object], Place]:
    labels = layout.labels
    routes = () if labels is None else labels.routes
    places: dict[tuple[object, object], Place] = {}
    for route in routes:
        classes, room, room_sum, span = _place(layout, route.name, route.room)
        for asked in route.asked:
            places[asked] = (classes, room, room_sum, span if route.timed else -1)
    return places


_LEAST: Final = len(FINE) + 1  # after the first cell of a span
_MOST: Final = _LEAST + 1


def _note(cells: "memoryview[float]", first: int, seconds: float) -> None:
    """Add a value to a fine histogram."""
    cells[first + bisect_left(FINE, seconds)] += 1.0
    if not 0.0 < cells[first + _LEAST] <= seconds:
        cells[first + _LEAST] = seconds
    cells[first + _MOST] = max(cells[first + _MOST], seconds)
