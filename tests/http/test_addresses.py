"""The addresses of the table through the door: each is registered or refused as the table says, and none is a bug."""

import json
import re
from collections.abc import Iterator

import pytest

from regsvc.domain.account import DuplicatePolicy, Rules
from regsvc.observe import open_log
from tests.domain.decisions import DECISIONS, Decision
from tests.http.doorstep import PASSWORD, Doorstep
from tests.lines import Lines

CHUNK = 40
UNTEXT = re.compile("[\0\ud800-\udfff]")
CHUNKS = [DECISIONS[at : at + CHUNK] for at in range(0, len(DECISIONS), CHUNK)]


@pytest.fixture(autouse=True)
def log() -> Iterator[Lines]:
    lines = Lines()
    with open_log(lines, level="debug", fmt="json"):
        yield lines


@pytest.mark.parametrize("decided", CHUNKS, ids=lambda some: some[0].group)
async def test_each_is_registered_or_refused_as_the_table_says(decided: list[Decision], log: Lines) -> None:
    door = Doorstep(rules=Rules(duplicates=DuplicatePolicy.CLAIMS, limit_mails=False, claims_max=100))
    for decision in decided:
        answer = await door.register(decision.typed)
        if answer.status == 201:
            assert answer.json["email"] == decision.typed.strip().removesuffix("."), decision
            assert decision.key in door.shelf.addresses, decision
        elif answer.status == 422:
            [fault] = answer.json["errors"]
            assert (fault["field"], fault["code"]) == ("email", decision.code), decision
        else:  # what no text can hold
            assert answer.status == 400, decision
            assert UNTEXT.search(decision.typed), decision
        assert (decision.key in door.shelf.addresses) == (answer.status == 201), decision
    assert not log.of("http_bug")


@pytest.mark.parametrize("decided", CHUNKS, ids=lambda some: some[0].group)
async def test_each_is_asked_about_at_every_door_that_takes_one(decided: list[Decision], log: Lines) -> None:
    door = Doorstep()
    door.member("owner@example.com")
    bearer = (await door.login("owner@example.com"))["access_token"]
    for decision in decided:
        typed = decision.typed
        answers = [
            await door.ask("POST", "/v1/auth/login", {"email": typed, "password": PASSWORD}),
            await door.ask("POST", "/v1/auth/login", {"identifier": typed, "password": PASSWORD}),
            await door.ask("POST", "/v1/auth/forgot-password", {"email": typed}),
            await door.ask("POST", "/v1/auth/verify", {"email": typed, "code": "000000"}),
            await door.ask("POST", "/v1/users/me/email", {"new_email": typed, "password": PASSWORD}, bearer=bearer),
        ]
        if typed.isprintable():  # else it is nothing that Basic can say
            answers.append(await door.ask("POST", "/v1/users/resend-code", who=f"{typed}:{PASSWORD}"))
        assert max(answer.status for answer in answers) < 500, decision
        for answer in answers:
            assert answer.status < 400 or json.loads(answer.body)["status"] == answer.status, decision
    assert not log.of("http_bug")
