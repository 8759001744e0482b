"""What libraries say through the stdlib's `logging` and `warnings`, folded into the one stream.

So are the errors that nobody waits for: of threads, and of what is collected as garbage. The interpreter would write
them on stderr, over several lines. What ends the process leaves the log first: `cli` tells of that.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final

from regsvc.observe.events import Event, Level

if TYPE_CHECKING:  # it is there for type checkers only
    from sys import UnraisableHookArgs

Emit = Callable[[Event, Level, Mapping[str, object]], None]
_LEVELS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _Fold(logging.Handler):
    """Turns a record into a `library_message`; called from whichever thread logged."""

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # the arguments do not fit the format: a library's bug, not a lost line
            message = str(record.msg)
        fields: dict[str, object] = {"logger": record.name, "message": message}
        if record.exc_info and record.exc_info[0]:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))[-3000:]
        self._emit("library_message", _level(record.levelno), fields)


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


@contextmanager
def library_messages(emit: Emit, level: Level) -> Iterator[None]:
    """Send records of `level` and above, and warnings, to `emit` until the block ends; then all is as before."""
    root = logging.getLogger()
    handlers, threshold = root.handlers[:], root.level
    root.handlers[:] = [_Fold(emit)]
    root.setLevel(_LEVELS[level])
    logging.captureWarnings(capture=True)
    try:
        with _stray_errors(emit):
            yield
    finally:
        logging.captureWarnings(capture=False)
        root.setLevel(threshold)
        root.handlers[:] = handlers


@contextmanager
def _stray_errors(emit: Emit) -> Iterator[None]:
    """Tell of errors that nobody waits for until the block ends. A hook that somebody else has set stays."""

    def tell(logger: str, what: str, error: BaseException | None, frames: TracebackType | None) -> None:
        if error is None:
            return
        lines = traceback.format_exception(type(error), error, frames)
        emit("library_message", "error", {"logger": logger, "message": what, "traceback": "".join(lines)[-3000:]})

    def of_thread(told: threading.ExceptHookArgs) -> None:
        if told.exc_type is not SystemExit:  # a thread may end so
            name = told.thread.name if told.thread is not None else "?"
            tell("threading", f"an error ended the thread {name}", told.exc_value, told.exc_traceback)

    def unraisable(told: "UnraisableHookArgs") -> None:
        # Its type only: nobody knows what the thing itself would say, or hold.
        what = f"{told.err_msg or 'an error was ignored in'} {type(told.object).__name__}"
        tell("python", what, told.exc_value, told.exc_traceback)

    threads, collector = threading.excepthook, sys.unraisablehook
    if threads is threading.__excepthook__:
        threading.excepthook = of_thread
    if collector is sys.__unraisablehook__:
        sys.unraisablehook = unraisable
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = threads, collector
