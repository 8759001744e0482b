"""What libraries say, folded in."""

import logging
import sys
import threading
import warnings
from types import SimpleNamespace

import pytest

from regsvc.observe import open_log
from tests.lines import Lines


def test_what_libraries_log_becomes_a_line_of_its_level() -> None:
    lines = Lines()
    with open_log(lines, level="debug"):
        other = logging.getLogger("some.library")
        other.debug("debug %s", 1)
        other.info("info\n%s", "two lines")
        other.warning("warning")
        other.critical("critical")
    assert [line["level"] for line in lines.all] == ["debug", "info", "warning", "error"]
    assert {line["event"] for line in lines.all} == {"library_message"}
    assert lines.all[1]["message"] == "info\ntwo lines"
    assert lines.all[1]["logger"] == "some.library"


def test_tracebacks_and_broken_formats_come_along() -> None:
    lines = Lines()
    with open_log(lines):
        try:
            int("why")
        except ValueError:
            logging.getLogger("x").exception("it failed")
        logging.getLogger("x").error("%d things", "not a number")
    failed, broken = lines.all
    assert "ValueError: invalid literal" in failed["traceback"]
    assert broken["message"] == "%d things"


def test_quieter_records_are_left_out() -> None:
    lines = Lines()
    with open_log(lines, level="warning"):
        logging.getLogger("x").info("nothing")
    assert not lines.all


def test_warnings_come_along() -> None:
    lines = Lines()
    with warnings.catch_warnings(), open_log(lines):
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert "old ways" in lines.all[0]["message"]


def test_afterwards_all_is_as_before() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.showwarning
    with open_log(Lines()):
        assert root.handlers != before[0]
    assert (root.handlers, root.level, warnings.showwarning) == before


class Careless:
    """Fails when it is collected."""

    def __del__(self) -> None:
        raise LookupError("in the end")


@pytest.fixture
def own_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks as a process has them that is no test: pytest has its own."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)


def fail(error: type[BaseException]) -> None:
    raise error("in a thread")


@pytest.mark.usefixtures("own_hooks")
def test_errors_that_nobody_waits_for_are_lines() -> None:
    lines = Lines()
    with open_log(lines):
        for error in (LookupError, SystemExit):
            thread = threading.Thread(target=fail, args=(error,), name="worker bee")
            thread.start()
            thread.join()
        Careless().__class__  # noqa: B018 - made, and collected at once
        nobody = SimpleNamespace(exc_type=None, exc_value=None, exc_traceback=None, err_msg=None, object=None)
        sys.unraisablehook(nobody)
        lost = threading.ExceptHookArgs((LookupError, LookupError("lost"), None, None))
        threading.excepthook(lost)
    assert (threading.excepthook, sys.unraisablehook) == (threading.__excepthook__, sys.__unraisablehook__)
    in_thread, collected, of_nobody = lines.all
    assert {line["level"] for line in lines.all} == {"error"}
    assert (in_thread["logger"], in_thread["message"]) == ("threading", "an error ended the thread worker bee")
    assert "LookupError: in a thread" in in_thread["traceback"]
    assert (collected["logger"], collected["message"]) == ("python", "an error was ignored in function")
    assert "LookupError: in the end" in collected["traceback"]
    assert of_nobody["message"] == "an error ended the thread ?"


def test_hooks_that_somebody_else_set_stay() -> None:
    before = threading.excepthook, sys.unraisablehook
    with open_log(Lines()):
        assert (threading.excepthook, sys.unraisablehook) == before


class Garbage(Lines):
    """A stream in the midst of whose write garbage is collected that has something to say."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # narrower than BytesIO's buffer
        if b"collected" not in data:
            logging.getLogger("x").warning("collected")
        return super().write(data)


def test_what_is_said_in_the_midst_of_a_write_comes_after_it() -> None:
    lines = Garbage()
    with open_log(lines):
        logging.getLogger("x").warning("first")
    assert [line["message"] for line in lines.all] == ["first", "collected"]
