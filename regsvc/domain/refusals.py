"""Every expected "no" of the service, as values: a closed list, and what the person may be told with it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum


class Refusal(Enum):
    """Why something was refused; the value is its name in logs and metrics, its problem is in `http/problems`."""

    USER_ALREADY_EXISTS = "user_already_exists"
    USERNAME_TAKEN = "username_taken"
    REGISTRATION_PENDING = "registration_pending"
    INVALID_CREDENTIALS = "invalid_credentials"
    INVALID_ACTIVATION_CODE = "invalid_activation_code"
    ACTIVATION_CODE_EXPIRED = "activation_code_expired"
    USER_ALREADY_ACTIVATED = "user_already_activated"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    TOO_MANY_MAILS = "too_many_mails"
    RESEND_TOO_SOON = "resend_too_soon"


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal with what the person may know of it; times are on the database's clock."""

    why: Refusal
    attempts_left: int | None = None
    retry_after: timedelta | None = None
    resend_available_at: datetime | None = None
