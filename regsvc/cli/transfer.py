"""`regsvc user export` and `regsvc user import`: all accounts as lines of NDJSON, out of the service and into it."""

import gc
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from regsvc.cli.given import database, say, settings

if TYPE_CHECKING:  # --help must not wait for them
    import trio

    from regsvc.cli.streams import DamagedError, Kept, Lines, Progress, Sink
    from regsvc.domain.transfer import Fault, Outcome, Record, Seen
    from regsvc.domain.values import Secret
    from regsvc.ports import HashForms, Transfer
    from regsvc.settings import Settings

BATCH: Final = 5_000  # lines in a transaction
BATCH_OCTETS: Final = 8 * 1024 * 1024
PAGE: Final = 2_000  # accounts read at once
SHOWN: Final = 20  # refused lines that are shown where no report is asked for


@click.command(short_help="Write all accounts as NDJSON.")
@click.option("--state", type=click.Choice(("active", "disabled", "all")), default="all", show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of mode 0600, in its place once it is whole; packed if its name ends with .gz.",
)
def export(*, state: str, output: Path | None) -> None:
    """Write all accounts as they are at one moment, in the order of their ids: a JSON object a line.

    PASSWORD HASHES ARE AMONG IT: keep it as you keep the database. Those that regsvc made are good only where
    REGSVC_SECRET (or REGSVC_SECRET_PREVIOUS) is the same; bcrypt and argon2id of other systems are good everywhere.

    \b
    Examples:
      regsvc user export --output users.ndjson.gz
      regsvc user export --state active | jq -r .email

    Exit statuses: 0 done, 1 it could not be written, 75 the database is away: try again, 78 misconfigured.
    """
    from regsvc.cli.streams import open_kept, open_progress, standard_output

    took = _Took()
    with open_progress("exporting") as progress:
        if output is None:
            told = _at_roll(lambda transfer, _: _export(transfer, state, standard_output(), took, progress))
        else:
            with open_kept(output) as kept:
                told = _at_roll(lambda transfer, _: _export(transfer, state, kept, took, progress))
                if not told:
                    kept.keep()
    say(f"{'interrupted after' if told else 'wrote'} {took.lines} accounts {took}")
    if told:
        sys.exit(128 + told)


async def _export(transfer: "Transfer", state: str, sink: "Sink | Kept", took: "_Took", progress: "Progress") -> None:
    import trio

    from regsvc.domain.transfer import written

    limiter = trio.CapacityLimiter(1)
    disabled = {"active": False, "disabled": True}.get(state)
    async with transfer.roll.snapshot(disabled=disabled) as snapshot:
        progress.total(await snapshot.count())
        after = None
        while page := await snapshot.page(after, PAGE):
            octets = b"".join(map(written, page))
            await trio.to_thread.run_sync(sink.write, octets, limiter=limiter, abandon_on_cancel=True)
            after = page[-1].id
            took.lines += len(page)
            progress.tell(took.lines, f"{took.lines} accounts")


