"""Every expected "no" of the service, as values: a closed list, and what the person may be told with it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from regsvc.domain.values import Flaw


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
    NOT_ACTIVATED = "not_activated"
    ACCOUNT_DISABLED = "account_disabled"
    INVALID_ACCESS_TOKEN = "invalid_access_token"  # noqa: S105 - a name
    INVALID_REFRESH_TOKEN = "invalid_refresh_token"  # noqa: S105 - a name
    INVALID_RESET_TOKEN = "invalid_reset_token"  # noqa: S105 - a name
    INVALID_CODE = "invalid_code"  # of an e-mail change
    CODE_EXPIRED = "code_expired"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a name; of somebody who is logged in
    WEAK_PASSWORD = "weak_password"  # noqa: S105 - a name
    NOT_ADMIN = "not_admin"
    CSRF_SUSPECTED = "csrf_suspected"
    NO_SUCH_USER = "no_such_user"
    NO_SUCH_SESSION = "no_such_session"
    NO_SUCH_MAIL = "no_such_mail"
    LAST_ADMIN = "last_admin"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal with what the person may know of it; times are on the database's clock."""

    why: Refusal
    attempts_left: int | None = None
    retry_after: timedelta | None = None
    resend_available_at: datetime | None = None
    flaw: Flaw | None = None  # what is wrong with `field`, where it is one that is refused
    field: str | None = None
