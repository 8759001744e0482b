"""Idempotency-Key at the front, of every POST: the same request again changes nothing, and is answered as before."""

import pytest
import trio
import trio.testing

from regsvc.http.table import routes
from regsvc.ports import Unavailable
from tests.http.doorstep import LEASE, Answer, Doorstep
from tests.http.stories import HOUR, STORIES, TABLE, Asking, asking, inside, state, told
from tests.lines import Lines


def test_every_post_takes_a_key_and_nothing_else_does() -> None:
    assert TABLE.keys() == STORIES.keys()
    for route in routes(development=True):
        named = {kind.name for kind in route.problems} & {"IdempotencyKeyInUse", "IdempotencyKeyReused"}
        assert len(named) == (2 if route.method == "POST" else 0)


@pytest.mark.parametrize("name", TABLE)
async def test_the_same_again_changes_nothing_and_is_answered_as_before(door: Doorstep, log: Lines, name: str) -> None:
    ask = await asking(door, name)
    before = state(door)
    first = await ask()
    assert first.status == ask.route.success.status, first.body
    assert "Idempotency-Replayed" not in first.headers
    after = state(door)
    assert after != before
    door.shelf.now += HOUR  # so that whatever is done anew is answered otherwise
    for path in ask.route.paths:
        again = await ask(path=path)
        assert told(again) == told(first)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    assert state(door) == after
    said = log.of("idempotency_replayed")
    assert [(line["route"], line["status"]) for line in said] == [(path, first.status) for path in ask.route.paths]
    assert door.counter.given_back == []
    assert set(door.counter.leases) == {LEASE}


@pytest.mark.parametrize("name", TABLE)
async def test_with_other_content_it_is_another_request(door: Doorstep, name: str) -> None:
    ask = await asking(door, name)
    first = await ask()
    after = state(door)
    (await ask(body={"other": "content"})).problem(422, "IdempotencyKeyReused")
    assert state(door) == after
    assert told(await ask()) == told(first)


@pytest.mark.parametrize("name", TABLE)
async def test_while_the_first_is_under_way_it_waits(door: Doorstep, name: str) -> None:
    ask = await asking(door, name)
    before, door.shelf.stall = state(door), trio.Event()
    answers: list[Answer] = []

    async def first() -> None:
        answers.append(await ask())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first, name="the first")
        await trio.testing.wait_all_tasks_blocked()
        waiting = await ask()
        if name not in {"staff_retry_mail", "staff_discard_mail"}:  # those lock nothing, and are done by now
            problem = waiting.problem(409, "IdempotencyKeyInUse")
            assert waiting.headers["Retry-After"] == str(problem["retry_after_seconds"]) == "1"
            assert state(door) == before
        door.shelf.stall.set()
    assert answers[0].status == ask.route.success.status
    assert told(await ask()) == told(answers[0])


@pytest.mark.parametrize("name", TABLE)
async def test_what_cannot_be_read_leaves_the_key_free(door: Doorstep, name: str) -> None:
    ask = await asking(door, name)
    if ask.route.body is None:
        assert (await ask(bearer=None)).status == 401
    else:
        assert (await ask(raw=b"{", body=None)).status in {400, 404}
    assert len(door.counter.given_back) == 1
    assert door.shelf.kept == {}
    assert (await ask()).status == ask.route.success.status


async def failing_at(door: Doorstep, n: int, ask: Asking) -> Answer:
    door.shelf.calls, door.shelf.fail_at = 0, n
    answer = await ask()
    door.shelf.fail_at = None
    return answer


@pytest.mark.parametrize(("name", "error"), [*((name, Unavailable) for name in TABLE), ("register", RuntimeError)])
async def test_an_outage_or_a_bug_anywhere_leaves_the_key_free(
    door: Doorstep, name: str, error: type[Exception]
) -> None:
    ask = await asking(door, name)
    before, n = state(door), 1
    door.shelf.error = error
    while (answer := await failing_at(door, n, ask)).status >= 500:
        assert door.shelf.kept == {}
        assert state(door) == before
        n += 1
    assert answer.status == ask.route.success.status
    assert n > 2
    assert told(await ask()) == told(answer)


@pytest.mark.parametrize("name", ["register", "logout", "refresh", "staff_retry_mail"])
async def test_without_a_key_it_is_done_each_time(door: Doorstep, name: str) -> None:
    ask = await asking(door, name)
    assert (await ask(None)).status == ask.route.success.status
    again = await ask(None)
    assert "Idempotency-Replayed" not in again.headers
    assert door.counter.leases == []
    assert door.shelf.kept == {}


async def test_other_methods_take_no_key(door: Doorstep) -> None:
    user = await inside(door)
    for _ in range(2):
        headers = {"Idempotency-Key": "not : a key"}
        answer = await door.ask("PATCH", "/v1/users/me", {"locale": "de"}, headers=headers, bearer=user["bearer"])
        assert answer.status == 200
    assert door.counter.leases == []
