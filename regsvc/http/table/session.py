"""Log in, sessions, recovery, and the keys that tell a token of ours."""

from collections.abc import Mapping
from typing import Any, Final

from regsvc.domain.quota import Limit
from regsvc.http import kinds, models
from regsvc.http.forms import AddressForm, Form, LoginForm, RefreshForm, ResetForm, VerifyForm
from regsvc.http.kinds import Kind
from regsvc.http.routes import HTML, Auth, Parameter, Route, Success, Tag, under_v1
from regsvc.http.session import CODE_SENT, FORGOTTEN
from regsvc.http.table.parts import ANY_BODY, ID, NOON, PROFILE

_PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - an example
_REFRESH: Final = "qXbWq1mZ3kD0yM5n8u2s7vPjRtL6hGfCeAoIiUxYwKs"
_ADMITTED: Final = {
    "access_token": "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsxIn0.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "token_type": "Bearer",
    "expires_in": 1800,
    "refresh_token": _REFRESH,
    "user": PROFILE,
}
_SESSION: Final = {
    "id": ID,
    "device": "Firefox on Windows",
    "ip": "203.0.113.9",
    "created_at": NOON,
    "last_used_at": NOON,
    "expires_at": "2026-12-20T11:00:00.123Z",
    "current": True,
}
_SESSION_ID: Final = Parameter("session_id", "path", "The session's id.", {"type": "string", "format": "uuid"})
_DONE: Final = Success("Done.", status=204)


def _post(
    path: str,
    name: str,
    summary: str,
    description: str,
    success: Success,
    *problems: Kind,
    auth: Auth = Auth.NONE,
    body: type[Form] | None = None,
    body_example: Mapping[str, Any] | None = None,
    limits: tuple[Limit, ...] = (),
) -> Route:
    """Return a POST under `/auth` at its three places; with a form, it has the problems of a body."""
    return Route(
        name=name,
        method="POST",
        path=f"/v1{path}",
        aliases=under_v1(path, bare=path),
        tag=Tag.SESSION,
        summary=summary,
        description=description,
        auth=auth,
        body=body,
        body_example=body_example,
        success=success,
        problems=(*(() if body is None else ANY_BODY), *problems, kinds.SERVICE_UNAVAILABLE),
        limits=limits,
    )


def _session(
    method: str, path: str, name: str, summary: str, success: Success, *problems: Kind, description: str = ""
) -> Route:
    return Route(
        name=name,
        method=method,
        path=f"/v1{path}",
        aliases=under_v1(path, bare=path),
        tag=Tag.SESSION,
        summary=summary,
        description=description,
        auth=Auth.BEARER,
        parameters=(_SESSION_ID,) if "{session_id}" in path else (),
        success=success,
        problems=(kinds.INVALID_ACCESS_TOKEN, *problems, kinds.SERVICE_UNAVAILABLE),
    )


