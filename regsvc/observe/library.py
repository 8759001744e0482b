"""What libraries say through the stdlib's `logging` and `warnings`, folded into the one stream."""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from regsvc.observe.events import Event, Level

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
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.setLevel(threshold)
        root.handlers[:] = handlers
