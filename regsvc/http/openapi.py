"""The OpenAPI 3.1 document, built from the route table and the models' own JSON Schemas.

Built by hand rather than by quart-schema: that derives it from decorators that also take over the reading of bodies,
whose answers to bad JSON and content types are not ours, and it leaves a route without a declared answer invalid.
Every path is in it, aliases too, so that a client of any of them can be generated; `/api/v1` has its own `detail`.
"""

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from regsvc import __version__
from regsvc.http import kinds
from regsvc.http.cookies import NAME as COOKIE
from regsvc.http.forms import (
    ActivateForm,
    ConfirmForm,
    Form,
    PasswordForm,
    RegisterForm,
    ResetForm,
    Rules,
    VerifyForm,
)
from regsvc.http.kinds import Kind
from regsvc.http.models import Fault, LegacyProblem, Problem
from regsvc.http.overload import PROBES
from regsvc.http.problems import MEDIA_TYPE, Dialect, Told, Writer, headers, tell
from regsvc.http.quota import HEADERS as LIMIT_HEADERS
from regsvc.http.receipt import REPLAYED
from regsvc.http.routes import JSON, Auth, Parameter, Route, Tag

Json = dict[str, Any]
_REF: Final = "#/components/schemas/{model}"
_INSTANCE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
_EVERYWHERE: Final = (kinds.INTERNAL_ERROR,)
_UNDER_LOAD: Final = (kinds.OVERLOADED, kinds.SERVICE_UNAVAILABLE)  # of every route but the probes

_EXTRAS: Final[Mapping[str, Mapping[str, Any]]] = {
    "InvalidActivationCode": {"attempts_left": 4},
    "UserAlreadyExists": {"hint": "Log in with it, or register another address."},
    "ActivationCodeExpired": {
        "hint": "Ask for a new one with POST /v1/users/resend-code and the same credentials.",
    },
    "ValidationError": {
        "errors": (
            Fault(field="password", message="This field is required.", code="missing"),
            Fault(field="plan", message="This field is not known here; leave it out.", code="unknown_field"),
        )
    },
    "InvalidEmail": {
        "detail": "This is not an e-mail address: An email address must have an @-sign.",
        "errors": (
            Fault(
                field="email",
                message="This is not an e-mail address: An email address must have an @-sign.",
                code="invalid_email",
            ),
        ),
    },
    "WeakPassword": {
        "detail": "A password has at least 8 characters.",
        "errors": (Fault(field="password", message="A password has at least 8 characters.", code="too_short"),),
    },
    "InvalidCode": {"attempts_left": 4},
    "InvalidResetToken": {"hint": "Ask for a new one with POST /v1/auth/forgot-password."},
    "InvalidAccessToken": {"hint": "Get a new one with POST /v1/auth/refresh, or log in."},
    "InvalidRefreshToken": {"hint": "Log in again."},
    "NotActivated": {"hint": "Activate with POST /v1/users/activate."},
    "CodeExpired": {"hint": "Ask for the change again: POST /v1/users/me/email."},
    "TooManyAttempts": {"attempts_left": 0, "retry_after": timedelta(seconds=30)},
    "ResendTooSoon": {
        "retry_after": timedelta(seconds=18),
        "resend_available_at": datetime(2026, 11, 20, 11, 0, 30, 123000, UTC),
    },
    "RateLimitExceeded": {"retry_after": timedelta(seconds=1745)},
    "IdempotencyKeyInUse": {"retry_after": timedelta(seconds=1)},
    "MethodNotAllowed": {"allow": ("GET", "HEAD", "OPTIONS")},
    "Overloaded": {"retry_after": timedelta(seconds=3)},
    "ServiceUnavailable": {"retry_after": timedelta(seconds=1)},
}


def example(kind: Kind) -> Told:
    """Return a problem of a kind as it could be told."""
    return replace(tell(kind), **_EXTRAS.get(kind.name, {}))


