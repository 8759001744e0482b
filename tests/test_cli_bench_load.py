"""`regsvc bench`: when people come, and what is seen of a service that stalls."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from regsvc.cli.bench import scenarios
from regsvc.cli.bench.alarm import Wait, open_alarm
from regsvc.cli.bench.codes import Codes
from regsvc.cli.bench.generator import Generator
from regsvc.cli.bench.lines import Lines
from regsvc.cli.bench.plan import Plan
from regsvc.cli.bench.record import Recorder
from regsvc.cli.bench.scenarios import MIX, Account, Person, Place, journey, register
from regsvc.cli.bench.target import Target, target
from regsvc.cli.bench.wire import Answer, NotHttp
from tests.benching import CODE, faking, plan

TO = Target("http://127.0.0.1:1", "127.0.0.1:1", "", 2, ("127.0.0.1", 1))  # type: ignore[arg-type]  # nobody is asked


@contextmanager
def by_the_clock() -> Iterator[Wait]:
    """Wait by Trio's clock, which the tests turn; the kernel's timers know nothing of it."""
    yield trio.sleep_until


class Counter:
    """A service with one clerk: each answer takes `each`, and from `stall[0]` to `stall[1]` there is none."""

    def __init__(self, each: float, stall: tuple[float, float] = (0.0, 0.0)) -> None:
        self.clerk, self.each, self.stall = trio.Lock(), each, stall
        self.asked = 0

    async def ask(self, _request: bytes) -> Answer:
        self.asked += 1
        async with self.clerk:
            await trio.sleep(self.each)
            now = trio.current_time() - START.at
            if self.stall[0] <= now < self.stall[1]:
                await trio.sleep(self.stall[1] - now)
        return Answer(200, b"", b"")

    def close(self) -> None:
        return


class START:
    """When a test began, by its clock."""

    at = 0.0


def generator(of: Plan, lines: object, visit: Callable[[Person], Awaitable[None]] | None = None) -> Generator:
    START.at = trio.current_time() + 0.1  # the generator's head start
    recorder = Recorder.of(of)
    place = Place(of, TO, lines, recorder, "mark", "a password")  # type: ignore[arg-type]
    return Generator(place, visit or journey(TO, of), alarm=by_the_clock)


def times(found: Generator) -> list[float]:
    (by_outcome,) = found.place.recorder.steps.values()
    (only,) = by_outcome.values()
    return [only.quantile(share) for share in (0.5, 0.9, 0.99)]


async def test_a_stall_is_seen_by_all_who_would_have_come(autojump_clock: trio.testing.MockClock) -> None:
    found = generator(plan(), Counter(0.01, stall=(4.0, 6.0)))
    await found.run()
    assert (found.place.recorder.offered, found.place.recorder.finished) == (500, 500)
    assert found.seconds == pytest.approx(10)
    # 100 came meanwhile, and another 100 until the clerk had caught up: of 500 the slowest 50 waited over 1.5 s.
    p50, p90, p99 = times(found)
    assert p50 == pytest.approx(0.01, rel=0.01)
    assert p90 == pytest.approx(1.5, rel=0.02)
    assert p99 == pytest.approx(1.95, rel=0.02)


async def test_a_closed_loop_does_not_see_it(autojump_clock: trio.testing.MockClock) -> None:
    found = generator(plan(rate=None), Counter(0.01, stall=(4.0, 6.0)))
    await found.run()
    assert times(found) == pytest.approx([0.04] * 3, rel=0.3)
    assert found.place.recorder.in_time == pytest.approx(800, abs=5)


async def test_what_is_due_while_nothing_can_run_is_late_and_says_so(autojump_clock: trio.testing.MockClock) -> None:
    clock, counter = autojump_clock, Counter(0.0)

    async def visit(person: Person) -> None:
        if person.number == 100:
            clock.jump(1.0)  # the machine was busy with something else
        await person.send("x", b"")

    found = generator(plan(), counter, visit)
    await found.run()
    recorder = found.place.recorder
    assert recorder.offered == 500
    assert recorder.late.above(0.01) == pytest.approx(50, abs=2)
    assert times(found)[2] > 0.9  # it is in the times too


async def test_the_warm_up_is_not_counted(autojump_clock: trio.testing.MockClock) -> None:
    counter = Counter(0.0)
    found = generator(plan(warm_up=5.0), counter)
    await found.run()
    assert (counter.asked, found.place.recorder.offered) == (750, 500)
    assert found.seconds == pytest.approx(10)


async def test_who_gets_no_answer_in_time_is_waited_for_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    found = generator(plan(rate=1.0, timeout=3.0), Counter(100.0))
    await found.run()
    (by_outcome,) = found.place.recorder.steps.values()
    assert {outcome: one.count for outcome, one in by_outcome.items()} == {"timeout": 10}
    assert by_outcome["timeout"].quantile(1.0) == pytest.approx(3, rel=0.01)
    assert trio.current_time() - began == pytest.approx(12.1, abs=0.1)


async def test_it_can_be_stopped_at_any_time(autojump_clock: trio.testing.MockClock) -> None:
    found = generator(plan(), Counter(0.5))
    with trio.move_on_after(4.1):
        await found.run()
    recorder = found.place.recorder
    assert found.seconds == pytest.approx(4, abs=0.01)
    assert recorder.offered == pytest.approx(200, abs=1)
    assert recorder.finished == pytest.approx(8, abs=1)
    early = generator(plan(warm_up=9.0), Counter(0.5))
    with trio.move_on_after(4.1):
        await early.run()
    assert early.seconds == 0
    assert generator(plan(), Counter(0.5)).seconds == 0


async def test_a_closed_loop_does_not_spin_where_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    class Nobody(Counter):
        async def ask(self, _request: bytes) -> Answer:
            await trio.lowlevel.checkpoint()
            self.asked += 1
            raise ConnectionRefusedError

    nobody = Nobody(0.0)
    found = generator(plan(rate=None), nobody)
    await found.run()
    assert nobody.asked == pytest.approx(4 * 100, abs=8)


async def test_the_alarm_is_on_time_and_never_early() -> None:
    with open_alarm() as wait:
        ours = await lateness(wait)
        await wait(trio.current_time() - 1)
    assert min(ours) >= -1e-6
    assert min(ours) < min(await lateness(trio.sleep_until)), "epoll alone is late by 0.8 ms, each time"


async def lateness(wait: Callable[[float], Awaitable[None]]) -> list[float]:
    late = []
    for _ in range(40):
        due = trio.current_time() + 0.0002
        await wait(due)
        late.append(trio.current_time() - due)
    return late


@pytest.mark.parametrize("how", ["elsewhere", "none left"])
def test_without_such_a_timer_the_loop_s_own_will_do(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "elsewhere":
        monkeypatch.setattr("sys.platform", "darwin")
    else:
        monkeypatch.setattr("regsvc.cli.bench.alarm.TFD_FLAGS", -1)  # what the kernel refuses
    with open_alarm() as wait:
        assert wait is trio.sleep_until


# ----------------------------------------------------------------------------------------- what people do


@asynccontextmanager
async def against(scenario: str, *, patience: float = 20.0, **how: Any) -> AsyncIterator[tuple[Any, Place]]:
    """Open a place at a fake service, for people to be sent one by one."""
    with faking(**how) as fake:
        of = plan(scenario=scenario, timeout=patience, forwarded=how.get("forwarded", False))
        to = target(fake.url, mine=False)
        recorder = Recorder.of(of)
        recorder.until = float("inf")
        place = Place(of, to, Lines(to, 4, recorder), recorder, "mark", "a password", Codes(to, "mark"))
        place.accounts = [Account("a@example.test", "x"), Account("b@example.test", "y")]
        assert place.codes is not None
        await place.codes.begin()
        try:
            async with trio.open_nursery() as beside:
                beside.start_soon(place.codes.hand_out, name="mailbox")
                yield fake, place
                beside.cancel_scope.cancel(reason="the test is over")
        finally:
            place.lines.close()


def done(place: Place) -> dict[str, list[str]]:
    return {step: [*by_outcome] for step, by_outcome in place.recorder.steps.items()}


ALL = ["register", "code in the mailbox", "activate", "activate, all of it"]


@pytest.mark.parametrize(
    ("scenario", "steps"),
    [
        ("light", ["GET /livez"]),
        ("register", ["register"]),
        ("activate", ALL),
        ("login", ["login", "me", "refresh", "login, all of it"]),
    ],
)
async def test_each_scenario_does_what_it_says(scenario: str, steps: list[str]) -> None:
    async with against(scenario) as (_, place):
        await journey(place.to, place.plan)(Person(place, 7, trio.current_time()))
        assert [*done(place)] == steps
        assert all(outcomes[0] in {"200", "201", "done"} for outcomes in done(place).values())


async def test_mixed_is_mixed_and_the_same_each_time() -> None:
    async with against("mixed") as (_, place):
        for _ in range(2):
            visit = journey(place.to, place.plan)
            async with trio.open_nursery() as people:
                for number in range(60):
                    people.start_soon(visit, Person(place, number, trio.current_time()), name="person")
        counts = {step: sum(one.count for one in found.values()) for step, found in place.recorder.steps.items()}
        assert set(counts) == {"GET /livez", "login", "me", "refresh", "login, all of it", *ALL}
        assert all(count % 2 == 0 for count in counts.values())
        assert counts["GET /livez"] == pytest.approx(120 * MIX["light"] / 100, abs=20)


@pytest.mark.parametrize(
    ("scenario", "path", "status", "steps"),
    [
        ("activate", "/v1/users/register", 503, ["register"]),
        ("activate", "/v1/users/activate", 400, ALL[:3]),
        ("login", "/v1/auth/login", 401, ["login"]),
        ("login", "/v1/users/me", 500, ["login", "me"]),
        ("login", "/v1/auth/refresh", 401, ["login", "me", "refresh"]),
        ("light", "/livez", 429, ["GET /livez"]),
    ],
)
async def test_who_is_refused_goes_no_further(scenario: str, path: str, status: int, steps: list[str]) -> None:
    async with against(scenario, instead={path: lambda: (status, {})}) as (_, place):
        await journey(place.to, place.plan)(Person(place, 7, trio.current_time()))
        assert [*done(place)] == steps
        assert done(place)[steps[-1]] == [str(status)]
        assert place.limited == (status == 429)


@pytest.mark.parametrize(("said", "steps"), [({"access_token": "x"}, ["login", "me"]), ({}, ["login", "me"])])
async def test_a_refresh_token_that_is_in_a_cookie_is_left_there(said: dict[str, str], steps: list[str]) -> None:
    async with against("login", instead={"/v1/auth/login": lambda: (200, said)}) as (_, place):
        await journey(place.to, place.plan)(Person(place, 7, trio.current_time()))
        assert [*done(place)] == steps


async def test_who_hangs_up_is_no_answer() -> None:
    async with against("light", instead={"/livez": lambda: None}) as (_, place):
        person = Person(place, 7, trio.current_time())
        await journey(place.to, place.plan)(person)
        assert done(place) == {"GET /livez": ["hung up"]}
        assert person.lost


async def test_a_letter_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async with against("activate", letters=False, patience=1.0) as (_, place):
        await journey(place.to, place.plan)(Person(place, 7, trio.current_time()))
        assert done(place) == {"register": ["201"], "code in the mailbox": ["timeout"]}


async def test_many_letters_are_found_and_a_mailbox_that_fails_is_asked_again() -> None:
    failing: list[Any] = [(503, {}), (200, {}), None]
    async with against("activate") as (fake, place):
        said = fake.instead
        async with trio.open_nursery() as people:
            for number in range(40):  # of whom each has two letters: more than a page
                people.start_soon(journey(place.to, place.plan), Person(place, number, trio.current_time()), name="one")

        def odd() -> Any:
            answer = failing.pop()
            if not failing:
                del said["/dev/mail/messages"]
            return answer

        said["/dev/mail/messages"] = odd
        await journey(place.to, place.plan)(Person(place, 99, trio.current_time()))
        assert done(place)["activate, all of it"] == ["done"]
        assert place.recorder.steps["activate, all of it"]["done"].count == 41
        assert CODE not in str(place)


async def test_people_may_come_from_everywhere() -> None:
    async with against("light") as (fake, place):
        for scenario in ("light", "register"):
            place.plan = plan(scenario=scenario, forwarded=True)
            await journey(place.to, place.plan)(Person(place, 259, trio.current_time()))
        told = [headers.get("X-Forwarded-For") for headers in fake.headers if "mail" not in headers["path"]]
        assert told == ["10.0.1.3", "10.0.1.3"]


async def test_a_letter_may_come_before_anybody_waits_for_it() -> None:
    async with against("activate", patience=2.0) as (_, place):
        early, late = (Person(place, number, trio.current_time()) for number in (1, 2))
        assert await register(early)
        await journey(place.to, place.plan)(late)  # reads the mailbox up to the end
        assert await early.code(early.email) == CODE
        assert await late.code(late.email) is None  # it was his, and is used


@pytest.mark.parametrize(
    ("why", "word"),
    [
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError(), "reset"),
        (NotHttp(), "not HTTP"),
        (trio.BrokenResourceError(), "broken"),
        (OSError(24, "Too many open files"), "no connection"),
    ],
)
async def test_what_came_instead_of_an_answer_is_a_word(why: Exception, word: str) -> None:
    class Failing(Counter):
        async def ask(self, _request: bytes) -> Answer:
            await trio.lowlevel.checkpoint()
            raise why

    found = generator(plan(), Failing(0.0))
    found.place.recorder.until = float("inf")
    person = Person(found.place, 1, trio.current_time())
    await found.journey(person)
    assert person.last == ("GET /livez", word)


@pytest.mark.parametrize("said", [[], "no token"])
async def test_what_is_no_token_opens_nothing(said: Any) -> None:
    instead = {"/v1/auth/login": lambda: (200, said), "/v1/users/me": lambda: (401, {})}
    async with against("login", instead=instead) as (_, place):
        await journey(place.to, place.plan)(Person(place, 1, trio.current_time()))
        assert done(place) == {"login": ["200"], "me": ["401"]}
    assert scenarios._object(b"<html>") == {}


async def test_a_letter_that_was_made_earlier_and_comes_later_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regsvc.cli.bench.codes.EVERY", 0.01)
    async with against("activate") as (fake, place):
        early, late = (Person(place, number, trio.current_time()) for number in (1, 2))
        assert await register(early)
        held = [fake._mails.pop(0), fake._mails.pop(0)]
        assert await register(late)
        for number, mail in enumerate(fake._mails, 2):
            mail["id"] = f"{number:08}"
        assert await late.code(late.email) == CODE
        fake._mails[:0] = held
        assert await early.code(early.email) == CODE
        for number in range(3, 23):  # and what was read long ago is not kept in mind
            assert await register(person := Person(place, number, trio.current_time()))
            assert await person.code(person.email) == CODE
            await trio.sleep(0.03)
        assert place.codes is not None
        assert len(place.codes._known) < 30
