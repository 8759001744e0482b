"""What the service says of itself: a structured log with a closed list of events, and the context of a request."""

from regsvc.observe.context import Trace, bind, context, request_context, trace
from regsvc.observe.events import COMMON, EVENTS, FIELDS, FORBIDDEN, LEVELS, Event, Level
from regsvc.observe.lines import Unfit
from regsvc.observe.log import (
    Format,
    Log,
    LogStatistics,
    Stream,
    database_away,
    database_back,
    emit,
    exception,
    open_log,
    run_log_writer,
    statistics,
)

__all__ = [
    "COMMON",
    "EVENTS",
    "FIELDS",
    "FORBIDDEN",
    "LEVELS",
    "Event",
    "Format",
    "Level",
    "Log",
    "LogStatistics",
    "Stream",
    "Trace",
    "Unfit",
    "bind",
    "context",
    "database_away",
    "database_back",
    "emit",
    "exception",
    "open_log",
    "request_context",
    "run_log_writer",
    "statistics",
    "trace",
]
