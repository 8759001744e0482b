"""Every "no" as an RFC 9457 problem: one total table from refusals, and the bytes.

Every `Refusal` has its words here (a test holds the table to the enum); no handler words one itself.
Nothing of the inside shows: no SQL, no trace, no version; a bug is its request id.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from regsvc.domain.refusals import Refusal, Refused
from regsvc.http import kinds
from regsvc.http.kinds import Kind
from regsvc.http.models import Fault, LegacyDetail, LegacyProblem, Problem
from regsvc.ports import Unavailable

MEDIA_TYPE: Final = "application/problem+json"
LEGACY_PREFIX: Final = "/api/v1/"
BASIC: Final = 'Basic realm="regsvc", charset="UTF-8"'  # RFC 7617
BEARER: Final = 'Bearer realm="regsvc"'  # RFC 6750; browsers ask nobody for a password because of it


@dataclass(frozen=True, slots=True)
class Told:
    """A problem as one client is told it; `why` is its name in the log."""

    kind: Kind
    why: str
    detail: str
    hint: str | None = None
    errors: tuple[Fault, ...] = ()
    attempts_left: int | None = None
    retry_after: timedelta | None = None
    resend_available_at: datetime | None = None
    allow: tuple[str, ...] = ()
    challenge: str = BEARER  # of a 401, where the route does not take Basic
    cookie: str | None = field(default=None, repr=False)  # a Set-Cookie that comes with it

    @property
    def retry_after_seconds(self) -> int | None:
        """Whole seconds, rounded up: who waits that long has waited long enough."""
        return None if self.retry_after is None else max(1, whole_seconds(self.retry_after))


def whole_seconds(wait: timedelta) -> int:
    """Return a wait as headers and problems tell it: rounded up, in this one place, so that all of them agree."""
    return math.ceil(wait.total_seconds())


def tell(kind: Kind, detail: str | None = None, *, hint: str | None = None, errors: Sequence[Fault] = ()) -> Told:
    """Tell of a problem that no refusal stands behind."""
    return Told(kind, kind.word, detail or kind.detail, hint, tuple(errors))


NO_HINTS: Final[Mapping[Refusal, str]] = {}
_INVALID_TOKEN: Final = f'{BEARER}, error="invalid_token"'  # RFC 6750, 3.1
_SEND_CODE: Final = "Ask for a new one with POST /v1/auth/send-code."
_PROPOSE: Final = "Ask for the change again: POST /v1/users/me/email."
_RESEND: Final = "Ask for a new one with POST /v1/users/resend-code and the same credentials."

REFUSALS: Final[Mapping[Refusal, Told]] = {
    refusal: Told(
        kind,
        refusal.value,
        detail or kind.detail,
        hint,
        errors,
        challenge=_INVALID_TOKEN if refusal is Refusal.INVALID_ACCESS_TOKEN else BEARER,
    )
    for refusal, kind, detail, hint, errors in (
        (
            Refusal.USER_ALREADY_EXISTS,
            kinds.USER_ALREADY_EXISTS,
            "An account with this e-mail address exists.",
            "Log in with it, or register another address.",
            (),
        ),
        (
            Refusal.USERNAME_TAKEN,
            kinds.USER_ALREADY_EXISTS,
            "This username is taken.",
            "Choose another username, or leave it out.",
            (Fault(field="username", message="This username is taken.", code="taken"),),
        ),
        (
            Refusal.REGISTRATION_PENDING,
            kinds.USER_ALREADY_EXISTS,
            "This e-mail address is being registered already; a code is on its way to it.",
            "Activate with the code in the mail, or register again after Retry-After seconds.",
            (),
        ),
        (Refusal.INVALID_CREDENTIALS, kinds.INVALID_CREDENTIALS, None, None, ()),
        (Refusal.INVALID_ACTIVATION_CODE, kinds.INVALID_ACTIVATION_CODE, None, None, ()),
        (Refusal.ACTIVATION_CODE_EXPIRED, kinds.ACTIVATION_CODE_EXPIRED, None, _RESEND, ()),
        (Refusal.USER_ALREADY_ACTIVATED, kinds.USER_ALREADY_ACTIVATED, None, None, ()),
        (
            Refusal.TOO_MANY_ATTEMPTS,
            kinds.TOO_MANY_ATTEMPTS,
            None,
            "Wait for Retry-After seconds, then ask for a new code with POST /v1/users/resend-code.",
            (),
        ),
        (Refusal.TOO_MANY_MAILS, kinds.RATE_LIMIT_EXCEEDED, "This address was sent too many mails lately.", None, ()),
        (Refusal.RESEND_TOO_SOON, kinds.RESEND_TOO_SOON, None, None, ()),
        (Refusal.NOT_ACTIVATED, kinds.NOT_ACTIVATED, None, "Activate with POST /v1/users/activate.", ()),
        (Refusal.ACCOUNT_DISABLED, kinds.ACCOUNT_DISABLED, None, None, ()),
        (
            Refusal.INVALID_ACCESS_TOKEN,
            kinds.INVALID_ACCESS_TOKEN,
            None,
            "Get a new one with POST /v1/auth/refresh, or log in.",
            (),
        ),
        (Refusal.INVALID_REFRESH_TOKEN, kinds.INVALID_REFRESH_TOKEN, None, "Log in again.", ()),
        (
            Refusal.INVALID_RESET_TOKEN,
            kinds.INVALID_RESET_TOKEN,
            None,
            "Ask for a new one with POST /v1/auth/forgot-password.",
            (),
        ),
        (Refusal.INVALID_CODE, kinds.INVALID_CODE, None, None, ()),
        (Refusal.CODE_EXPIRED, kinds.CODE_EXPIRED, None, _PROPOSE, ()),
        (Refusal.WRONG_PASSWORD, kinds.INVALID_CREDENTIALS, "The password is wrong.", None, ()),
        (Refusal.WEAK_PASSWORD, kinds.WEAK_PASSWORD, None, None, ()),
        (Refusal.NOT_ADMIN, kinds.FORBIDDEN, "This is for administrators.", None, ()),
        (
            Refusal.CSRF_SUSPECTED,
            kinds.FORBIDDEN,
            "The request carries a cookie, but comes from a page of another origin.",
            None,
            (),
        ),
        (Refusal.NO_SUCH_USER, kinds.NOT_FOUND, "There is no such user.", None, ()),
        (Refusal.NO_SUCH_SESSION, kinds.NOT_FOUND, "There is no such session.", None, ()),
        (Refusal.NO_SUCH_MAIL, kinds.NOT_FOUND, "There is no such mail, or it is not a dead one.", None, ()),
        (Refusal.LAST_ADMIN, kinds.LAST_ADMIN, None, None, ()),
        (Refusal.RATE_LIMITED, kinds.RATE_LIMIT_EXCEEDED, None, "Wait for Retry-After seconds.", ()),
    )
}


def told(refused: Refused, hints: Mapping[Refusal, str] = NO_HINTS) -> Told:
    """Word a refusal; `hints` say what to do about it on this route, where that is not what helps elsewhere."""
    words = REFUSALS[refused.why]
    if refused.why in hints:
        words = replace(words, hint=hints[refused.why])
    if refused.flaw is not None:
        fault = Fault(field=refused.field or "password", message=refused.flaw.message, code=refused.flaw.code)
        words = replace(words, detail=fault.message, errors=(fault,))
    return replace(
        words,
        attempts_left=refused.attempts_left,
        retry_after=refused.retry_after,
        resend_available_at=refused.resend_available_at,
    )


UNAUTHORIZED: Final = REFUSALS[Refusal.INVALID_CREDENTIALS]
BAD_TOKEN: Final = REFUSALS[Refusal.INVALID_ACCESS_TOKEN]
NO_TOKEN: Final = replace(BAD_TOKEN, challenge=BEARER)  # none was shown


REASK_CODE: Final[Mapping[Refusal, str]] = {
    Refusal.ACTIVATION_CODE_EXPIRED: _SEND_CODE,
    Refusal.TOO_MANY_ATTEMPTS: "Wait for Retry-After seconds, then ask for a new code with POST /v1/auth/send-code.",
}
"""What helps whoever shows a code without a password."""
REASK_EMAIL: Final[Mapping[Refusal, str]] = {
    Refusal.TOO_MANY_ATTEMPTS: "Wait for Retry-After seconds, then ask for the change again: POST /v1/users/me/email.",
    Refusal.USER_ALREADY_EXISTS: "Choose another address.",
}
"""What helps whoever changes his address."""


def unavailable(outage: Unavailable) -> Told:
    """Word an outage; what failed and why is for the log only."""
    kind = kinds.OVERLOADED if outage.what == "hasher" else kinds.SERVICE_UNAVAILABLE
    return replace(tell(kind), retry_after=outage.retry_after)


class Dialect(Enum):
    """How `detail` is written."""

    STANDARD = "standard"
    LEGACY = "legacy"  # under /api/v1

    @classmethod
    def of(cls, path: str) -> "Dialect":
        """Return how problems are written at a path."""
        return cls.LEGACY if path.startswith(LEGACY_PREFIX) else cls.STANDARD


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes problems; `base` is the public URL their types begin with."""

    base: str

    def body(self, problem: Told, instance: str, dialect: Dialect = Dialect.STANDARD) -> bytes:
        """Return the JSON of a problem."""
        return self.model(problem, instance, dialect).model_dump_json(exclude_none=True).encode()

    def model(self, problem: Told, instance: str, dialect: Dialect) -> Problem | LegacyProblem:
        """Return a problem as the client gets it."""
        kind = problem.kind
        members = {
            "type": f"{self.base}/problems/{kind.slug}",
            "title": kind.title,
            "status": kind.status,
            "instance": instance,
            "error": kind.name,
            "message": problem.detail,
            "hint": problem.hint,
            "errors": list(problem.errors) or None,
            "attempts_left": problem.attempts_left,
            "retry_after_seconds": problem.retry_after_seconds,
            "resend_available_at": problem.resend_available_at,
        }
        if dialect is Dialect.LEGACY:
            detail = LegacyDetail(error=kind.name, message=problem.detail, hint=problem.hint)
            return LegacyProblem.model_validate({**members, "detail": detail})
        return Problem.model_validate({**members, "detail": problem.detail})


def headers(problem: Told, *, basic: bool = False) -> dict[str, str]:
    """Return the headers that belong to a problem, its content type among them; `basic`: the route takes Basic."""
    head = {"Content-Type": MEDIA_TYPE}
    if problem.kind.status == 401:
        head["WWW-Authenticate"] = BASIC if basic else problem.challenge
    if problem.cookie is not None:
        head["Set-Cookie"] = problem.cookie
    if problem.retry_after_seconds is not None:
        head["Retry-After"] = str(problem.retry_after_seconds)
    if problem.allow:
        head["Allow"] = ", ".join(sorted(problem.allow))
    return head
