"""Lines that come and go in bulk: how a stream of them begins, ends, and fails, and how far it is."""

import io
import sys
from pathlib import Path

import click
import pytest

from regsvc.cli import streams


def test_a_file_that_cannot_be_opened_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(click.FileError, match="Permission denied"), streams.open_lines("users", longest=9):
        pytest.fail("it opened")


def test_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(click.FileError, match="No space left"), streams.open_kept(tmp_path / "users"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_somebody_at_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with streams.open_progress("importing", 1000) as progress:
        progress.tell(500, "7 lines")
    with streams.open_progress("exporting") as progress:
        progress.total(3)
        progress.tell(3, "")
    shown = terminal.getvalue()
    assert "0.5/1.0 kB" in shown
    assert "7 lines" in shown
    assert "3/3" in shown


def test_whoever_types_is_told_how_to_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Typed(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Typed(io.BytesIO(b"x\n")))
    with streams.open_lines("-", longest=9) as (found, octets):
        assert (found.batch(5, 100), octets) == ([(1, b"x")], None)
    assert "until Ctrl-D" in capsys.readouterr().err


def test_a_line_is_cut_where_it_is_too_long_and_the_next_is_itself() -> None:
    long = b" " * 2 * streams.BUFFER + b"far"
    octets = b"\n".join([b"123456789", b"1234567890", long, b"  ", b"123456789\r", b"last"])
    found = streams.Lines(io.BytesIO(octets), longest=9)
    assert found.batch(2, 1000) == [(1, b"123456789"), (2, b"1234567890")]
    assert found.batch(9, 1000) == [(3, b" " * 11), (5, b"123456789"), (6, b"last")]
    assert found.batch(9, 1000) == []
    assert found.octets == len(octets)


def test_a_batch_ends_with_its_octets() -> None:
    found = streams.Lines(io.BytesIO(b"12\n34\n56\n"), longest=9)
    assert found.batch(9, 3) == [(1, b"12"), (2, b"34")]
    assert found.batch(9, 1) == [(3, b"56")]