@click.command("import", short_help="Take accounts from NDJSON.")
@click.argument("file", default="-", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--update", is_flag=True, help="Overwrite the hash, locale, role and disabling of accounts that are there."
)
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
@click.option(
    "--report", type=click.File("w", encoding="utf-8", lazy=False), help="Where refused lines are told, as NDJSON."
)
def import_(file: str, *, update: bool, dry_run: bool, report: IO[str] | None) -> None:
    """Take accounts from FILE, or from standard input: a JSON object a line, plain or gzip.

    \b
    email          required
    password_hash  required: bcrypt ($2a$, $2b$, $2y$), $argon2id$, what `regsvc user export` wrote, or null
                   for no password, which its owner then resets
    username, locale, id (a UUID), role (user or admin), disabled (true or false),
    disabled_at, created_at, activated_at (2024-02-29T12:30:00Z)

    No mail is sent: the addresses count as proved. A hash that regsvc made is good only under the REGSVC_SECRET (or
    REGSVC_SECRET_PREVIOUS) that it was made under; how many are not is told at the end.

    The same file may be imported again: what is there as its line says is left alone, what is there otherwise is
    refused, or with --update overwritten (its sessions end; address, username, id and times stay). What was cut short
    is completed. Of two lines about one address, username or id the first counts.

    \b
    Examples:
      regsvc user import users.ndjson.gz --dry-run
      regsvc user import users.ndjson --report refused.ndjson
      ssh old-server export-users | regsvc user import

    Exit statuses: 0 all of it is in, 1 some lines were refused, 2 wrong usage, 75 the database is away: try again,
    78 misconfigured.
    """
    from regsvc.cli.streams import open_lines, open_progress
    from regsvc.domain.transfer import LINE_MAX
    from regsvc.ports import Unavailable

    took, refused = _Took(), _Refused(report)
    try:
        with open_lines(file, longest=LINE_MAX) as (lines, size), open_progress("importing", size) as progress:
            desk = _Desk(lines, took, refused, progress, update=update, dry_run=dry_run)
            told = _at_roll(desk.work)
    except (Unavailable, click.ClickException):
        _sum_up(took, refused, dry_run=dry_run)
        raise
    _sum_up(took, refused, dry_run=dry_run)
    if told:
        say("interrupted: what is told here is in, and the same command does the rest")
        sys.exit(128 + told)
    sys.exit(1 if refused.lines else 0)


@dataclass(slots=True)
class _Took:
    """How many lines there were, and what became of them; as text, how long it took."""

    lines: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    foreign: int = 0  # with a hash that no password will ever open
    began: float = field(default_factory=time.monotonic)

    def count(self, record: "Record", outcome: "Outcome", hashes: "HashForms") -> "Fault | None":
        """Count what became of a line; hand it back if that was refused."""
        from regsvc.domain.transfer import Created, Unchanged, Updated

        match outcome:
            case Created():
                self.created += 1
            case Updated():
                self.updated += 1
            case Unchanged():
                self.unchanged += 1
                return None
            case _:
                return outcome
        self.foreign += hashes.foreign(record.password_hash)
        return None

    def __str__(self) -> str:
        seconds = time.monotonic() - self.began
        return f"in {seconds:.1f} s ({self.lines / max(seconds, 0.001):.0f} a second)"


class _Refused:
    """Lines that were refused: told in a report, or the first of them at the end."""

    def __init__(self, report: IO[str] | None) -> None:
        self.lines = 0
        self.shown: list[str] = []
        self._report = report

    def tell(self, faults: "Sequence[tuple[int, Fault]]") -> None:
        """Tell why lines were refused, each with all its faults."""
        self.lines += len({number for number, _ in faults})
        told = [
            json.dumps({"line": number, "field": fault.field, "code": fault.code, "message": fault.message})
            for number, fault in sorted(faults, key=lambda one: one[0])
        ]
        if self._report is not None:
            self._report.writelines(f"{line}\n" for line in told)
            self._report.flush()
        else:
            self.shown += told[: SHOWN - len(self.shown)]


