"""The document is the truth: valid, complete, and held to the routes, the models and the examples."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from regsvc.domain.values import PasswordRules
from regsvc.http import kinds
from regsvc.http.app import Knobs, describe
from regsvc.http.front import Front
from regsvc.http.table import routes
from regsvc.http.table.account import ACCOUNT
from tests.http.doorstep import EMAIL, PASSWORD, URL, Doorstep

Json = dict[str, Any]
KNOBS = Knobs(URL + "/", code_digits=6, passwords=PasswordRules(shortest=10, longest=64))

# 20-api, "Register, activate": what each route can answer.
STATUSES = {
    ("post", "/v1/users/register"): {201, 400, 409, 422, 429, 503},
    ("post", "/v1/users/activate"): {200, 400, 401, 409, 410, 422, 429},
    ("post", "/v1/users/resend-code"): {202, 401, 409, 429},
    ("get", "/v1/users/registration"): {200, 401},
}
NAMES = {
    "register": {"MalformedRequest", "UserAlreadyExists", "ValidationError", "WeakPassword", "InvalidEmail"},
    "activate": {"InvalidActivationCode", "InvalidCredentials", "UserAlreadyActivated", "ActivationCodeExpired"},
    "resend": {"InvalidCredentials", "UserAlreadyActivated", "ResendTooSoon"},
    "standing": {"InvalidCredentials"},
}  # fmt: skip


@pytest.fixture(scope="module")
def document() -> Json:
    found: Json = json.loads(describe(KNOBS, mailbox=True))
    return found


def operations(document: Json) -> list[tuple[str, str, Json]]:
    return [(method, path, it) for path, item in document["paths"].items() for method, it in item.items()]


def checker(document: Json, schema: Json) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]}, format_checker=FormatChecker())


def test_it_is_valid_openapi_3_1(document: Json) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": URL}]


def test_it_has_every_route_and_no_other(document: Json) -> None:
    described = {(path, method) for method, path, _ in operations(document)}
    app = Doorstep().app
    assert isinstance(app, Front)
    answered = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == answered
    assert described == {(path, route.method.lower()) for route in routes(development=True) for path in route.paths}


def test_the_mailbox_is_not_in_production() -> None:
    found: Json = json.loads(describe(KNOBS, mailbox=False))
    assert not [path for path in found["paths"] if "/dev/" in path or "messages" in path]
    OpenAPIV31SpecValidator(found).validate()


async def test_the_mailbox_does_not_answer_in_production() -> None:
    door = Doorstep(mailbox=None)
    for path in ("/dev/mail", "/dev/mail/events", "/api/v2/messages", "/api/v1/messages"):
        (await door.ask("GET", path)).problem(404, "NotFound")


def test_every_status_of_the_contract_is_there(document: Json) -> None:
    for (method, path), statuses in STATUSES.items():
        described = {int(status) for status in document["paths"][path][method]["responses"]}
        assert statuses <= described
        assert described <= statuses | {400, 408, 409, 413, 415, 422, 500, 503}


@pytest.mark.parametrize("route", ACCOUNT, ids=lambda route: route.name)
def test_every_problem_of_the_contract_has_an_example_at_every_path(document: Json, route: Any) -> None:
    for path in route.paths:
        responses = document["paths"][path][route.method.lower()]["responses"]
        found = {
            name
            for response in responses.values()
            for name in response["content"].get("application/problem+json", {}).get("examples", {})
        }
        assert NAMES[route.name] | {"InternalError", "Overloaded", "ServiceUnavailable"} <= found


def test_every_example_is_what_its_schema_says(document: Json) -> None:
    checked = 0
    for _, path, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for place in [*bodies, *operation["responses"].values()]:
            for content in place.get("content", {}).values():
                examples = [one["value"] for one in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                for example in examples:
                    checker(document, content["schema"]).validate(example)
                    checked += 1
        for status, response in operation["responses"].items():
            problems = response.get("content", {}).get("application/problem+json", {}).get("examples", {})
            for name, one in problems.items():
                assert (one["value"]["error"], str(one["value"]["status"])) == (name, status)
                assert isinstance(one["value"]["detail"], dict) is path.startswith("/api/v1/")
    assert checked > 300


def test_every_kind_of_problem_has_a_whole_example() -> None:
    described = json.loads(describe(KNOBS, mailbox=True))
    text = json.dumps(described)
    never_routed = {"MethodNotAllowed", "HeadersTooLarge"}  # of every path, or before there is one
    assert {name for name in kinds.KINDS if f"/problems/{kinds.KINDS[name].slug}" not in text} == never_routed


def test_bodies_are_described_as_strictly_as_they_are_read(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["RegisterForm"]["additionalProperties"] is False
    assert schemas["RegisterForm"]["required"] == ["email", "password"]
    assert schemas["RegisterForm"]["properties"]["password"] | {"description": ""} == {
        "description": "",
        "format": "password",
        "maxLength": 64,
        "minLength": 10,
        "title": schemas["RegisterForm"]["properties"]["password"].get("title"),
        "type": "string",
    }
    activate = checker(document, {"$ref": "#/components/schemas/ActivateForm"})
    assert activate.is_valid({"code": "042 800"})
    assert activate.is_valid({"activation_code": "042800"})
    assert not activate.is_valid({})
    assert not activate.is_valid({"code": 42800})
    assert not activate.is_valid({"code": "042800", "plan": "free"})


def test_basic_is_asked_for_where_it_is_needed(document: Json) -> None:
    needing = {path for _, path, operation in operations(document) if operation.get("security") == [{"basic": []}]}
    assert needing == {path for route in ACCOUNT if route.name != "register" for path in route.paths}


def test_names_of_operations_are_theirs_alone(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


async def test_what_is_served_is_what_is_printed(door: Doorstep) -> None:
    answer = await door.ask("GET", "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == describe(door.knobs, mailbox=True) == (await door.ask("GET", "/openapi.json")).body


async def test_real_answers_are_what_the_document_says(door: Doorstep) -> None:
    document = json.loads(describe(door.knobs, mailbox=True))
    who = f"{EMAIL}:{PASSWORD}"
    asked: list[tuple[str, str, object, str | None, int]] = [
        ("POST", "/v1/users/register", {"email": EMAIL, "password": PASSWORD}, None, 201),
        ("POST", "/v1/users/register", {"email": EMAIL, "password": PASSWORD}, None, 409),
        ("POST", "/api/v1/users/register", {"email": "x", "password": "y"}, None, 422),
        ("GET", "/v1/users/registration", None, who, 200),
        ("POST", "/v1/users/resend-code", None, who, 429),
        ("POST", "/v1/users/activate", {"code": "0428"}, who, 410),
        ("POST", "/users/activate", {"code": "0428"}, None, 401),
        ("GET", "/livez", None, None, 200),
        ("GET", "/readyz", None, None, 200),
        ("GET", "/v1/health", None, None, 200),
        ("GET", "/v1/health/db", None, None, 200),
        ("GET", "/", None, None, 200),
        ("GET", "/dev/mail/messages", None, None, 200),
        ("GET", "/api/v2/messages", None, None, 200),
        ("GET", "/api/v2/search?kind=no", None, None, 400),
        ("GET", "/api/v1/messages", None, None, 200),
    ]
    for method, path, body, basic, status in asked:
        answer = await door.ask(method, path, body, who=basic)
        assert answer.status == status, answer.body
        described = document["paths"][path.partition("?")[0]][method.lower()]["responses"][str(status)]
        content = described["content"][answer.headers["Content-Type"]]
        checker(document, content["schema"]).validate(answer.json)
        assert all(name in answer.headers for name in described["headers"] if name != "Retry-After")
