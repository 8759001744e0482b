"""The console as a person sees it: a screen of any width from 60 columns on, or a line now and then."""

from collections.abc import Iterator, Mapping, Sequence
from time import time_ns
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from regsvc.cli.watch.state import State
from regsvc.cli.watch.window import Snapshot
from regsvc.observe.fields import COMMON
from regsvc.observe.lines import Clock, visible

WIDE: Final = 150  # columns, from which on everything stands side by side
ROUTES: Final = 8  # the busiest
REFUSALS: Final = 6
BARS: Final = " ▁▂▃▄▅▆▇█"
BARS_WIDE: Final = 20
NONE: Final = "–"
_LOUD: Final = {"debug": "dim", "info": "green", "warning": "yellow", "error": "bold red"}
_CLASS_COLOURS: Final = {"2xx": "green", "3xx": "cyan", "4xx": "yellow", "5xx": "bold red"}
_PEOPLE: Final = ("registrations", "activations", "logins", "mails", "mails_deferred", "mails_dead")
_SAID_FIRST: Final = frozenset(("ts", "level", "event", "service", "version", "instance", "traceback"))


def screen(state: State, console: Console) -> Group:
    """Return everything, as high as the terminal; lines of the stream fill what is left."""
    width, height = console.size
    snapshot = state.window.snapshot()
    upper = Group(_title(state), _panels(state, snapshot, width), _rule(state))
    used = len(console.render_lines(upper, pad=False))
    room = max(height - used, 1)
    return Group(upper, *(_line(one) for one in [*state.stream][-room:]))


def summary(state: State) -> str:
    """Return all of it in one line, for whoever has no terminal."""
    snapshot = state.window.snapshot()
    parts = [Clock().stamp(time_ns())[11:19], f"{snapshot.per_s:.1f} req/s"]
    parts += [f"{name} {snapshot.classes[name]:.1f}/s" for name in ("4xx", "5xx") if snapshot.classes[name]]
    if snapshot.routes:
        busiest = snapshot.routes[0]
        parts.append(f"{_plain(busiest.route)} p95 {_ms(busiest.p95)}")
    done = [name for name in _PEOPLE if snapshot.per_minute[name]]
    people = [f"{snapshot.per_minute[name]:.0f} {name.replace('_', ' ')}" for name in done]
    parts += [f"{', '.join(people)} /min"] if people else []
    refused = [f"{number} {_plain(name)}" for name, number in [*snapshot.refusals.items()][:3]]
    parts += [f"refused: {', '.join(refused)}"] if refused else []
    if state.metrics is not None:
        parts += [f"{name} {value}" for name, value in _service(state)]
    parts += [f"{snapshot.lost} lines lost"] if snapshot.lost else []
    return " · ".join([*parts, state.link])


def _title(state: State) -> Text:
    metrics, hello = state.metrics or {}, state.hello
    name = " ".join(_plain(str(word)) for word in ("regsvc", hello.get("version", "")) if word)
    text = Text(name, "bold", no_wrap=True, overflow="ellipsis", end="\n")
    if "instance" in hello:
        text.append(f" on {_plain(str(hello['instance']))}", "default")
    if isinstance(uptime := metrics.get("uptime_s"), int | float):
        text.append(f", up {_long(uptime)}", "dim")
    text.append(f"  {_plain(state.source)}  ", "dim")
    text.append(_plain(state.link), "green" if state.link == "connected" else "yellow")
    return text


def _rule(state: State) -> Rule:
    sieve, window = state.sieve, state.window
    told = [f"{sieve.level} and above", *sieve.events, *sieve.routes]
    if window.lost:
        told.append(f"{window.lost} lines lost")
    if window.others:
        told.append(f"{window.others} lines of others")
    return Rule(Text(_plain(", ".join(told)), "dim", no_wrap=True, overflow="ellipsis"), align="left", style="dim")


def _panels(state: State, snapshot: Snapshot, width: int) -> RenderableType:
    left = Group(_requests(snapshot), Text(), _refusals(snapshot))
    people, service = _people(snapshot), _pairs("service", _service(state))
    if width >= WIDE:
        return _beside(left, _routes(snapshot), people, service)
    return Group(_beside(left, people, service), Text(), _routes(snapshot))


