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

from regsvc.domain.values import (
    EMAIL_MAX,
    Email,
    EmailKey,
    Flaw,
    LinkToken,
    Locale,
    PasswordRules,
    Secret,
    Username,
    read_code,
)
from regsvc.http.models import Fault

T = TypeVar("T")
FAULTS_MAX: Final = 20  # a body has room for a thousand unknown fields; nobody reads that many
PASSWORD_MAX: Final = 1024  # characters of a password that is shown, whatever the rules for new ones are by now
NOBODY: Final = Email("", EmailKey(""))  # an address that no one can have: every key has an @
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the fields of this installation are held to."""

    code_digits: int
    passwords: PasswordRules
    verify_digits: int = 6  # of a code that is a proof alone


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


def _known_password(value: object) -> Secret:
    text = _text(value)
    if len(text) > PASSWORD_MAX:
        raise PydanticCustomError("oversize", "No password is that long.")
    return Secret(text)


def _code(value: object, info: ValidationInfo) -> Secret:
    return _good(read_code(_text(value), _rules(info).code_digits))


def _lone_code(value: object, info: ValidationInfo) -> Secret:
    return _good(read_code(_text(value), _rules(info).verify_digits))


def _anybody(value: object) -> Email:
    found = Email.parse(_text(value))
    return NOBODY if isinstance(found, Flaw) else found


def _who(value: object) -> Email | Username:
    text = _text(value)
    found = Email.parse(text) if "@" in text else Username.parse(text)
    return NOBODY if isinstance(found, Flaw) else found


def _secret(value: object) -> Secret:
    return Secret(_text(value))


def _link_token(value: object) -> LinkToken | None:
    return LinkToken.parse(_text(value))


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


Address = Annotated[
    Email,
    PlainValidator(_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": EMAIL_MAX, "description": "In any case."}),
]
NewPassword = Annotated[
    Secret,
    PlainValidator(_password),
    WithJsonSchema({"type": "string", "format": "password", "description": "All characters are significant."}),
]
KnownPassword = Annotated[
    Secret,
    PlainValidator(_known_password),
    WithJsonSchema({"type": "string", "format": "password", "maxLength": PASSWORD_MAX}),
]
LoneCode = Annotated[
    Secret,
    PlainValidator(_lone_code),
    WithJsonSchema({"type": "string", "description": "As the mail has it; spaces and dashes are ignored."}),
]
_USERNAME: Final = WithJsonSchema(
    {
        "type": ["string", "null"],
        "minLength": 3,
        "maxLength": 32,
        "pattern": r"^[A-Za-z0-9_.\-]{3,32}$",
        "description": "Letters a–z in any case, digits, _ . -",
    }
)
_LOCALE: Final = WithJsonSchema(
    {
        "type": ["string", "null"],
        "maxLength": 35,
        "pattern": r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$",
        "description": "BCP 47, such as en or de-AT.",
    }
)


class RegisterForm(Form):
    """Whom to register. The password comes last: it is compared with the others."""

    email: Address
    username: Annotated[Username | None, PlainValidator(_username), _USERNAME] = None
    locale: Annotated[Locale | None, PlainValidator(_locale), _LOCALE] = None
    password: NewPassword


_CODE = WithJsonSchema({"type": "string", "description": "As the mail has it; spaces and dashes are ignored."})


class ActivateForm(Form):
    """The code, under either of its names (under both, they have to be the same), or the token of the link."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"anyOf": [{"required": ["code"]}, {"required": ["activation_code"]}]},
                {"required": ["token"]},
            ]
        }
    )

    code: Annotated[Secret | None, PlainValidator(_code), _CODE] = None
    activation_code: Annotated[Secret | None, PlainValidator(_code), _CODE] = None

    token: Annotated[
        LinkToken | None,
        PlainValidator(_link_token),
        WithJsonSchema({"type": "string", "description": "As the link in the mail has it, after the #."}),
    ] = None

    def shown(self) -> Secret | LinkToken | Fault | None:
        """Return the code, the token (None: what cannot be one), or what is wrong with all of it taken together."""
        if "token" in self.model_fields_set:
            if len(self.model_fields_set) == 1:
                return self.token
            return Fault(field="token", message="Send a code or a token, not both.", code="contradiction")
        if self.code is not None and self.activation_code is not None and self.code != self.activation_code:
            message = "code and activation_code are not the same."
            return Fault(field="activation_code", message=message, code="contradiction")
        code = self.code or self.activation_code
        return code if code is not None else Fault(field="code", message="This field is required.", code="missing")


class LoginForm(Form):
    """Who logs in: what can be no address and no name takes the way of one that nobody has, so the answer is the same.

    The password is not held to the rules for new ones: they may have been others when it was chosen.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["email"]}, {"required": ["identifier"]}]})

    email: Annotated[Email | None, PlainValidator(_anybody), WithJsonSchema({"type": "string"})] = None
    identifier: Annotated[
        Email | Username | None,
        PlainValidator(_who),
        WithJsonSchema({"type": "string", "description": "An e-mail address if it has an @, else a username."}),
    ] = None
    password: KnownPassword

    def who(self) -> Email | Username | Fault:
        """Return who it is, or what is wrong with the two taken together."""
        if self.email is not None and self.identifier is not None:
            return Fault(field="identifier", message="Send email or identifier, not both.", code="contradiction")
        who = self.email if self.email is not None else self.identifier
        return who if who is not None else Fault(field="email", message="This field is required.", code="missing")


class AddressForm(Form):
    """An address that a mail is asked for."""

    email: Address


class VerifyForm(Form):
    """The code that proves the address alone."""

    email: Address
    code: LoneCode


class RefreshForm(Form):
    """The refresh token; where the service hands it out in a cookie, it may be there instead."""

    refresh_token: Annotated[
        Secret | None,
        PlainValidator(lambda value: None if value is None else _secret(value)),
        WithJsonSchema({"type": ["string", "null"], "description": "Absent: the cookie's, where there are cookies."}),
    ] = None


class ResetForm(Form):
    """The token of the mail (None: what cannot be one), and the new password."""

    token: Annotated[
        LinkToken | None, PlainValidator(_link_token), WithJsonSchema({"type": "string", "description": "As mailed."})
    ]
    new_password: NewPassword


class ProfileForm(Form):
    """What is to be; `model_fields_set` tells what was sent."""

    username: Annotated[Username | None, PlainValidator(_username), _USERNAME] = None
    locale: Annotated[Locale | None, PlainValidator(_locale), _LOCALE] = None


class RemoveForm(Form):
    """The password, so that a session somebody else got hold of cannot delete the account."""

    password: KnownPassword


class PasswordForm(Form):
    """The password that is, and the one that is to be."""

    current_password: KnownPassword
    new_password: NewPassword


class EmailForm(Form):
    """The address that is to be, and the password."""

    new_email: Address
    password: KnownPassword


class ConfirmForm(Form):
    """The code that was mailed to the new address."""

    code: LoneCode
