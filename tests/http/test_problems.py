"""The table of problems is total, each has its page, and each is written as RFC 9457 has it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from regsvc.domain.refusals import Refusal, Refused
from regsvc.http import kinds
from regsvc.http.problems import REFUSALS, Dialect, Writer, headers, tell, told
from regsvc.http.protection import AtTheDoor, Protection
from tests.http.doorstep import URL, Doorstep

WRITER = Writer(URL)
AT_THE_DOOR = AtTheDoor(WRITER, Protection.of(URL))
KINDS = list(kinds.KINDS.values())


def test_every_refusal_has_its_problem() -> None:
    assert set(REFUSALS) == set(Refusal)
    assert all(problem.why == refusal.value for refusal, problem in REFUSALS.items())
    assert {problem.kind.name for problem in REFUSALS.values()} <= set(kinds.KINDS)


@pytest.mark.parametrize("refusal", Refusal, ids=lambda refusal: refusal.value)
def test_what_a_refusal_carries_is_told(refusal: Refusal) -> None:
    at = datetime(2026, 11, 20, 12, 30, 15, 999_999, UTC)
    problem = told(Refused(refusal, attempts_left=3, retry_after=timedelta(seconds=1.001), resend_available_at=at))
    written = json.loads(WRITER.body(problem, "r-1"))
    assert written["attempts_left"] == 3
    assert written["retry_after_seconds"] == 2
    assert written["resend_available_at"] == "2026-11-20T12:30:15.999Z"
    assert headers(problem)["Retry-After"] == "2"
    assert written["status"] == problem.kind.status


def test_what_a_refusal_does_not_carry_is_left_out() -> None:
    written = json.loads(WRITER.body(told(Refused(Refusal.USER_ALREADY_ACTIVATED)), "r-1"))
    assert list(written) == ["type", "title", "status", "detail", "instance", "error", "message"]
    assert written["type"] == f"{URL}/problems/user-already-activated"
    assert (written["instance"], written["detail"]) == ("r-1", written["message"])


@pytest.mark.parametrize("seconds", [-5, 0, 0.2])
def test_nobody_is_told_to_wait_for_less_than_a_second(seconds: float) -> None:
    problem = told(Refused(Refusal.RESEND_TOO_SOON, retry_after=timedelta(seconds=seconds)))
    assert problem.retry_after_seconds == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_problem_has_a_page_at_its_type(door: Doorstep, kind: kinds.Kind) -> None:
    page = await door.ask("GET", json.loads(WRITER.body(tell(kind), "x"))["type"].removeprefix(URL))
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    assert kind.name in text
    assert "`" not in text
    assert "What to do" in text
    assert f'<span class="status s{kind.status // 100}">{kind.status}</span>' in text
    index = (await door.ask("GET", "/problems")).body.decode()
    assert f'href="/problems/{kind.slug}"' in index


def test_names_and_slugs_are_unique() -> None:
    assert len({kind.slug for kind in KINDS}) == len({kind.word for kind in KINDS}) == len(KINDS)
    assert kinds.KINDS["UserAlreadyExists"].slug == "user-already-exists"
    assert kinds.KINDS["UserAlreadyExists"].word == "user_already_exists"


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "MalformedRequest", "MalformedRequest"),
        (408, "RequestTimeout", "RequestTimeout"),
        (413, "PayloadTooLarge", "PayloadTooLarge"),
        (431, "HeadersTooLarge", "HeadersTooLarge"),
        (500, "InternalError", "InternalError"),
        (503, "Overloaded", "Overloaded"),
        (418, "Teapot", "MalformedRequest"),
        (599, "Unheard", "InternalError"),
    ],
)
def test_the_server_words_its_own_refusals_alike(status: int, name: str, kind: str) -> None:
    head, body = AT_THE_DOOR(status, name, "Why.", "", ())
    found = json.loads(body)
    assert (found["error"], found["detail"]) == (kind, "Why.")
    names = dict(head)
    assert names[b"content-type"] == b"application/problem+json"
    assert names[b"cache-control"] == b"no-store"
    assert names[b"x-content-type-options"] == b"nosniff"
    assert names[b"x-request-id"].decode() == found["instance"]
    assert (b"retry-after" in names) == (kind == "Overloaded")
    _, legacy = AT_THE_DOOR(status, name, "Why.", "/api/v1/auth/login", ())
    assert json.loads(legacy)["detail"] == {"error": kind, "message": "Why."}


def test_the_legacy_dialect_changes_detail_only() -> None:
    problem = told(Refused(Refusal.ACTIVATION_CODE_EXPIRED))
    plain, legacy = (json.loads(WRITER.body(problem, "x", dialect)) for dialect in Dialect)
    assert legacy.pop("detail") == {"error": plain["error"], "message": plain.pop("detail"), "hint": plain["hint"]}
    assert plain == legacy