def document(routes: Sequence[Route], writer: Writer, rules: Rules) -> Json:
    """Return the document for `routes`; `writer` knows the public URL, `rules` the lengths of code and password."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "regsvc",
            "version": __version__,
            "summary": "Self-hosted user registration.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": writer.base}],
        "tags": [{"name": tag.value} for tag in Tag if tag is Tag.ALIASES or any(route.tag is tag for route in routes)],
        "paths": _paths(routes, writer, rules),
        "components": {
            "schemas": _schemas(routes, rules),
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Address and password of the registration, in UTF-8 (RFC 7617).",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token of a login (RFC 6750).",
                },
                "metrics": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token that the operator set for the metrics, if there is one.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "The refresh token, where the service hands it out in a cookie.",
                },
            },
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()},
        },
    }


_ABOUT: Final = (
    "JSON in, JSON out, UTF-8. Times are RFC 3339 in UTC, durations whole seconds.\n\n"
    "Every error is a problem (RFC 9457): `error` is its name, `message` a sentence for a person, `type` the address "
    "of a page that explains it. Under `/api/v1` the same routes answer with an object as `detail`.\n\n"
    "Any path answers 404 or 405 as a problem too. `X-Request-ID` is kept when you send a sane one."
)
_HEADERS: Final[Mapping[str, tuple[str, Json]]] = {
    "X-Request-ID": ("The id of the request, as in the log.", {"type": "string"}),
    "traceparent": ("The trace, continued (W3C Trace Context).", {"type": "string"}),
    "Cache-Control": ("Nothing is stored.", {"type": "string", "const": "no-store"}),
    "X-Content-Type-Options": ("No guessing.", {"type": "string", "const": "nosniff"}),
    "Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 1}),
    REPLAYED: ("There where the answer is that of an earlier request.", {"type": "string", "const": "true"}),
    "WWW-Authenticate": ("What to send.", {"type": "string"}),
    "Allow": ("The methods there are.", {"type": "string"}),
    **LIMIT_HEADERS,
}
_ALWAYS: Final = ("X-Request-ID", "traceparent", "Cache-Control", "X-Content-Type-Options")


def _paths(routes: Sequence[Route], writer: Writer, rules: Rules) -> Json:
    paths: Json = {}
    for route in routes:
        for path in route.paths:
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, writer, rules)
    return paths


def _operation(route: Route, path: str, writer: Writer, rules: Rules) -> Json:
    alias = path != route.path
    operation: Json = {
        "operationId": route.name if not alias else f"{route.name}_at{path.translate(_PLAIN)}",
        "tags": [Tag.ALIASES.value if alias else route.tag.value],
        "summary": f"{route.summary} (as {route.path})" if alias else route.summary,
        "responses": _responses(route, path, writer),
    }
    if route.description:
        operation["description"] = route.description
    if route.auth in {Auth.COOKIE, Auth.METRICS}:
        operation["security"] = [{}, {route.auth.value: []}]
    elif route.auth is not Auth.NONE:
        operation["security"] = [{route.auth.value: []}]
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    if route.body is not None:
        code = {"code": _a_code(_DIGITS[route.body](rules))} if route.body in _DIGITS else {}
        operation["requestBody"] = _body(route.body, {**(route.body_example or {}), **code})
    return operation


_PLAIN: Final = str.maketrans(dict.fromkeys("/-{}.", "_"))
_WRITTEN: Final[JsonSchemaMode] = "serialization"
_READ: Final[JsonSchemaMode] = "validation"


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.required or parameter.place == "path",
        "schema": dict(parameter.schema),
    }


_DIGITS: Final[Mapping[type[Form], Callable[[Rules], int]]] = {
    ActivateForm: lambda rules: rules.code_digits,
    VerifyForm: lambda rules: rules.verify_digits,
    ConfirmForm: lambda rules: rules.verify_digits,
}
_NEW_PASSWORDS: Final[Mapping[type[Form], str]] = {
    RegisterForm: "password",
    ResetForm: "new_password",
    PasswordForm: "new_password",
}


def _a_code(digits: int) -> str:
    return "0428135790"[:digits]


def _body(form: type[Form], body_example: Json) -> Json:
    content = {"schema": {"$ref": _REF.format(model=form.__name__)}, "example": body_example}
    return {"required": bool(form.model_json_schema().get("properties")), "content": {JSON: content}}


def _responses(route: Route, path: str, writer: Writer) -> Json:
    success = route.success
    content: Json = {}
    if success.model is not None:
        content["schema"] = {"$ref": _REF.format(model=success.model.__name__)}
    if success.example is not None:
        content["example"] = dict(success.example)
    good: Json = {"description": success.description, "headers": _head(route, (REPLAYED,) if route.keyed else ())}
    if success.status != 204:
        good["content"] = {success.media_type: content}
    dialect = Dialect.of(path)
    everywhere = _EVERYWHERE if route.name in PROBES else (*_EVERYWHERE, *_UNDER_LOAD)
    met = sorted({*route.problems, *everywhere}, key=lambda kind: (kind.status, kind.name))
    bad = {
        str(status): _problem_response(route, list(same), writer, dialect)
        for status, same in groupby(met, key=lambda kind: kind.status)
    }
    return {str(success.status): good, **bad}


def _problem_response(route: Route, met: Sequence[Kind], writer: Writer, dialect: Dialect) -> Json:
    model = LegacyProblem if dialect is Dialect.LEGACY else Problem
    extra = {name for kind in met for name in headers(example(kind)) if name != "Content-Type"}
    return {
        "description": " / ".join(f"`{kind.name}`: {kind.title}." for kind in met),
        "headers": _head(route, sorted(extra)),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": _REF.format(model=model.__name__)},
                "examples": {
                    kind.name: {
                        "summary": kind.title,
                        "value": json.loads(writer.body(example(kind), _INSTANCE, dialect)),
                    }
                    for kind in met
                },
            }
        },
    }


def _head(route: Route, extra: Iterable[str]) -> Json:
    names = (*_ALWAYS, *(LIMIT_HEADERS if route.limits else ()), *extra)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schemas(routes: Sequence[Route], rules: Rules) -> Json:
    answers: set[type[BaseModel]] = {Problem, LegacyProblem}
    answers |= {route.success.model for route in routes if route.success.model is not None}
    bodies: set[type[BaseModel]] = {route.body for route in routes if route.body is not None}
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *[(model, _WRITTEN) for model in answers],
        *[(form, _READ) for form in bodies],
    ]
    wanted.sort(key=lambda one: one[0].__name__)
    _, schemas = models_json_schema(wanted, ref_template=_REF)
    found: Json = copy.deepcopy(schemas["$defs"])
    for form, name in _NEW_PASSWORDS.items():
        password = found[form.__name__]["properties"][name]
        password |= {"minLength": rules.passwords.shortest, "maxLength": rules.passwords.longest}
    for form, length in _DIGITS.items():
        digits = length(rules)
        for name in {"code", "activation_code"} & found[form.__name__]["properties"].keys():
            found[form.__name__]["properties"][name] |= {
                "minLength": digits,
                "pattern": rf"^[ \-]*([0-9][ \-]*){{{digits}}}$",
                "description": f"{digits} digits; spaces and dashes are ignored.",
                "examples": [_a_code(digits)],
            }
    for body in bodies:
        for field in found[body.__name__].get("properties", {}).values():
            if isinstance(field.get("type"), str):
                field.pop("default", None)  # absence, not a null that could be sent
    return found
