"""Register, activate, resend, and how it stands."""

from dataclasses import replace
from typing import Final

from regsvc.domain.quota import Limit
from regsvc.http import kinds, models
from regsvc.http.account import WAIT_MAX
from regsvc.http.forms import ActivateForm, NothingForm, RegisterForm
from regsvc.http.routes import HTML, Auth, Parameter, Route, Success, Tag, under_v1
from regsvc.http.table.parts import ANY_BODY, BUSY, ID, LATER, NOON

ACCOUNT: Final = (
    Route(
        name="register",
        method="POST",
        path="/v1/users/register",
        aliases=under_v1("/users/register", "/registration", bare="/users/register"),
        tag=Tag.ACCOUNT,
        summary="Register an address",
        description="Claims the address and has a code mailed to it. The code's life begins when its mail leaves.",
        body=RegisterForm,
        body_example={"email": "alice@example.com", "password": "correct horse battery staple", "locale": "en"},
        success=Success(
            "Registered; the code is on its way.",
            models.Registration,
            {
                "id": ID,
                "email": "alice@example.com",
                "is_activated": False,
                "created_at": NOON,
                "resend_available_at": LATER,
                "message": "A code is on its way to alice@example.com. Activate with it: POST /v1/users/activate.",
            },
            201,
        ),
        problems=(
            *ANY_BODY,
            kinds.USER_ALREADY_EXISTS,
            kinds.INVALID_EMAIL,
            kinds.WEAK_PASSWORD,
            kinds.RATE_LIMIT_EXCEEDED,
            *BUSY,
        ),
        limits=(Limit.REGISTRATION,),
    ),
    Route(
        name="activate",
        method="POST",
        path="/v1/users/activate",
        aliases=under_v1("/users/activate", "/activation", bare="/users/activate"),
        tag=Tag.ACCOUNT,
        summary="Activate with the code or the link",
        description="Turns the registration into the account of its address; of several tries, one gets the 200. The "
        "`token` of the mail's link does what the code does and cannot be guessed: no try is counted for it.",
        auth=Auth.BASIC,
        body=ActivateForm,
        success=Success(
            "Active.",
            models.User,
            {
                "id": ID,
                "email": "alice@example.com",
                "is_activated": True,
                "activated_at": NOON,
                "message": "The account is active.",
            },
        ),
        problems=(
            *ANY_BODY,
            kinds.INVALID_ACTIVATION_CODE,
            kinds.INVALID_CREDENTIALS,
            kinds.USER_ALREADY_ACTIVATED,
            kinds.ACTIVATION_CODE_EXPIRED,
            kinds.TOO_MANY_ATTEMPTS,
            *BUSY,
        ),
        limits=(Limit.PASSWORD, Limit.ACTIVATION),
    ),
    Route(
        name="resend",
        method="POST",
        path="/v1/users/resend-code",
        aliases=(
            *under_v1("/users/resend-code", "/users/resend-activation", bare="/users/resend-code"),
            "/users/resend-activation",
        ),
        tag=Tag.ACCOUNT,
        summary="Have a new code mailed",
        description="The new code makes every older one invalid when it is handed over. No body is needed.",
        auth=Auth.BASIC,
        body=NothingForm,
        success=Success(
            "A new code is on its way.",
            models.Resent,
            {
                "email": "alice@example.com",
                "resend_available_at": LATER,
                "message": "A new code is on its way to alice@example.com; it replaces the one before.",
            },
            202,
        ),
        problems=(
            *ANY_BODY,
            kinds.INVALID_CREDENTIALS,
            kinds.USER_ALREADY_ACTIVATED,
            kinds.RESEND_TOO_SOON,
            *BUSY,
        ),
        limits=(Limit.PASSWORD,),
    ),
    Route(
        name="standing",
        method="GET",
        path="/v1/users/registration",
        aliases=under_v1("/users/registration", bare="/users/registration"),
        tag=Tag.ACCOUNT,
        summary="See how the registration stands",
        description="With `wait`, answers as soon as the mail was sent or given up, or after that many seconds.",
        auth=Auth.BASIC,
        parameters=(
            Parameter(
                "wait",
                "query",
                "Seconds to wait for the mail to leave.",
                {"type": "integer", "minimum": 0, "maximum": WAIT_MAX, "default": 0},
            ),
        ),
        success=Success(
            "How it stands.",
            models.Standing,
            {
                "id": ID,
                "email": "alice@example.com",
                "mail": "sent",
                "code_expires_at": "2026-11-20T11:01:00.123Z",
                "resend_available_at": LATER,
            },
        ),
        problems=(kinds.INVALID_CREDENTIALS, kinds.USER_ALREADY_ACTIVATED, kinds.VALIDATION_ERROR, *BUSY),
        limits=(Limit.PASSWORD,),
    ),
    Route(
        name="activate_page",
        method="GET",
        path="/activate",
        tag=Tag.ACCOUNT,
        summary="The page on which a person activates with the link",
        description="The mail's link leads here; its token is in the fragment, which no server is told and no log has. "
        "Opening it does nothing yet: it asks for the address and the password.",
        success=Success("The page.", media_type=HTML),
    ),
)

_NOTED: Final = replace(
    ACCOUNT[0],
    description="Has mailed to the address what to do next: a code, or, to the owner of an account, that somebody "
    "tried. The answer, and its time, are the same for every address.",
    success=Success(
        "Taken note of.",
        models.Noted,
        {"email": "alice@example.com", "message": "What to do next is mailed to alice@example.com."},
        202,
    ),
)
UNIFORM_ACCOUNT: Final = (_NOTED, *ACCOUNT[1:])