@dataclass(frozen=True, slots=True)
class _Batch:
    """What came of some lines before the database was asked."""

    lines: int
    octets: int
    records: "Sequence[tuple[int, Record]]"
    faults: "Sequence[tuple[int, Fault]]"


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where lines are taken in: one task reads them, a batch ahead of the other, which settles them."""

    lines: "Lines"
    took: _Took
    refused: _Refused
    progress: "Progress"
    update: bool = field(kw_only=True)
    dry_run: bool = field(kw_only=True)

    async def work(self, transfer: "Transfer", nursery: "trio.Nursery") -> None:
        """Take all of them. Raises Unavailable and DamagedError; whole batches are in by then."""
        import trio

        from regsvc.domain.transfer import Seen

        send, receive = trio.open_memory_channel["_Batch | DamagedError"](1)
        nursery.start_soon(self._read, transfer.hashes, Seen(), send, name="reader")
        async for batch in receive:
            if not isinstance(batch, _Batch):
                raise batch
            records = [record for _, record in batch.records]
            outcomes = await transfer.roll.take(records, update=self.update, dry_run=self.dry_run)
            faults = list(batch.faults)
            for (number, record), outcome in zip(batch.records, outcomes, strict=True):
                if (fault := self.took.count(record, outcome, transfer.hashes)) is not None:
                    faults.append((number, fault))
            self.took.lines += batch.lines
            self.refused.tell(faults)
            self.progress.tell(batch.octets, f"{self.took.lines} lines, {self.refused.lines} refused")

    async def _read(
        self, hashes: "HashForms", seen: "Seen", send: "trio.MemorySendChannel[_Batch | DamagedError]"
    ) -> None:
        import trio

        from regsvc.cli.streams import DamagedError

        limiter = trio.CapacityLimiter(1)
        async with send:
            try:
                # A thread that waits for a pipe is left behind: nobody reads its batch any more.
                while batch := await trio.to_thread.run_sync(
                    self._batch, hashes, seen, limiter=limiter, abandon_on_cancel=True
                ):
                    await send.send(batch)
            except DamagedError as damage:
                await send.send(damage)

    def _batch(self, hashes: "HashForms", seen: "Seen") -> _Batch | None:
        from regsvc.domain.transfer import Record, read

        records: list[tuple[int, Record]] = []
        faults: list[tuple[int, Fault]] = []
        lines = self.lines.batch(BATCH, BATCH_OCTETS)
        for number, line in lines:
            found = read(line, hashes.flaw)
            if not isinstance(found, Record):
                faults += [(number, fault) for fault in found]
            elif (fault := seen.before(found, number)) is not None:
                faults.append((number, fault))
            else:
                records.append((number, found))
        return _Batch(len(lines), self.lines.octets, records, faults) if lines else None


def _sum_up(took: _Took, refused: _Refused, *, dry_run: bool) -> None:
    for line in refused.shown:
        click.echo(line, err=True)
    if refused.shown and refused.lines > SHOWN:
        say(f"{refused.lines} lines were refused; --report FILE tells of all")
    created, updated = ("would be created", "would be updated") if dry_run else ("created", "updated")
    say(
        f"read {took.lines} lines: {took.created} {created}, {took.updated} {updated}, {took.unchanged} unchanged, "
        f"{refused.lines} refused, {took}"
    )
    if took.foreign:
        say(
            f"{took.foreign} hashes were made under another REGSVC_SECRET: their owners get in once they reset their "
            "password, or once that secret is REGSVC_SECRET_PREVIOUS here"
        )


def _at_roll(work: "Callable[[Transfer, trio.Nursery], Awaitable[None]]") -> int:
    """Do `work` on the database that the settings name; return the signal that cut it short, or 0."""
    import trio

    from regsvc.settings import with_secret

    told = with_secret(settings())
    with database(told) as dsn:
        gc.freeze()  # modules and settings stay; the collector need not walk them again and again for lines that go
        try:
            return trio.run(_work, told, dsn, work)
        finally:
            gc.unfreeze()


async def _work(told: "Settings", dsn: "Secret", work: "Callable[[Transfer, trio.Nursery], Awaitable[None]]") -> int:
    import trio

    from regsvc.world import open_transfer

    heard: list[int] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, heard, nursery.cancel_scope, name="signals")
        try:
            async with open_transfer(told, dsn) as transfer:
                await work(transfer, nursery)
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, which would wrap it
            failure = error
        nursery.cancel_scope.cancel(reason="the work is done")
    if failure is not None:
        raise failure
    return heard[0] if heard else 0


async def _watch_signals(heard: list[int], scope: "trio.CancelScope", *, task_status: "trio.TaskStatus[None]") -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as told:
        task_status.started()
        async for number in told:
            heard.append(number)
            scope.cancel(reason=signal.Signals(number).name)
