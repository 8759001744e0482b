"""The document is the truth: valid, complete, and held to the routes, the models and the examples."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from regsvc.domain.values import PasswordRules
from regsvc.http import kinds
from regsvc.http.app import Knobs, describe
from regsvc.http.front import Front
from regsvc.http.routes import Auth, Route
from regsvc.http.table import routes
from regsvc.http.table.account import ACCOUNT
from regsvc.http.table.profile import PROFILE
from regsvc.http.table.session import SESSION
from tests.http.doorstep import EMAIL, PASSWORD, URL, Doorstep

Json = dict[str, Any]
KNOBS = Knobs(URL + "/", code_digits=6, passwords=PasswordRules(shortest=10, longest=64))

# 20-api, "Register, activate" and "Log in, sessions, recovery": what each route can answer.
STATUSES = {
    ("post", "/v1/users/register"): {201, 400, 409, 422, 429, 503},
    ("post", "/v1/users/activate"): {200, 400, 401, 409, 410, 422, 429},
    ("post", "/v1/users/resend-code"): {202, 401, 409, 429},
    ("get", "/v1/users/registration"): {200, 401},
    ("post", "/v1/auth/login"): {200, 401, 403, 422, 503},
    ("post", "/v1/auth/verify"): {200, 400, 410, 422, 429},
    ("post", "/v1/auth/send-code"): {202, 422},
    ("post", "/v1/auth/refresh"): {200, 401, 403, 422},
    ("post", "/v1/auth/logout"): {204, 401},
    ("post", "/v1/auth/logout/all"): {204, 401},
    ("post", "/v1/auth/forgot-password"): {202, 422},
    ("post", "/v1/auth/reset-password"): {204, 400, 422},
    ("get", "/v1/sessions"): {200, 401},
    ("delete", "/v1/sessions"): {204, 401},
    ("get", "/v1/sessions/{session_id}"): {200, 401, 404},
    ("delete", "/v1/sessions/{session_id}"): {204, 401, 404},
    ("get", "/.well-known/jwks.json"): {200},
    ("get", "/v1/users/me"): {200, 401},
    ("patch", "/v1/users/me"): {200, 401, 409, 422},
    ("put", "/v1/users/me"): {200, 401, 409, 422},
    ("delete", "/v1/users/me"): {204, 401, 409, 422},
    ("post", "/v1/users/me/password"): {204, 401, 422},
    ("post", "/v1/users/me/email"): {202, 401, 409, 422, 429},
    ("post", "/v1/users/me/email/confirm"): {200, 400, 401, 409, 410, 422, 429},
}
NAMES = {
    "register": {"MalformedRequest", "UserAlreadyExists", "ValidationError", "WeakPassword", "InvalidEmail"},
    "activate": {"InvalidActivationCode", "InvalidCredentials", "UserAlreadyActivated", "ActivationCodeExpired"},
    "resend": {"InvalidCredentials", "UserAlreadyActivated", "ResendTooSoon"},
    "standing": {"InvalidCredentials"},
    "login": {"InvalidCredentials", "NotActivated", "AccountDisabled", "ValidationError"},
    "verify": {"InvalidActivationCode", "ActivationCodeExpired", "TooManyAttempts", "InvalidEmail"},
    "send_code": {"InvalidEmail"},
    "refresh": {"InvalidRefreshToken", "Forbidden"},
    "forgot_password": {"InvalidEmail"},
    "reset_password": {"InvalidResetToken", "WeakPassword", "ValidationError"},
    "session": {"InvalidAccessToken", "NotFound"},
    "end_session": {"InvalidAccessToken", "NotFound"},
    "change_me": {"UserAlreadyExists"},
    "replace_me": {"UserAlreadyExists"},
    "remove_me": {"InvalidCredentials", "LastAdmin"},
    "change_password": {"InvalidCredentials", "WeakPassword"},
    "propose_email": {"InvalidCredentials", "UserAlreadyExists", "InvalidEmail", "ResendTooSoon"},
    "confirm_email": {"InvalidCode", "UserAlreadyExists", "CodeExpired", "TooManyAttempts"},
}  # fmt: skip
HASHING = {"register", "activate", "resend", "standing", "login", "reset_password", "remove_me", "change_password",
           "propose_email"}  # fmt: skip
SOMETIMES = {"Retry-After", "Idempotency-Replayed"}  # headers of some answers of a status
PEOPLE = (*ACCOUNT, *SESSION, *PROFILE)


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
        operation = document["paths"][path][method]
        described = {int(status) for status in operation["responses"]}
        assert statuses <= described
        body = {400, 408, 413, 415, 422} if "requestBody" in operation or "parameters" in operation else set()
        assert described <= statuses | body | {409, 429, 500, 503}


@pytest.mark.parametrize("route", [route for route in PEOPLE if route.problems], ids=lambda route: route.name)
def test_every_problem_of_the_contract_has_an_example_at_every_path(document: Json, route: Route) -> None:
    private = {"InvalidAccessToken"} if route.auth is Auth.BEARER else set()
    for path in route.paths:
        responses = document["paths"][path][route.method.lower()]["responses"]
        found = {
            name
            for response in responses.values()
            for name in response.get("content", {}).get("application/problem+json", {}).get("examples", {})
        }
        assert NAMES.get(route.name, set()) | private | {"InternalError", "ServiceUnavailable", "Overloaded"} <= found
    assert (kinds.OVERLOADED in route.problems) is (route.name in HASHING)


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


def test_a_login_names_who_it_is_once(document: Json) -> None:
    login = checker(document, {"$ref": "#/components/schemas/LoginForm"})
    assert login.is_valid({"email": EMAIL, "password": "x"})
    assert login.is_valid({"identifier": "alice", "password": "x"})
    assert not login.is_valid({"email": EMAIL, "identifier": EMAIL, "password": "x"})
    assert not login.is_valid({"password": "x"})
    assert not login.is_valid({"email": None, "password": "x"})
    assert not login.is_valid({"email": EMAIL})
    assert not login.is_valid({"email": EMAIL, "password": "x" * 1025})


@pytest.mark.parametrize(("form", "field"), [("ResetForm", "new_password"), ("PasswordForm", "new_password")])
def test_new_passwords_are_described_by_their_rules(document: Json, form: str, field: str) -> None:
    described = document["components"]["schemas"][form]["properties"][field]
    assert (described["minLength"], described["maxLength"]) == (10, 64)


@pytest.mark.parametrize("form", ["VerifyForm", "ConfirmForm"])
def test_longer_codes_are_described_as_long_as_they_are(form: str) -> None:
    document = json.loads(describe(replace(KNOBS, verify_digits=8), mailbox=False))
    described = document["components"]["schemas"][form]["properties"]["code"]
    assert (described["minLength"], described["examples"]) == (8, ["04281357"])


def test_an_admission_may_lack_the_refresh_token_and_nothing_else(document: Json) -> None:
    schema = document["components"]["schemas"]["Admitted"]
    assert schema["properties"]["refresh_token"]["type"] == "string"
    assert set(schema["properties"]) - set(schema["required"]) == {"refresh_token"}


def test_a_204_has_no_content(document: Json) -> None:
    answers = [operation["responses"].get("204") for _, _, operation in operations(document)]
    found = [answer for answer in answers if answer is not None]
    assert len(found) > 20
    assert all("content" not in answer for answer in found)


def test_who_asks_is_asked_for_where_it_is_needed(document: Json) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {name: (it["type"], it.get("scheme", it.get("name"))) for name, it in schemes.items()} == {
        "basic": ("http", "basic"),
        "bearer": ("http", "bearer"),
        "metrics": ("http", "bearer"),
        "cookie": ("apiKey", "__Host-regsvc_refresh"),
    }
    needed: dict[Auth, list[Json] | None] = {
        Auth.NONE: None,
        Auth.BASIC: [{"basic": []}],
        Auth.BEARER: [{"bearer": []}],
        Auth.COOKIE: [{}, {"cookie": []}],
        Auth.METRICS: [{}, {"metrics": []}],
    }
    for route in routes(development=True):
        for path in route.paths:
            assert document["paths"][path][route.method.lower()].get("security") == needed[route.auth]
    assert {route.name for route in ACCOUNT if route.auth is not Auth.BASIC} == {"register", "activate_page"}
    assert {route.name for route in PROFILE if route.auth is not Auth.BEARER} == set()
    assert {route.name for route in SESSION if route.auth is Auth.COOKIE} == {"refresh"}


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
    user = door.member("bob@example.com")
    session = (await door.login("bob@example.com"))["access_token"]
    await door.ask("POST", "/v1/auth/login", {"email": "bob@example.com", "password": PASSWORD})
    again = (await door.login("bob@example.com"))["refresh_token"]
    (one, *_) = door.shelf.logins
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
        ("GET", "/v1/metrics", None, None, 200),
        ("GET", "/", None, None, 200),
        ("GET", "/dev/mail/messages", None, None, 200),
        ("GET", "/api/v2/messages", None, None, 200),
        ("GET", "/api/v2/search?kind=no", None, None, 400),
        ("GET", "/api/v1/messages", None, None, 200),
        ("POST", "/v1/auth/login", {"identifier": EMAIL, "password": "x"}, None, 401),
        ("POST", "/api/v1/auth/login", {"email": EMAIL, "password": PASSWORD}, None, 403),
        ("POST", "/v1/auth/login", {"email": "bob@example.com", "password": PASSWORD}, None, 200),
        ("POST", "/auth/refresh", {"refresh_token": again}, None, 200),
        ("POST", "/v1/auth/refresh", {"refresh_token": "x"}, None, 401),
        ("POST", "/v1/auth/forgot-password", {"email": EMAIL}, None, 202),
        ("POST", "/v1/auth/send-code", {"email": EMAIL}, None, 202),
        ("POST", "/v1/auth/reset-password", {"token": "x", "new_password": PASSWORD}, None, 400),
        ("POST", "/v1/auth/verify", {"email": EMAIL, "code": "000000"}, None, 400),
        ("GET", "/.well-known/jwks.json", None, None, 200),
        ("GET", "/v1/users/me", None, None, 401),
        ("GET", "/v1/users/me", None, session, 200),
        ("PATCH", "/api/v1/users/me", {"username": "!"}, session, 422),
        ("PATCH", "/api/v1/users/me", {"username": "Bob"}, session, 200),
        ("PUT", "/users/me", {"username": None}, session, 200),
        ("POST", "/v1/users/me/email", {"new_email": "b@example.org", "password": PASSWORD}, session, 202),
        ("POST", "/v1/users/me/email/confirm", {"code": "000000"}, session, 410),
        ("GET", "/v1/sessions", None, session, 200),
        ("GET", f"/v1/sessions/{one}", None, session, 200),
        ("GET", f"/api/v1/sessions/{user.id}", None, session, 404),
        ("DELETE", "/v1/users/me", {"password": "x"}, session, 401),
        ("POST", "/v1/users/me/password", {"current_password": PASSWORD, "new_password": PASSWORD}, session, 204),
        ("DELETE", "/v1/sessions", None, session, 204),
    ]
    for method, path, body, shown, status in asked:
        known = shown == session
        answer = await door.ask(method, path, body, who=None if known else shown, bearer=shown if known else None)
        assert answer.status == status, answer.body
        template = re.sub(r"/sessions/.+", "/sessions/{session_id}", path.partition("?")[0])
        described = document["paths"][template][method.lower()]["responses"][str(status)]
        if status != 204:
            content = described["content"][answer.headers["Content-Type"]]
            checker(document, content["schema"]).validate(answer.json)
        assert all(name in answer.headers for name in described["headers"] if name not in SOMETIMES)


def test_a_uniform_service_says_202_of_a_registration_and_not_201() -> None:
    for uniform in (False, True):
        described = json.loads(describe(replace(KNOBS, uniform=uniform), mailbox=False))
        for path in ("/v1/users/register", "/api/v1/registration", "/users/register"):
            answers = described["paths"][path]["post"]["responses"]
            assert sorted(set(answers) & {"201", "202"}) == (["202"] if uniform else ["201"])
        assert ("Noted" in described["components"]["schemas"]) is uniform
        assert ("Registration" in described["components"]["schemas"]) is not uniform
