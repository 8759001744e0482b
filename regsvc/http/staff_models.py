"""What administrators send and are answered with, as pydantic models."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from regsvc.domain.session import Role
from regsvc.http.forms import Form
from regsvc.http.models import Fault, Instant, Model

CURSOR = Field(description="What to send as `cursor` for the next page; null on the last.")


class StaffUser(Model):
    """An account, or (pending) a registration that nobody has proved yet; it becomes the account of the same id."""

    id: UUID
    email: str
    username: str | None
    locale: str | None
    state: Literal["active", "disabled", "pending"]
    role: Literal["user", "admin"]
    created_at: Instant
    activated_at: Instant | None
    disabled_at: Instant | None


class StaffUsers(Model):
    """Accounts, the newest first."""

    users: list[StaffUser]
    next: str | None = CURSOR


class StaffSession(Model):
    """A login of an account on a device."""

    id: UUID
    device: str
    ip: str | None
    created_at: Instant
    last_used_at: Instant
    expires_at: Instant


class StaffSessions(Model):
    """The sessions of an account that are alive, the newest first."""

    sessions: list[StaffSession]


class StaffMail(Model):
    """A mail: `subject_id` is the account or the registration that it is for."""

    id: UUID
    letter: str
    state: Literal["ready", "leased", "sent", "dead"]
    subject_id: UUID
    attempts: int
    created_at: Instant
    not_before: Instant
    not_after: Instant
    sent_at: Instant | None
    last_error: str | None


class StaffMails(Model):
    """Mails, the newest first."""

    mails: list[StaffMail]
    next: str | None = CURSOR


class StaffEvent(Model):
    """A line of the audit trail. `actor_id`: the account that did it; `data.by`: how somebody without one came."""

    id: UUID
    at: Instant
    name: str
    actor_id: UUID | None
    subject_id: UUID | None
    ip: str | None
    data: dict[str, str]


class StaffEvents(Model):
    """What happened, the newest first."""

    events: list[StaffEvent]
    next: str | None = CURSOR


class StaffLimit(Model):
    """A limit, and what it did in the worker that answers, since that started.

    `unseen`: what passed uncounted, because the store was away.
    """

    name: str
    limit: int
    window_seconds: int
    per: str
    routes: list[str]
    taken: int
    refused: int
    unseen: int


class StaffHashing(Model):
    """How many passwords the worker that answers has to hash: those that wait, and those at work."""

    waiting: int
    running: int


class StaffLimits(Model):
    """The limits, where they are counted, and whether that place answered when it was last asked."""

    enabled: bool
    store: Literal["memory", "postgres", "redis"]
    store_up: bool
    limits: list[StaffLimit]
    hashing: StaffHashing


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise PydanticCustomError("not_a_boolean", "This has to be true or false.")
    return value


def _role(value: object) -> Role:
    if value not in [role.value for role in Role]:  # a list, where what JSON has need not be hashable
        raise PydanticCustomError("unknown_role", "A role is user or admin.")
    return Role(value)


class StaffChangeForm(Form):
    """What is to become of an account; what is left out stays as it is, and all of it must not be."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["disabled"]}, {"required": ["role"]}]})

    disabled: Annotated[bool | None, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})] = None
    role: Annotated[
        Role | None, PlainValidator(_role), WithJsonSchema({"type": "string", "enum": [role.value for role in Role]})
    ] = None

    def empty(self) -> Fault | None:
        """Return what is wrong when there is nothing to do."""
        if self.model_fields_set:
            return None
        return Fault(field="disabled", message="Send disabled, role, or both.", code="missing")
