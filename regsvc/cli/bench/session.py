"""A run from its greeting to its result: is that a service, has it what the scenario needs, then the load."""

import json
import os
import platform
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import trio

from regsvc import __version__
from regsvc.cli.bench.codes import NO_LETTER, Codes
from regsvc.cli.bench.generator import Generator
from regsvc.cli.bench.lines import Lines
from regsvc.cli.bench.plan import Plan
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.run import Run
from regsvc.cli.bench.scenarios import CODE, ORDER, Account, Person, Place, activate, journey
from regsvc.cli.bench.target import Cannot, Target
from regsvc.cli.bench.verdict import LIFT, warnings
from regsvc.cli.bench.wire import Answer, NotHttp, connect, request
from regsvc.observe.lines import Clock
from regsvc.settings import cores

GREETING: Final = 5.0  # seconds that the first answers may take
READ_CODES: Final = frozenset(("activate", "login", "mixed"))
NEED_ACCOUNTS: Final = frozenset(("login", "mixed"))
Tell = Callable[[Generator], None]


async def measure(plan: Plan, to: Target, tell: Tell | None = None) -> Run | None:
    """Make a run; None if it was interrupted before anything was counted. `tell` is called each second.

    Ctrl-C and SIGTERM end it early, with what was counted until then. Raises Cannot.
    """
    version = await _greet(to, plan)
    recorder = Recorder.of(plan)
    mark, password = f"bench-{secrets.token_hex(4)}-", secrets.token_urlsafe(15)
    place = Place(plan, to, Lines(to, plan.connections, recorder), recorder, mark, password)
    if plan.scenario in READ_CODES:
        place.codes = Codes(to, mark)
        await place.codes.begin()
    generator = Generator(place, journey(to, plan))
    began, stop, refused = Clock().stamp(time.time_ns()), trio.CancelScope(), None
    async with trio.open_nursery() as beside:
        await beside.start(_watch_signals, stop, name="signals")
        if place.codes is not None:
            beside.start_soon(place.codes.hand_out, name="mailbox")
        with stop:
            refused = await _open_accounts(place) if plan.scenario in NEED_ACCOUNTS else None
            if refused is None:
                if tell is not None:
                    beside.start_soon(_telling, tell, generator, name="progress")
                await generator.run()
        beside.cancel_scope.cancel(reason="the run is over")
    place.lines.close()
    if refused is not None:
        raise refused
    if not generator.seconds:
        return None
    return _run(place, generator, version, began, interrupted=stop.cancelled_caught)


async def _watch_signals(
    stop: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            stop.cancel(reason=f"{signal.Signals(number).name} came")


async def _telling(tell: Tell, generator: Generator) -> None:
    while True:
        await trio.sleep(1.0)
        tell(generator)


async def _greet(to: Target, plan: Plan) -> str:
    """Ask for what the run is about to ask for; return the version that the service says it has."""
    alive = await _asked(to, "/livez")
    if alive.status != 200:
        raise Cannot(f"{to.url} answers {alive.status} to /livez: is that the address of the service?", 1)
    if plan.scenario in {"light", "mixed"}:
        answer = await _asked(to, plan.path)
        if answer.status == 429:
            raise Cannot(f"{to.url} answers 429 to {plan.path}: its limits are on. {LIFT}", 1)
        if answer.status >= 400:
            raise Cannot(f"{to.url} answers {answer.status} to {plan.path}: that would measure refusals", 1)
    health = await _asked(to, "/v1/health")
    try:
        return str(json.loads(health.body)["version"])
    except (ValueError, KeyError, TypeError):
        return "?"


async def _asked(to: Target, path: str) -> Answer:
    answer: Answer | None = None
    try:
        with trio.move_on_after(GREETING):
            line = await connect(to)
            try:
                answer = await line.ask(request(to, "GET", path))
            finally:
                line.close()
    except ConnectionRefusedError as why:
        raise Cannot(f"nothing listens at {to.url}", os.EX_TEMPFAIL) from why
    except NotHttp as why:
        raise Cannot(f"{to.url} does not speak HTTP/1.1: {why}", 1) from why
    except trio.BrokenResourceError as why:
        raise Cannot(f"{to.url}: TLS fails: {why.__cause__ or why}", 1) from why
    except OSError as why:
        raise Cannot(f"{to.url} cannot be reached: {why.strerror or why}", os.EX_TEMPFAIL) from why
    if answer is None:
        raise Cannot(f"{to.url} said nothing to {path} for {GREETING:g} s", os.EX_TEMPFAIL)
    return answer


async def _open_accounts(place: Place) -> Cannot | None:
    """Register and activate those who will log in; return why not, where they cannot."""
    made: list[Account] = []
    failed: list[Person] = []
    # Nothing of it is measured: their times are those of a warm-up.
    place.recorder.since = float("inf")

    async def sign_up(number: int) -> None:
        person = Person(place, -1 - number, trio.current_time())
        if await activate(person):
            made.append(Account(person.email, place.password))
        else:
            failed.append(person)

    async with trio.open_nursery() as people:
        for number in range(place.plan.accounts):
            people.start_soon(sign_up, number, name="sign up")
    place.accounts = made
    if not failed:
        return None
    if place.limited:
        return Cannot(f"{place.to.url} answers 429: its limits are on. {LIFT}", 1)
    step, outcome = failed[0].last
    if step == CODE:
        return NO_LETTER
    return Cannot(f"{step} of somebody who could log in: {place.to.url} answers {outcome}", 1)


def _place(step: str) -> int:
    """Return where a step stands among others: as they follow each other, what is light first."""
    return ORDER.index(step) if step in ORDER else -1


def _run(place: Place, generator: Generator, version: str, began: str, *, interrupted: bool) -> Run:
    recorder, seconds = place.recorder, generator.seconds
    run = Run(
        url=place.to.url,
        service=version,
        tool=__version__,
        host=f"{platform.system()} {platform.machine()}, {cores()} cores, Python {platform.python_version()}",
        began=began,
        plan=place.plan,
        seconds=round(seconds, 3),
        interrupted=interrupted,
        offered=recorder.offered,
        finished=recorder.finished,
        unfinished=recorder.offered - recorder.finished,
        answered_per_s=round(recorder.in_time / seconds, 3),
        good_per_s=round(recorder.good / seconds, 3),
        busy=round(generator.busy, 3),
        late=recorder.late,
        waited=recorder.waited,
        steps={step: recorder.steps[step] for step in sorted(recorder.steps, key=_place)},
        timeline=recorder.timeline(seconds),
    )
    return replace(run, warnings=warnings(run))
