"""`regsvc watch`: the console, in a terminal."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from regsvc.cli.given import say, settings

if TYPE_CHECKING:  # --help must not wait for them
    from regsvc.cli.watch.feeds import Feed
    from regsvc.cli.watch.remote import Remote
    from regsvc.cli.watch.state import State
    from regsvc.domain.values import Secret

REDRAW: Final = 1.0  # seconds, of a screen
SUM_UP: Final = 10.0  # seconds, of a line
GLANCE: Final = 3.0  # seconds, of --once


@dataclass(frozen=True, slots=True)
class Wish:
    """How somebody wants to watch."""

    every: float
    once: bool
    plain: bool
    as_json: bool


@click.command(short_help="Watch a running service.")
@click.argument("url", metavar="[URL]", required=False)
@click.option("--level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True,
              help="The least level of the lines below.")  # fmt: skip
@click.option("--event", "events", multiple=True, metavar="NAME", help="Only lines of this event; may be repeated.")
@click.option("--route", "routes", multiple=True, metavar="PATH", help="Only lines about this route; may be repeated.")
@click.option("--email", metavar="ADDRESS", help="Log in as this administrator; the password is asked for.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A file with the token, instead of REGSVC_ADMIN_TOKEN.")  # fmt: skip
@click.option("--every", type=click.FloatRange(min=0.1, max=3600), metavar="SECONDS",
              help="How often it is drawn (1) or summed up (10); with --once: how long it looks (3).")  # fmt: skip
@click.option("--once", is_flag=True, help="Look for a moment, show that, and end; of standard input, look at all.")
@click.option("--plain", is_flag=True, help="A line now and then, as where there is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="The same for programs: a JSON object now and then.")
def watch(  # one parameter an option
    url: str | None,
    *,
    level: str,
    events: tuple[str, ...],
    routes: tuple[str, ...],
    email: str | None,
    token_file: Path | None,
    every: float | None,
    once: bool,
    plain: bool,
    as_json: bool,
) -> None:
    """Show how a service does: rates, percentiles, refusals, queues, and the lines of its log below.

    URL is its base address; without one it is the service that the settings of this folder describe. It is asked with
    REGSVC_ADMIN_TOKEN, or with an administrator's account. With - lines of a log are read from standard input; what
    only the service itself knows (queues, pool, workers) is missing then.

    \b
    Examples:
      regsvc watch
      regsvc watch https://accounts.example.org --email alice@example.org
      regsvc watch --level warning --event mail_dead --event http_request
      regsvc serve | regsvc watch -
      kubectl logs -f deploy/regsvc | regsvc watch - --plain
      regsvc watch --once --json | jq .per_s

    Exit statuses: 0 ended by Ctrl-C or by the end of the input, 1 refused, or no such service, 75 it cannot be reached.
    """
    from regsvc.cli.watch.state import Sieve, State

    _check(events)
    line_by_line = plain or as_json or once or not _on_terminal()
    usual = GLANCE if once else SUM_UP if line_by_line else REDRAW
    wish = Wish(every or usual, once, line_by_line, as_json)
    sieve = Sieve(level, events, routes)
    try:
        if url == "-":
            with _reading() as feed:
                _watch(State("standard input", sieve, link="reading"), feed, wish)
        else:
            remote = _remote(url, token_file, email)
            with _following(remote, level, wish) as feed:
                _watch(State(remote.url, sieve), feed, wish)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:  # nobody reads what we say any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(events: tuple[str, ...]) -> None:
    from difflib import get_close_matches

    from regsvc.observe import EVENTS

    for name in events:
        if name not in EVENTS:
            near = get_close_matches(name, EVENTS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see `regsvc events`"
            raise click.BadParameter(f"there is no event {name}; {hint}", param_hint="--event")


@contextmanager
def _reading() -> Iterator["Feed"]:
    from functools import partial

    from regsvc.cli.watch.feeds import Feed, read

    feed = Feed.of(partial(read, sys.stdin.buffer))
    try:
        yield feed
    finally:
        feed.stop.set()


@contextmanager
def _following(remote: "Remote", level: str, wish: Wish) -> Iterator["Feed"]:
    from functools import partial

    from regsvc.cli.watch.feeds import Feed, follow, poll

    # All requests are counted, whatever is shown: http_request is told at info.
    asked = "debug" if level == "debug" else "info"
    feed = Feed.of(partial(follow, remote, asked), partial(poll, remote, max(min(wish.every, 2.0), 0.5)))
    try:
        yield feed
    finally:
        feed.stop.set()
        remote.log_out()


def _remote(url: str | None, token_file: Path | None, email: str | None) -> "Remote":
    """Say whom to ask, and with what; whoever has no token is asked for a password."""
    from urllib.parse import urlsplit

    from regsvc.cli.watch.remote import Remote

    told = settings()
    if url is None:
        host = told.host if told.host not in {"0.0.0.0", "::", ""} else "127.0.0.1"  # noqa: S104 - read
        url = f"http://[{host}]:{told.port}" if ":" in host else f"http://{host}:{told.port}"
    url = url.rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise click.BadParameter(f"{url} is no web address: http(s)://host:port", param_hint="URL")
    if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        say(f"what is said to {url} goes there in clear")
    remote = Remote(url)
    if email is not None:
        _log_in(remote, email)
    else:
        remote.token = told.admin_token if token_file is None else _token(token_file)
        if remote.token is None:
            _log_in(remote, None)
    return remote


def _token(file: Path) -> "Secret":
    from regsvc.domain.values import Secret

    text = file.read_text("utf-8", "replace").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise click.BadParameter(f"{file} holds no token", param_hint="--token-file")
    return Secret(text)


def _log_in(remote: "Remote", email: str | None) -> None:
    from regsvc.cli.watch.remote import Away, Denied
    from regsvc.domain.values import Secret

    if not _typist():
        raise click.UsageError(
            "set REGSVC_ADMIN_TOKEN, or name a --token-file: there is no terminal to ask for a password"
        )
    address = email or click.prompt("E-mail of an administrator", err=True)
    password = Secret(click.prompt("Password", hide_input=True, err=True))
    try:
        remote.log_in(address, password)
    except (Denied, Away) as error:
        _give_up(error)


def _on_terminal() -> bool:
    """Tell whether there is a screen to draw on."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _typist() -> bool:
    """Tell whether there is somebody who could type a password."""
    return sys.stdin.isatty()


