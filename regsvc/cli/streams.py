"""Lines that come and go in bulk: files and pipes, plain or gzip, and how far they are.

What blocks is called from a thread of its own, one at a time; the raw streams have no lock, so a thread that is still
in one when the process ends does no harm.
"""

import gzip
import io
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

import click

from regsvc.cli.given import say

BUFFER: Final = 256 * 1024  # octets
EVERY: Final = 5.0  # seconds between two lines of progress where there is no terminal
GZIP: Final = b"\x1f\x8b"
MARK: Final = b"\xef\xbb\xbf"  # a byte order mark, which some editors begin UTF-8 with


class DamagedError(click.ClickException):
    """What is read ends in the middle, or is not what it says."""


class Lines:
    """The lines of a stream that are not blank, with their numbers; gzip is known by its first two octets."""

    def __init__(self, raw: IO[bytes], *, longest: int) -> None:
        self._raw = raw
        packed = io.BufferedReader(cast("io.RawIOBase", raw), BUFFER)
        self._stream = gzip.GzipFile(fileobj=packed) if packed.peek(2)[:2] == GZIP else packed
        self._longest = longest
        self.number = 0  # of the line read last
        self.octets = 0  # read so far, gzip as it is packed

    def batch(self, most: int, octets: int) -> Sequence[tuple[int, bytes]]:
        """Return up to `most` lines of up to `octets` together; none at the end. Raises DamagedError.

        Of a line that is longer than the longest only so much is kept that it shows.
        """
        lines: list[tuple[int, bytes]] = []
        try:
            while len(lines) < most and octets > 0 and (line := self._line()) is not None:
                octets -= len(line)
                if line:
                    lines.append((self.number, line))
            self.octets = self._raw.tell() if self._raw.seekable() else 0
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DamagedError(f"the input is damaged after line {self.number}: {error}") from error
        return lines

    def _line(self) -> bytes | None:
        line = self._stream.readline(self._longest + 2)
        if not line:
            return None
        self.number += 1
        if len(line) == self._longest + 2 and not line.endswith(b"\n"):
            while (rest := self._stream.readline(BUFFER)) and not rest.endswith(b"\n"):
                pass
            return line
        return (line.removeprefix(MARK) if self.number == 1 else line).strip()


@contextmanager
def open_lines(name: str, *, longest: int) -> Iterator[tuple[Lines, int | None]]:
    """Open a file, or standard input for `-`; say how many octets it has, if that is known."""
    with ExitStack() as closing:
        if name == "-":
            if sys.stdin.isatty():
                say("reading from the terminal until Ctrl-D")
            yield Lines(_raw(sys.stdin.buffer), longest=longest), None
            return
        try:
            raw = closing.enter_context(Path(name).open("rb", buffering=0))
        except OSError as error:
            raise click.FileError(name, error.strerror) from error
        yield Lines(raw, longest=longest), os.fstat(raw.fileno()).st_size or None


class Sink:
    """Takes octets, all of them."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def write(self, octets: bytes) -> None:
        """Write; blocks as long as whoever reads does."""
        left = memoryview(octets)
        while left:
            left = left[self._raw.write(left) :]


class Kept:
    """A file that is written aside, and put in its place by `keep` alone."""

    def __init__(self, sink: Sink, keep: Callable[[], None]) -> None:
        self.write = sink.write
        self.keep = keep


@contextmanager
def open_kept(path: Path) -> Iterator[Kept]:
    """Write a file of mode 0600 beside `path`, packed where that ends with .gz; it is gone unless it is kept."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    aside = Path(name)
    try:
        with ExitStack() as closing:
            file: Any = closing.enter_context(os.fdopen(descriptor, "wb", buffering=0))
            stream: Any = file
            if path.suffix == ".gz":
                stream = closing.enter_context(gzip.GzipFile(path.name, "wb", 6, file))

            def keep() -> None:
                if stream is not file:
                    stream.close()
                os.fsync(descriptor)
                aside.replace(path)

            yield Kept(Sink(stream), keep)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    finally:
        aside.unlink(missing_ok=True)


def _raw(stream: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", getattr(stream, "raw", stream))


def standard_output() -> Sink:
    """Return standard output, unbuffered."""
    sys.stdout.flush()
    return Sink(_raw(sys.stdout.buffer))


class Progress:
    """How far something is: a bar at a terminal, elsewhere a line now and then."""

    def __init__(self, what: str, tell: Callable[[int, str], None], total: Callable[[int], None]) -> None:
        self.what = what
        self.tell = tell  # how much is done of the total, and in words
        self.total = total


@contextmanager
def open_progress(what: str, octets: int | None = None) -> Iterator[Progress]:
    """Show progress for the time of the block: of `octets`, or of a total that is told later, or is never known."""
    if not sys.stderr.isatty():
        yield _plain(what)
        return
    from rich import progress as rich
    from rich.console import Console

    counted = rich.DownloadColumn() if octets else rich.MofNCompleteColumn()
    words = (rich.TextColumn(what), rich.BarColumn(), counted, rich.TextColumn("{task.fields[said]}"))
    with rich.Progress(*words, rich.TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=octets, said="")
        yield Progress(
            what,
            lambda done, said: bar.update(task, completed=done, said=said),
            lambda total: bar.update(task, total=total),
        )


def _plain(what: str) -> Progress:
    next_at = time.monotonic() + EVERY

    def tell(_: int, said: str) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + EVERY
            say(f"{what}: {said}")

    return Progress(what, tell, lambda _: None)
