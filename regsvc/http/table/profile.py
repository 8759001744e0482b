"""Somebody's own account."""

from collections.abc import Mapping
from typing import Any, Final

from regsvc.domain.quota import Limit
from regsvc.http import kinds, models
from regsvc.http.forms import ConfirmForm, EmailForm, Form, PasswordForm, ProfileForm, RemoveForm
from regsvc.http.kinds import Kind
from regsvc.http.routes import Auth, Route, Success, Tag, under_v1
from regsvc.http.table.parts import ANY_BODY
from regsvc.http.table.parts import PROFILE as _ALICE

_PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - an example
_NEW_PASSWORD: Final = "a much longer horse with batteries"  # noqa: S105 - an example
_ME: Final = "/users/me"


def _me(
    method: str,
    path: str,
    name: str,
    summary: str,
    description: str,
    success: Success,
    *problems: Kind,
    body: type[Form] | None = None,
    body_example: Mapping[str, Any] | None = None,
    limits: tuple[Limit, ...] = (),
) -> Route:
    """Return a route at its three places; with a form, it has the problems of a body."""
    return Route(
        name=name,
        method=method,
        path=f"/v1{path}",
        aliases=under_v1(path, bare=path),
        tag=Tag.PROFILE,
        summary=summary,
        description=description,
        auth=Auth.BEARER,
        body=body,
        body_example=body_example,
        success=success,
        problems=(
            *(() if body is None else ANY_BODY),
            kinds.INVALID_ACCESS_TOKEN,
            *problems,
            kinds.SERVICE_UNAVAILABLE,
        ),
        limits=limits,
    )


PROFILE: Final = (
    _me("GET", _ME, "me", "See one's account", "", Success("The account.", models.Profile, _ALICE)),
    _me(
        "PATCH",
        _ME,
        "change_me",
        "Change parts of one's account",
        "What is absent stays as it is; null takes it away.",
        Success("The account as it is now.", models.Profile, _ALICE),
        kinds.USER_ALREADY_EXISTS,
        body=ProfileForm,
        body_example={"username": "alice"},
    ),
    _me(
        "PUT",
        _ME,
        "replace_me",
        "Say anew what one's account is to be",
        "What is absent is taken away.",
        Success("The account as it is now.", models.Profile, _ALICE),
        kinds.USER_ALREADY_EXISTS,
        body=ProfileForm,
        body_example={"username": "alice", "locale": "en"},
    ),
    _me(
        "DELETE",
        _ME,
        "remove_me",
        "Delete one's account",
        "With its sessions and unsent mails; the address is free again. The last administrator stays.",
        Success("Deleted.", status=204),
        kinds.INVALID_CREDENTIALS,
        kinds.LAST_ADMIN,
        kinds.OVERLOADED,
        body=RemoveForm,
        body_example={"password": _PASSWORD},
        limits=(Limit.PASSWORD,),
    ),
    _me(
        "POST",
        f"{_ME}/password",
        "change_password",
        "Change one's password",
        "All other sessions end, tokens for a new password die, and a notice is mailed.",
        Success("The password is the new one.", status=204),
        kinds.INVALID_CREDENTIALS,
        kinds.WEAK_PASSWORD,
        kinds.OVERLOADED,
        body=PasswordForm,
        body_example={"current_password": _PASSWORD, "new_password": _NEW_PASSWORD},
        limits=(Limit.PASSWORD,),
    ),
    _me(
        "POST",
        f"{_ME}/email",
        "propose_email",
        "Ask for another address",
        "A code is mailed to the new address; until it is shown, the old one stays. A newer wish replaces this one.",
        Success(
            "A code is on its way.",
            models.Proposed,
            {
                "email": "alice@example.org",
                "message": "A code is on its way to alice@example.org. "
                "Confirm with it: POST /v1/users/me/email/confirm.",
            },
            202,
        ),
        kinds.INVALID_CREDENTIALS,
        kinds.USER_ALREADY_EXISTS,
        kinds.INVALID_EMAIL,
        kinds.RESEND_TOO_SOON,
        kinds.OVERLOADED,
        body=EmailForm,
        body_example={"new_email": "alice@example.org", "password": _PASSWORD},
        limits=(Limit.PASSWORD,),
    ),
    _me(
        "POST",
        f"{_ME}/email/confirm",
        "confirm_email",
        "Prove the new address with its code",
        "The account has the new address from now on; the old one is told.",
        Success("The account as it is now.", models.Profile, {**_ALICE, "email": "alice@example.org"}),
        kinds.INVALID_CODE,
        kinds.USER_ALREADY_EXISTS,
        kinds.CODE_EXPIRED,
        kinds.TOO_MANY_ATTEMPTS,
        body=ConfirmForm,
    ),
)