def _watch(state: "State", feed: "Feed", wish: Wish) -> None:
    if not wish.plain:
        _draw(state, feed, wish)
    elif not wish.once:
        _sum_up(state, feed, wish)
    else:
        _glance(state, feed, wish)
    if state.error is not None:
        _give_up(state.error)
    if state.foreign:
        say("none of these lines is of a log of regsvc: is REGSVC_LOG_FORMAT=json?")
        sys.exit(1)
    if wish.once or state.over:
        _show(state, wish)


def _glance(state: "State", feed: "Feed", wish: Wish) -> None:
    until = None if state.link == "reading" else time.monotonic() + wish.every
    while not state.over and (until is None or time.monotonic() < until):
        _hear(state, feed, until or time.monotonic() + wish.every)


def _sum_up(state: "State", feed: "Feed", wish: Wish) -> None:
    while not state.over:
        _hear(state, feed, time.monotonic() + wish.every)
        if not state.over:
            _show(state, wish)


def _show(state: "State", wish: Wish) -> None:
    from regsvc.cli.watch.screen import summary

    click.echo(json.dumps(state.as_json()) if wish.as_json else summary(state))


def _draw(state: "State", feed: "Feed", wish: Wish) -> None:
    from rich.console import Console
    from rich.live import Live

    from regsvc.cli.watch.screen import screen

    console = Console(highlight=False, markup=False, emoji=False)
    with Live(screen(state, console), console=console, screen=True, auto_refresh=False) as live:
        while not state.over:
            _hear(state, feed, time.monotonic() + wish.every)
            live.update(screen(state, console), refresh=True)


def _hear(state: "State", feed: "Feed", until: float) -> None:
    """Take in what comes until then, or until nothing more does."""
    from queue import Empty

    while not state.over and (left := until - time.monotonic()) > 0:
        with suppress(Empty):
            state.hear(feed.inbox.get(timeout=left))


def _give_up(error: Exception) -> None:
    from regsvc.cli.watch.remote import Away

    say(str(error))
    sys.exit(os.EX_TEMPFAIL if isinstance(error, Away) else 1)
