"""What libraries say, folded in."""

import logging
import warnings

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
