"""The closed list of problems: what a client may be told, what each means, and what to do about it.

A kind has one name and one status for ever; every kind has a page at `/problems/<slug>`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem. `name` is what programs compare; `detail` is said when there is nothing more exact to say."""

    name: str
    status: int
    title: str
    detail: str
    meaning: str
    remedy: str

    @property
    def slug(self) -> str:
        """The last part of its `type`, and of its page's address."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower()

    @property
    def word(self) -> str:
        """Its name in logs and metrics."""
        return self.slug.replace("-", "_")


MALFORMED_REQUEST = Kind(
    "MalformedRequest",
    400,
    "The request cannot be read",
    "The body is not a JSON object.",
    "The body is not JSON as the service takes it: one object in UTF-8, at most 32 levels deep, no key twice, "
    "no NaN or Infinity, no NUL, no half of a surrogate pair; or the request line or a header is not HTTP.",
    "Build the body with a JSON library rather than by hand; `detail` says what was met.",
)
INVALID_ACTIVATION_CODE = Kind(
    "InvalidActivationCode",
    400,
    "The activation code is wrong",
    "This is not the code of the newest mail.",
    "The code is another one, or of another mail, or of another registration of the address; the same is true of the "
    "token of a link. A newer mail makes every older one invalid.",
    "Take the code, or the link, from the newest mail. `attempts_left` says how often a code may still be tried.",
)
INVALID_CREDENTIALS = Kind(
    "InvalidCredentials",
    401,
    "The credentials are missing or wrong",
    "The e-mail address, the username or the password is wrong, or they were not sent as the route takes them.",
    "The service does not say which of them is wrong, nor whether the address or the name is known.",
    "Routes of a registration take `Authorization: Basic` with its address and its password, in UTF-8; "
    "`POST /v1/auth/login` takes them in its body, and those who are logged in show their password there too.",
)
INVALID_CODE = Kind(
    "InvalidCode",
    400,
    "The code is wrong",
    "This is not the code of the newest mail.",
    "The code that was mailed to the new address is another one; a newer one makes every older one invalid.",
    "Take the code from the newest mail. `attempts_left` says how often it may still be tried.",
)
INVALID_RESET_TOKEN = Kind(
    "InvalidResetToken",
    400,
    "The reset token is not good",
    "The reset token is wrong, was used, or has expired.",
    "A reset token works once, for a short time, and only the newest one of an account does.",
    "Ask for a new one with `POST /v1/auth/forgot-password`.",
)
INVALID_ACCESS_TOKEN = Kind(
    "InvalidAccessToken",
    401,
    "The access token is missing or not good",
    "The access token is missing, wrong, or expired, or its session has ended.",
    "The route needs `Authorization: Bearer` with the access token of a session that lives.",
    "Get a new one with `POST /v1/auth/refresh`; where that is refused too, log in again.",
)
INVALID_REFRESH_TOKEN = Kind(
    "InvalidRefreshToken",
    401,
    "The refresh token is not good",
    "The refresh token is wrong, was used, or has expired, or its session has ended.",
    "A refresh token works once; its use gives the next one. One that is shown again later ends the session.",
    "Log in again.",
)
NOT_ACTIVATED = Kind(
    "NotActivated",
    403,
    "The address is not proved yet",
    "The password is right, but the account is not activated yet.",
    "The registration waits for the code that was mailed.",
    "Activate with `POST /v1/users/activate`; `POST /v1/users/resend-code` sends a new code.",
)
ACCOUNT_DISABLED = Kind(
    "AccountDisabled",
    403,
    "The account is disabled",
    "This account is disabled.",
    "An administrator has disabled the account.",
    "Ask the operator of the service.",
)
FORBIDDEN = Kind(
    "Forbidden",
    403,
    "This is not yours to do",
    "This needs rights that you do not have.",
    "Who asks is known, but may not do this; or a cookie came with a request from a page of another origin.",
    "Ask an administrator; a page asks from the service's own origin, or without cookies.",
)
NOT_FOUND = Kind(
    "NotFound",
    404,
    "There is nothing here",
    "No resource has this address.",
    "The path is not one of the API's, or what it names does not exist.",
    "`/openapi.json` lists every path, `/docs` shows them.",
)
METHOD_NOT_ALLOWED = Kind(
    "MethodNotAllowed",
    405,
    "The method is not for this resource",
    "The resource exists, but not for this method.",
    "The path is right, the method is not.",
    "Use one of the methods in the `Allow` header.",
)
REQUEST_TIMEOUT = Kind(
    "RequestTimeout",
    408,
    "The request did not arrive in time",
    "The request did not arrive in time.",
    "A request's head has 5 seconds to arrive, its body 10 more.",
    "Send it again, in one piece.",
)
USER_ALREADY_EXISTS = Kind(
    "UserAlreadyExists",
    409,
    "The address or the name is taken",
    "An account with this e-mail address exists.",
    "The address has an account, or a registration whose code is still good; or the username is somebody's.",
    "Log in; or, after `Retry-After`, register again; or take another username when `errors` names it.",
)
USER_ALREADY_ACTIVATED = Kind(
    "UserAlreadyActivated",
    409,
    "The account is active already",
    "This account is active already.",
    "The address was proved before; there is nothing left to activate and no code to send.",
    "Go on as after an activation.",
)
CODE_EXPIRED = Kind(
    "CodeExpired",
    410,
    "The code has expired",
    "There is no code that is still good.",
    "The code lives for a short time from the moment its mail is handed over, and none is alive now.",
    "Ask for the change again: `POST /v1/users/me/email`.",
)
IDEMPOTENCY_KEY_IN_USE = Kind(
    "IdempotencyKeyInUse",
    409,
    "A request with this key is under way",
    "A request with this Idempotency-Key is being answered right now.",
    "The first request with the key has not been answered yet, so this one waits for its answer rather than being done "
    "beside it.",
    "Send the same request with the same key again after `Retry-After` seconds: it gets the first one's answer.",
)
LAST_ADMIN = Kind(
    "LastAdmin",
    409,
    "This is the last administrator",
    "This is the last administrator; somebody has to be one.",
    "Without this account nobody could administer the service, so it is neither deleted nor disabled nor demoted.",
    "Make somebody else an administrator first.",
)
ACTIVATION_CODE_EXPIRED = Kind(
    "ActivationCodeExpired",
    410,
    "The activation code has expired",
    "There is no code that is still good.",
    "A code lives for a short time from the moment its mail is handed over, and none is alive now.",
    "Ask for a new one with `POST /v1/users/resend-code` and the same credentials; for a code that is shown without "
    "a password, with `POST /v1/auth/send-code`.",
)
PAYLOAD_TOO_LARGE = Kind(
    "PayloadTooLarge",
    413,
    "The body is too large",
    "The body may have 16384 bytes at most.",
    "A body has at most 16 KiB; the rest was not read.",
    "Send only the fields that the route takes.",
)
UNSUPPORTED_MEDIA_TYPE = Kind(
    "UnsupportedMediaType",
    415,
    "The body is not application/json",
    "Send the body as application/json in UTF-8, and not compressed.",
    "Bodies are JSON in UTF-8. Forms are refused so that a foreign page cannot send them.",
    "Set `Content-Type: application/json`, and no `Content-Encoding`.",
)
VALIDATION_ERROR = Kind(
    "ValidationError",
    422,
    "Some fields are not right",
    "Some fields are not right.",
    "The body is readable, but fields are missing, unknown, or not what they should be.",
    "`errors` has every one of them with a message for people and a code for programs; correct all and send again.",
)
IDEMPOTENCY_KEY_REUSED = Kind(
    "IdempotencyKeyReused",
    422,
    "The key belongs to another request",
    "This Idempotency-Key came with another body before.",
    "A key stands for one request: its route, its credentials, its body. This one was used for another body within the "
    "last 24 hours, or so many bodies came with it that it is good for none any more.",
    "Make a new key (a random UUID) for each thing to be done, and keep it only to send that very request again.",
)
INVALID_EMAIL = Kind(
    "InvalidEmail",
    422,
    "This is not an e-mail address",
    "This is not an e-mail address.",
    "The address cannot be one; the service does not try to deliver to find out.",
    "Show `errors[0].message` beside the field.",
)
WEAK_PASSWORD = Kind(
    "WeakPassword",
    422,
    "The password is too weak",
    "The password is too weak.",
    "It is too short or too long, one character over and over, among those that everybody tries first, or the address, "
    "the name or the service's name, with or without digits and signs around it. "
    "There are no rules about digits or capitals.",
    "Show `errors[0].message` beside the field; longer is better.",
)
TOO_MANY_ATTEMPTS = Kind(
    "TooManyAttempts",
    429,
    "Too many wrong codes",
    "Too many wrong codes were tried.",
    "A code can be tried a few times, and an address has a budget of wrong codes a day; one of the two is used up.",
    "Wait for `Retry-After`, then ask for a new code as you asked for this one; `hint` says how. The link in an "
    "activation mail works meanwhile: no tries are counted for it.",
)
RESEND_TOO_SOON = Kind(
    "ResendTooSoon",
    429,
    "The next mail has to wait",
    "A mail was sent a moment ago.",
    "There is a pause between two mails to one address, and a number of mails an hour.",
    "Ask again at `resend_available_at`; the code in the newest mail stays good until then.",
)
RATE_LIMIT_EXCEEDED = Kind(
    "RateLimitExceeded",
    429,
    "Too much of this for now",
    "This was done too often.",
    "A limit on how often something may be done is reached.",
    "Wait for `Retry-After` seconds.",
)
HEADERS_TOO_LARGE = Kind(
    "HeadersTooLarge",
    431,
    "The head of the request is too large",
    "The request line and the headers are too large.",
    "Request line and headers together have at most 16 KiB.",
    "Send fewer or shorter headers.",
)
INTERNAL_ERROR = Kind(
    "InternalError",
    500,
    "Something went wrong on our side",
    "Something went wrong on our side. Nothing you can do differently; the id of this request is in instance.",
    "A mistake in the service. It was logged with the id of the request.",
    "Try again; if it stays, tell the operator the id in `instance`.",
)
OVERLOADED = Kind(
    "Overloaded",
    503,
    "The service has too much to do",
    "The service has too much to do right now.",
    "More was asked than can be done in good time, so this request was refused at once. Nothing is half-done.",
    "Send the same request again after `Retry-After` seconds.",
)
SERVICE_UNAVAILABLE = Kind(
    "ServiceUnavailable",
    503,
    "A part of the service is away",
    "A part of the service is away for the moment.",
    "Something the service needs, such as its database, does not answer, or the service is being restarted.",
    "Send the same request again after `Retry-After` seconds; if the answer was lost, sending it again is safe.",
)

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        MALFORMED_REQUEST,
        INVALID_ACTIVATION_CODE,
        INVALID_CODE,
        INVALID_RESET_TOKEN,
        INVALID_CREDENTIALS,
        INVALID_ACCESS_TOKEN,
        INVALID_REFRESH_TOKEN,
        NOT_ACTIVATED,
        ACCOUNT_DISABLED,
        FORBIDDEN,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        REQUEST_TIMEOUT,
        USER_ALREADY_EXISTS,
        USER_ALREADY_ACTIVATED,
        ACTIVATION_CODE_EXPIRED,
        CODE_EXPIRED,
        IDEMPOTENCY_KEY_IN_USE,
        LAST_ADMIN,
        PAYLOAD_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        VALIDATION_ERROR,
        IDEMPOTENCY_KEY_REUSED,
        INVALID_EMAIL,
        WEAK_PASSWORD,
        TOO_MANY_ATTEMPTS,
        RESEND_TOO_SOON,
        RATE_LIMIT_EXCEEDED,
        HEADERS_TOO_LARGE,
        INTERNAL_ERROR,
        OVERLOADED,
        SERVICE_UNAVAILABLE,
    )
}