SESSION: Final = (
    _post(
        "/auth/login",
        "login",
        "Log in",
        "With the address or the username, in `email` or `identifier`. Opens a session; its refresh token is in the "
        "answer, or in a cookie where the service is told to (`REGSVC_COOKIES`).",
        Success("Logged in.", models.Admitted, _ADMITTED),
        kinds.INVALID_CREDENTIALS,
        kinds.NOT_ACTIVATED,
        kinds.ACCOUNT_DISABLED,
        kinds.OVERLOADED,
        body=LoginForm,
        body_example={"identifier": "alice@example.com", "password": _PASSWORD},
        limits=(Limit.LOGIN, Limit.LOGIN_ACCOUNT),
    ),
    _post(
        "/auth/verify",
        "verify",
        "Activate with the longer code alone, and log in",
        "The code is a proof by itself; `POST /v1/auth/send-code` mails one. An account that begins so has no "
        "password until one is set by `POST /v1/auth/forgot-password`: who reads the mail need not be who registered.",
        Success("Active, and logged in.", models.Admitted, _ADMITTED),
        kinds.INVALID_EMAIL,
        kinds.INVALID_ACTIVATION_CODE,
        kinds.ACTIVATION_CODE_EXPIRED,
        kinds.TOO_MANY_ATTEMPTS,
        body=VerifyForm,
        body_example={"email": "alice@example.com"},
    ),
    _post(
        "/auth/send-code",
        "send_code",
        "Have the longer code mailed",
        "The answer is the same whether or not the address waits to be proved.",
        Success("Taken note of.", models.Accepted, {"message": CODE_SENT}, 202),
        kinds.INVALID_EMAIL,
        body=AddressForm,
        body_example={"email": "alice@example.com"},
    ),
    _post(
        "/auth/refresh",
        "refresh",
        "Get new tokens",
        "Each refresh token is good once, and its answer has the next. Shown again within ten seconds, while the next "
        "one is unused, it gives the same one again (a lost answer, two tabs); later it ends the session. Where "
        "cookies are enabled and the body has no token, the cookie's is used, and the request has to come from a page "
        "of the service's own origin.",
        Success("New tokens.", models.Admitted, _ADMITTED),
        kinds.INVALID_REFRESH_TOKEN,
        kinds.FORBIDDEN,
        auth=Auth.COOKIE,
        body=RefreshForm,
        body_example={"refresh_token": _REFRESH},
    ),
    _post(
        "/auth/logout",
        "logout",
        "End this session",
        "Its access tokens are refused from now on, by every process.",
        _DONE,
        kinds.INVALID_ACCESS_TOKEN,
        auth=Auth.BEARER,
    ),
    _post(
        "/auth/logout/all",
        "logout_all",
        "End all sessions, this one too",
        "Their access tokens are refused from now on, by every process.",
        _DONE,
        kinds.INVALID_ACCESS_TOKEN,
        auth=Auth.BEARER,
    ),
    _post(
        "/auth/forgot-password",
        "forgot_password",
        "Have a link for a new password mailed",
        "The answer is the same whether or not the address has an account. The link opens `/reset-password`.",
        Success("Taken note of.", models.Accepted, {"message": FORGOTTEN}, 202),
        kinds.INVALID_EMAIL,
        body=AddressForm,
        body_example={"email": "alice@example.com"},
    ),
    _post(
        "/auth/reset-password",
        "reset_password",
        "Set a new password with the token of the mail",
        "All sessions end, and the owner is told by mail.",
        Success("The password is the new one.", status=204),
        kinds.INVALID_RESET_TOKEN,
        kinds.WEAK_PASSWORD,
        kinds.OVERLOADED,
        body=ResetForm,
        body_example={"token": "AZOdbnfIfSuaUy9vHBtMDpMdNqX7Jk0Zr1LwTq8uYxE", "new_password": _PASSWORD},
    ),
    _session(
        "GET",
        "/sessions",
        "sessions",
        "List one's sessions",
        Success("Those that are alive, the newest first.", models.Sessions, {"sessions": [_SESSION]}),
    ),
    _session(
        "DELETE",
        "/sessions",
        "end_sessions",
        "End all sessions, this one too",
        _DONE,
        description="As `POST /v1/auth/logout/all`.",
    ),
    _session(
        "GET",
        "/sessions/{session_id}",
        "session",
        "See a session",
        Success("The session.", models.Session, _SESSION),
        kinds.NOT_FOUND,
        description="Somebody else's are as unknown as those that never were.",
    ),
    _session(
        "DELETE",
        "/sessions/{session_id}",
        "end_session",
        "End a session",
        _DONE,
        kinds.NOT_FOUND,
        description="Somebody else's are as unknown as those that never were.",
    ),
    Route(
        name="jwks",
        method="GET",
        path="/.well-known/jwks.json",
        tag=Tag.SESSION,
        summary="The public keys of access tokens",
        description="A JWK set (RFC 7517). Look again when a token names a key that is not known.",
        success=Success(
            "The keys.",
            models.KeySet,
            {
                "keys": [
                    {
                        "kty": "OKP",
                        "crv": "Ed25519",
                        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                        "kid": "k1",
                        "alg": "EdDSA",
                        "use": "sig",
                    }
                ]
            },
        ),
    ),
    Route(
        name="reset_page",
        method="GET",
        path="/reset-password",
        tag=Tag.SESSION,
        summary="The page on which a person sets a new password",
        description="The mail's link leads here; its token is in the fragment, which no server is told and no log has.",
        success=Success("The page.", media_type=HTML),
    ),
)
