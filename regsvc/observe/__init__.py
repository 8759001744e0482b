"""What the service says of itself: a structured log with a closed list of events, and the context of a request."""

import regsvc.observe.lean  # noqa: F401 - before anything loads structlog
from regsvc.observe.catalogue import Gauge, Labels, Layout, RouteLabel, Timing, layout_of
from regsvc.observe.context import Trace, bind, context, request_context, trace
from regsvc.observe.events import EVENTS, FIELDS, FORBIDDEN, LEVELS, MEANINGS, REQUIRED, VERSIONS, Event, Level, schema
from regsvc.observe.fields import ALWAYS, COMMON, OWN
from regsvc.observe.figures import Figures, Summary, read_figures
from regsvc.observe.lines import Unfit
from regsvc.observe.log import (
    Format,
    Log,
    LogStatistics,
    count_drops,
    database_away,
    database_back,
    emit,
    exception,
    gauge,
    open_log,
    run_log_writer,
    start_counting,
    statistics,
    timing,
)
from regsvc.observe.out import Stream
from regsvc.observe.spans import NO_SPAN, NoSpan, Span, open_tracing, span, traced

__all__ = [
    "ALWAYS",
    "COMMON",
    "EVENTS",
    "FIELDS",
    "FORBIDDEN",
    "LEVELS",
    "MEANINGS",
    "NO_SPAN",
    "OWN",
    "REQUIRED",
    "VERSIONS",
    "Event",
    "Figures",
    "Format",
    "Gauge",
    "Labels",
    "Layout",
    "Level",
    "Log",
    "LogStatistics",
    "NoSpan",
    "RouteLabel",
    "Span",
    "Stream",
    "Summary",
    "Timing",
    "Trace",
    "Unfit",
    "bind",
    "context",
    "count_drops",
    "database_away",
    "database_back",
    "emit",
    "exception",
    "gauge",
    "layout_of",
    "open_log",
    "open_tracing",
    "read_figures",
    "request_context",
    "run_log_writer",
    "schema",
    "span",
    "start_counting",
    "statistics",
    "timing",
    "trace",
    "traced",
]
