"""What the API answers with, as pydantic models: one place for the bytes and for their JSON Schema."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema


def instant(time: datetime) -> str:
    """Write a time as the API does: RFC 3339, UTC, milliseconds."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


Instant = Annotated[
    datetime,
    PlainSerializer(instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}),
]
Status = Literal["ok", "starting", "degraded", "down", "off"]


class Model(BaseModel):
    """A JSON object that the service writes. Its members are always there, those with a default too."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


def _may_lack_refresh_token(schema: dict[str, Any]) -> None:
    """Describe it as a string that is there or not, and never null."""
    schema["required"].remove("refresh_token")
    described = schema["properties"]["refresh_token"]
    del described["default"], described["anyOf"]
    described["type"] = "string"


class Registration(Model):
    """A registration that waits for its code."""

    id: UUID
    email: str
    is_activated: Literal[False] = False
    created_at: Instant
    resend_available_at: Instant
    message: str


class Noted(Model):
    """A registration was taken note of, whatever comes of it: the same for every address."""

    email: str
    message: str


class User(Model):
    """An account."""

    id: UUID
    email: str
    is_activated: Literal[True] = True
    activated_at: Instant
    message: str


class Resent(Model):
    """A new code is on its way."""

    email: str
    resend_available_at: Instant
    message: str


class Standing(Model):
    """How a registration and its newest mail stand."""

    id: UUID
    email: str
    mail: Literal["queued", "sent", "failed"]
    code_expires_at: Instant | None
    resend_available_at: Instant


class Profile(Model):
    """An account, as its owner and administrators see it."""

    id: UUID
    email: str
    username: str | None
    locale: str | None
    role: Literal["user", "admin"]
    created_at: Instant
    activated_at: Instant
    updated_at: Instant


class Admitted(Model):
    """A session that was opened or refreshed."""

    model_config = ConfigDict(json_schema_extra=_may_lack_refresh_token)

    access_token: str = Field(repr=False)
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a word of RFC 6749
    expires_in: int = Field(ge=1, description="Seconds that the access token is good.")
    refresh_token: str | None = Field(
        default=None, repr=False, description="Absent where the service hands it out in a cookie."
    )
    user: Profile


class Session(Model):
    """A login on a device."""

    id: UUID
    device: str
    ip: str | None
    created_at: Instant
    last_used_at: Instant
    expires_at: Instant = Field(description="The end, however often it is refreshed.")
    current: bool = Field(description="Whether it is the one that asks.")


class Sessions(Model):
    """The sessions that are alive, the newest first."""

    sessions: list[Session]


class Accepted(Model):
    """Taken note of, whatever comes of it."""

    message: str


class Proposed(Model):
    """A code is on its way to the new address."""

    email: str
    message: str


class Key(BaseModel):
    """A public key (RFC 7517); what else it has depends on `kty`."""

    model_config = ConfigDict(extra="allow")

    kty: str
    kid: str
    alg: str
    use: Literal["sig"]


class KeySet(Model):
    """The keys that access tokens are signed with; several while one takes over from another."""

    keys: list[Key]


class Alive(Model):
    """The process turns."""

    status: Literal["ok"] = "ok"


class Ready(Model):
    """The process can work."""

    status: Literal["ready"] = "ready"


class Check(Model):
    """How a part of the service does."""

    status: Status
    detail: str | None = None


class Health(Model):
    """How the service does: `status` is the worst that matters of its parts."""

    status: Literal["ok", "degraded"]
    version: str
    timestamp: Instant
    checks: dict[str, Check]


class DatabaseHealth(Model):
    """The database answered."""

    status: Literal["ok"] = "ok"
    latency_ms: float = Field(ge=0)


class Index(Model):
    """Where to go from here."""

    service: str
    version: str
    documentation: str
    openapi: str
    problems: str
    health: str
    mailbox: str | None = None


class Fault(Model):
    """What is wrong with one field."""

    field: str
    message: str
    code: str


class LegacyDetail(Model):
    """`detail` as an object."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    error: str
    message: str
    hint: str | None = None


class AnyProblem(Model):
    """An error, as RFC 9457 has it. Members that do not apply are left out."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    type: str = Field(json_schema_extra={"format": "uri"})
    title: str
    status: int = Field(ge=400, le=599)
    detail: str | LegacyDetail
    instance: str = Field(description="The id of the request.")
    error: str = Field(description="The name of the problem, for programs.")
    message: str = Field(description="One sentence for a person.")
    hint: str | None = None
    errors: list[Fault] | None = None
    attempts_left: int | None = Field(default=None, ge=0)
    retry_after_seconds: int | None = Field(default=None, ge=1)
    resend_available_at: Instant | None = None


class Problem(AnyProblem):
    """An error, as RFC 9457 has it. Members that do not apply are left out."""

    detail: str = Field(description="One sentence for a person.")


class LegacyProblem(AnyProblem):
    """An error under `/api/v1`: as everywhere, but `detail` is an object."""

    detail: LegacyDetail
