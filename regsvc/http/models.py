"""What the API answers with, as pydantic models: one place for the bytes and for their JSON Schema."""

from datetime import UTC, datetime
from typing import Annotated, Literal
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
    """A JSON object that the service writes."""

    model_config = ConfigDict(frozen=True)


class Registration(Model):
    """A registration that waits for its code."""

    id: UUID
    email: str
    is_activated: Literal[False] = False
    created_at: Instant
    resend_available_at: Instant
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

    error: str
    message: str
    hint: str | None = None


class AnyProblem(Model):
    """An error, as RFC 9457 has it. Members that do not apply are left out."""

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
