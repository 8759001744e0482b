"""What people send, as pydantic models: JSON in, values of the domain out, every fault of every field at once.

Unknown fields are refused, not ignored: a misspelt `locale` would be lost without a word, and a field that gets a
meaning in a later version would change what clients do that always sent it. The answer names each, so that somebody
who comes with another service's form sees in one answer what to leave out.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from regsvc.domain.values import EMAIL_MAX, Email, Flaw, Locale, PasswordRules, Secret, Username, read_code
from regsvc.http.models import Fault

T = TypeVar("T")
FAULTS_MAX: Final = 20  # a body has room for a thousand unknown fields; nobody reads that many
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the fields of this installation are held to."""

    code_digits: int
    passwords: PasswordRules


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("not_a_string", "This has to be a string.")
    return value


def _good(value: T | Flaw) -> T:
    if isinstance(value, Flaw):
        raise PydanticCustomError("flaw", "{message}", {"message": value.message, "code": value.code})
    return value


def _email(value: object) -> Email:
    return _good(Email.parse(_text(value)))


def _username(value: object) -> Username | None:
    return None if value is None else _good(Username.parse(_text(value)))


def _locale(value: object) -> Locale | None:
    return None if value is None else _good(Locale.parse(_text(value)))


def _password(value: object, info: ValidationInfo) -> Secret:
    text = _text(value)
    if _CONTROL.search(text):
        # RFC 7617, 2: such a password could be registered and never be sent to activate with.
        raise PydanticCustomError("control_character", "A password has no control characters.")
    secret, rules = Secret(text), _rules(info)
    flaw = rules.passwords.flaw(secret, info.data.get("email"), info.data.get("username"))
    return secret if flaw is None else _good(flaw)


def _code(value: object, info: ValidationInfo) -> Secret:
    return _good(read_code(_text(value), _rules(info).code_digits))


def _rules(info: ValidationInfo) -> Rules:
    rules = info.context
    if not isinstance(rules, Rules):
        raise TypeError("forms are read with their rules as the context")
    return rules


class Form(BaseModel):
    """A body. Its fields are read in the order they are declared in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NothingForm(Form):
    """A body where none is needed: there may be none, or an empty object."""


class RegisterForm(Form):
    """Whom to register. The password comes last: it is compared with the others."""

    email: Annotated[
        Email,
        PlainValidator(_email),
        WithJsonSchema({"type": "string", "format": "email", "maxLength": EMAIL_MAX, "description": "In any case."}),
    ]
    username: Annotated[
        Username | None,
        PlainValidator(_username),
        WithJsonSchema({"type": ["string", "null"], "minLength": 3, "description": "Letters a–z, digits, _ . -"}),
    ] = None
    locale: Annotated[
        Locale | None,
        PlainValidator(_locale),
        WithJsonSchema({"type": ["string", "null"], "maxLength": 35, "description": "BCP 47, such as en or de-AT."}),
    ] = None
    password: Annotated[
        Secret,
        PlainValidator(_password),
        WithJsonSchema({"type": "string", "format": "password", "description": "All characters are significant."}),
    ]


_CODE = WithJsonSchema({"type": "string", "description": "As the mail has it; spaces and dashes are ignored."})


class ActivateForm(Form):
    """The code, under either of its names; under both, they have to be the same."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["code"]}, {"required": ["activation_code"]}]})

    code: Annotated[Secret | None, PlainValidator(_code), _CODE] = None
    activation_code: Annotated[Secret | None, PlainValidator(_code), _CODE] = None

    def shown(self) -> Secret | Fault:
        """Return the code, or what is wrong with the two taken together."""
        if self.code is not None and self.activation_code is not None and self.code != self.activation_code:
            message = "code and activation_code are not the same."
            return Fault(field="activation_code", message=message, code="contradiction")
        code = self.code or self.activation_code
        return code if code is not None else Fault(field="code", message="This field is required.", code="missing")