def _beside(*parts: RenderableType) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    for _ in parts:
        grid.add_column(vertical="top")
    grid.add_row(*parts)
    return grid


def _requests(snapshot: Snapshot) -> Group:
    table = _table(f"requests, {snapshot.seconds:.0f} s", "per s")
    table.add_row(_cell("all"), f"{snapshot.per_s:.1f}")
    for name, colour in _CLASS_COLOURS.items():
        rate = snapshot.classes[name]
        table.add_row(_cell(name), f"{rate:.1f}", style=colour if rate else "dim")
    return Group(table, Text(_bars(snapshot.curve, BARS_WIDE), "cyan", no_wrap=True))


def _bars(curve: Sequence[int], width: int) -> str:
    size = max(len(curve) // width, 1)
    sums = [sum(curve[at : at + size]) for at in range(0, len(curve), size)][-width:]
    most = max(sums, default=0) or 1
    return "".join(BARS[-(-one * (len(BARS) - 1) // most)] for one in sums)


def _people(snapshot: Snapshot) -> Table:
    pairs = [(name.replace("_", " "), f"{snapshot.per_minute[name]:.0f}") for name in _PEOPLE]
    return _pairs("people", pairs, "per min")


def _refusals(snapshot: Snapshot) -> Table:
    pairs = [(_plain(name), str(number)) for name, number in [*snapshot.refusals.items()][:REFUSALS]]
    return _pairs("refused", pairs or [(NONE, "")])


def _service(state: State) -> Iterator[tuple[str, str]]:
    """Yield what the service says of itself."""

    def numbers(*names: str) -> str:
        values = [state.gauge(name) for name in names]
        return "/".join(NONE if value is None else f"{value:.0f}" for value in values)

    workers = [state.workers(name) for name in ("alive", "asked")]
    yield "workers", "/".join(NONE if value is None else f"{value:.0f}" for value in workers)
    if restarts := state.workers("restarts"):
        yield "restarts", f"{restarts:.0f}"
    yield "hashes wait/run", numbers("hash_queue_waiting", "hash_queue_running")
    yield "outbox ready/leased/dead", numbers("outbox_ready", "outbox_leased", "outbox_dead")
    yield "oldest mail", _or_none(state.gauge("outbox_oldest_seconds"), _long)
    yield "pool used/idle/wait", numbers("pool_in_use", "pool_idle", "pool_waiting")
    yield "connections", numbers("connections")
    yield "lag of the loop", _or_none(state.gauge("loop_lag_seconds"), lambda lag: _ms(lag * 1000))
    if state.gauge("database_up") == 0:
        yield "database", "away"


def _routes(snapshot: Snapshot) -> Table:
    table = _table("route", "per s", "p50", "p95", "p99", "5xx")
    for one in snapshot.routes[:ROUTES]:
        failed = Text(str(one.failed) if one.failed else "", "bold red")
        table.add_row(Text(_plain(one.route)), f"{one.per_s:.1f}", _ms(one.p50), _ms(one.p95), _ms(one.p99), failed)
    if not snapshot.routes:
        table.add_row(_cell(NONE))
    return table


def _table(first: str, *others: str) -> Table:
    """Return an empty table of names and numbers; where there is no room, the names are cut and no number."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(_cell(first))
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _pairs(name: str, pairs: Iterator[tuple[str, str]] | Sequence[tuple[str, str]], unit: str = "") -> Table:
    table = _table(name, unit)
    for what, value in pairs:
        table.add_row(_cell(what), value)
    return table


def _line(line: Mapping[str, Any]) -> Text:
    """Return a line of the stream, cut at the edge; whoever wrote it may have written it for a terminal to obey."""
    level = str(line.get("level"))
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(_plain(str(line.get("ts", ""))[11:23]) + " ", "dim")
    text.append(f"{_plain(str(line.get('event', ''))):<24} ", _LOUD.get(level, ""))
    own = [name for name in line if name not in COMMON]
    others = [name for name in line if name in COMMON and name not in _SAID_FIRST]
    for name in (*own, *others):
        text.append(f"{_plain(str(name))}=", "dim")
        text.append(f"{visible(line[name])} ")
    text.rstrip()
    return text


def _plain(text: str) -> str:
    return visible(text)


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _long(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _or_none(value: float | None, show: Any) -> str:  # noqa: ANN401
    return NONE if value is None else str(show(value))
