"""What those do who come: a request, or a few, each as soon as the one before it is answered."""

import base64
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from regsvc.cli.bench.codes import Codes
from regsvc.cli.bench.lines import Lines
from regsvc.cli.bench.plan import Plan
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.run import DONE
from regsvc.cli.bench.target import Target
from regsvc.cli.bench.wire import Answer, HungUp, NotHttp, request

DOMAIN: Final = "example.test"  # RFC 2606: no letter to it leaves the house by mistake
ACTIVATION: Final = "activate, all of it"
LOGIN: Final = "login, all of it"
CODE: Final = "code in the mailbox"
MIX: Final = {"light": 80, "login": 15, "activate": 5}  # of 100 who come
MIXED: Final = 10_000  # who come, before they do as those before them; thrown beforehand, for tasks run in any order
ORDER: Final = ("register", CODE, "activate", ACTIVATION, "login", "me", "refresh", LOGIN)  # as they follow each other
Journey = Callable[["Person"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who can log in."""

    email: str
    password: str = field(repr=False)


@dataclass(slots=True)
class Place:
    """What all who come have in common. Addresses begin with `mark`, which is of this run alone."""

    plan: Plan
    to: Target
    lines: Lines
    recorder: Recorder
    mark: str
    password: str = field(repr=False)
    codes: Codes | None = None
    accounts: Sequence[Account] = ()
    limited: bool = False  # a 429 was met


@dataclass(slots=True)
class Person:
    """Somebody who comes: `number` is his own, `ready` the time from which on the next step's time counts.

    `last`: his last step and its outcome.
    """

    place: Place
    number: int
    ready: float
    last: tuple[str, str] = ("", "")

    async def ask(
        self, step: str, method: str, path: str, form: Mapping[str, Any] | None = None, *headers: tuple[str, str]
    ) -> Answer | None:
        """Send a request; None where no answer came, in time or at all."""
        body = None if form is None else json.dumps(form).encode()
        if self.place.plan.forwarded:
            headers = (*headers, ("X-Forwarded-For", self.address))
        return await self.send(step, request(self.place.to, method, path, body, *headers))

    async def send(self, step: str, written: bytes) -> Answer | None:
        """Send a request that is written already, and take down how it went."""
        place, answer, outcome = self.place, None, "timeout"
        with trio.CancelScope(deadline=self.ready + place.plan.timeout):
            try:
                answer = await place.lines.ask(written)
                outcome = str(answer.status)
            except (OSError, trio.BrokenResourceError, NotHttp) as why:
                outcome = _word(why)
        now = trio.current_time()
        place.recorder.step(step, self.ready, now, outcome)
        if outcome == "429":
            place.limited = True
        self.ready, self.last = now, (step, outcome)
        return answer

    async def code(self, email: str) -> str | None:
        """Wait for a code; None if it does not come in time."""
        assert self.place.codes is not None  # noqa: S101 - what reads codes was opened with the scenario
        found: str | None = None
        with trio.CancelScope(deadline=self.ready + self.place.plan.timeout):
            found = await self.place.codes.wait(email)
        now = trio.current_time()
        outcome = DONE if found else "timeout"
        self.place.recorder.step(CODE, self.ready, now, outcome, answer=False)
        self.ready, self.last = now, (CODE, outcome)
        return found

    @property
    def lost(self) -> bool:
        """Whether his last request had no answer."""
        return not self.last[1][:1].isdigit()

    @property
    def email(self) -> str:
        """His address, which nobody else has."""
        return f"{self.place.mark}{self.number}@{DOMAIN}"

    @property
    def address(self) -> str:
        """An address of the network that nobody else comes from, for a while."""
        return "10." + ".".join(str(self.number >> shift & 255) for shift in (16, 8, 0))


async def register(person: Person) -> bool:
    """Register; False: it was refused."""
    form = {"email": person.email, "password": person.place.password}
    answer = await person.ask("register", "POST", "/v1/users/register", form)
    return answer is not None and answer.status == 201


async def _register(person: Person) -> None:
    await register(person)


async def activate(person: Person) -> bool:
    """Register, read the code, activate; False: that was refused at some point."""
    due = person.ready
    if not await register(person) or (code := await person.code(person.email)) is None:
        return False
    proof = base64.b64encode(f"{person.email}:{person.place.password}".encode()).decode()
    who = ("Authorization", f"Basic {proof}")
    answer = await person.ask("activate", "POST", "/v1/users/activate", {"code": code}, who)
    if answer is None or answer.status != 200:
        return False
    person.place.recorder.step(ACTIVATION, due, person.ready, DONE, answer=False)
    return True


async def _activate(person: Person) -> None:
    await activate(person)


async def login(person: Person) -> None:
    """Log in, ask who one is, exchange the tokens. The accounts take turns."""
    due, accounts = person.ready, person.place.accounts
    account = accounts[person.number % len(accounts)]
    form = {"email": account.email, "password": account.password}
    answer = await person.ask("login", "POST", "/v1/auth/login", form)
    if answer is None or answer.status != 200:
        return
    tokens = _object(answer.body)
    bearer = ("Authorization", f"Bearer {tokens.get('access_token')}")
    answer = await person.ask("me", "GET", "/v1/users/me", None, bearer)
    if answer is None or answer.status != 200 or "refresh_token" not in tokens:  # in a cookie: REGSVC_COOKIES
        return
    answer = await person.ask("refresh", "POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    if answer is not None and answer.status == 200:
        person.place.recorder.step(LOGIN, due, person.ready, DONE, answer=False)


def light(to: Target, plan: Plan) -> Journey:
    """Return a journey of one GET, which is written once."""
    step, written = f"GET {plan.path}", request(to, "GET", plan.path)

    async def look(person: Person) -> None:
        if plan.forwarded:
            await person.ask(step, "GET", plan.path)
        else:
            await person.send(step, written)

    return look


def mixed(to: Target, plan: Plan) -> Journey:
    """Return a journey that is one of the others, as the dice of the plan's seed say."""
    dice = random.Random(f"mix {plan.seed}")  # noqa: S311 - nothing secret
    journeys = {"light": light(to, plan), "login": login, "activate": _activate}
    thrown = dice.choices([*MIX], [*MIX.values()], k=MIXED)

    async def any_of_them(person: Person) -> None:
        await journeys[thrown[person.number % MIXED]](person)

    return any_of_them


def journey(to: Target, plan: Plan) -> Journey:
    """Return what each who comes does."""
    match plan.scenario:
        case "register":
            return _register
        case "activate":
            return _activate
        case "login":
            return login
        case "light":
            return light(to, plan)
        case _:
            return mixed(to, plan)


def _object(body: bytes) -> Mapping[str, Any]:
    """Read a JSON object; what is none is an empty one."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _word(why: Exception) -> str:
    """Return what came instead of an answer, in a word."""
    match why:
        case ConnectionRefusedError():
            return "refused"
        case HungUp():
            return "hung up"
        case ConnectionResetError() | BrokenPipeError():
            return "reset"
        case NotHttp():
            return "not HTTP"
        case trio.BrokenResourceError():
            return "broken"
        case _:
            return "no connection"
