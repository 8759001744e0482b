"""The recipes of docs/recipes.md, in an order in which each finds what it needs."""

import re
from typing import Final

from tests.letters import LINK
from tests.recipes import Letter, Recipe

ADA: Final = "ada@example.org"
KATHERINE: Final = "katherine@example.org"
GRACE: Final = "grace@example.org"
COUNTESS: Final = "countess@example.org"
PASSWORD: Final = "analytical engine"
NEW: Final = "difference engine"
NEWEST: Final = "bernoulli numbers"
BASIC: Final = f"{ADA}:{PASSWORD}"
CODE: Final = re.compile(r"(?m)^\s*(\d{4})\s*$")
LONG_CODE: Final = re.compile(r"(?m)^\s*(\d{6})\s*$")
TOKEN: Final = re.compile(r"(?m)([\w-]{43})\s*$")
TOKENS: Final = {"ACCESS": "access_token", "REFRESH": "refresh_token"}
LOGIN: Final = {"email": ADA, "password": PASSWORD}

ACCOUNT: Final = (
    Recipe("Register", "POST /v1/users/register", LOGIN, status=201),
    Recipe(
        "Wait until the mail has left",
        "GET /v1/users/registration?wait=15",
        who=BASIC,
        says="Without `wait` it answers at once.",
    ),
    Recipe(
        "Have another code mailed",
        "POST /v1/users/resend-code",
        who=BASIC,
        says="The newest code is the good one.",
        status=202,
        mail={"CODE": Letter(ADA, CODE, 2)},
    ),
    Recipe("Activate", "POST /v1/users/activate", {"code": "$CODE"}, BASIC, "`$CODE` is in the mail."),
    Recipe(
        "Register with a link to follow",
        "POST /v1/users/register",
        {"email": KATHERINE, "password": PASSWORD},
        says="Every mail with a code has a link too, for whoever has used up the tries of the code.",
        status=201,
        mail={"LINK": Letter(KATHERINE, LINK)},
    ),
    Recipe(
        "Activate with the token of the link",
        "POST /v1/users/activate",
        {"token": "$LINK"},
        f"{KATHERINE}:{PASSWORD}",
        "It is what follows the `#`.",
    ),
    Recipe("Get the page that does so", "GET /activate", says="The link leads people here."),
    Recipe(
        "Register somebody else, in German",
        "POST /v1/users/register",
        {"email": GRACE, "username": "grace", "locale": "de", "password": PASSWORD},
        status=201,
    ),
    Recipe(
        "Have a code mailed that is a proof by itself",
        "POST /v1/auth/send-code",
        {"email": GRACE},
        says="The answer is the same for every address.",
        status=202,
        mail={"LONG_CODE": Letter(GRACE, LONG_CODE)},
    ),
    Recipe(
        "Activate and log in with it",
        "POST /v1/auth/verify",
        {"email": GRACE, "code": "$LONG_CODE"},
        says="The account has no password until one is reset: who reads the mail need not be who registered.",
        keep={"GRACE": "user.id"},
    ),
)

SESSIONS: Final = (
    Recipe(
        "Log in",
        "POST /v1/auth/login",
        LOGIN,
        says="`identifier` instead of `email` takes a username too.",
        keep=TOKENS,
    ),
    Recipe(
        "Get new tokens",
        "POST /v1/auth/refresh",
        {"refresh_token": "$REFRESH"},
        says="A refresh token is good once; should the answer be lost, the same one comes again for ten seconds.",
        keep=TOKENS,
    ),
    Recipe("Log in elsewhere", "POST /v1/auth/login", LOGIN, keep={"ELSEWHERE": "access_token"}),
    Recipe("See where one is logged in", "GET /v1/sessions", who="$ACCESS", keep={"SESSION": "sessions.0.id"}),
    Recipe("See one of the sessions", "GET /v1/sessions/$SESSION", who="$ACCESS"),
    Recipe("End it", "DELETE /v1/sessions/$SESSION", who="$ACCESS", status=204),
    Recipe(
        "Use a token of an ended session",
        "GET /v1/users/me",
        who="$ELSEWHERE",
        says="This is what every problem looks like: `error` is for programs, `detail` for people.",
        status=401,
    ),
    Recipe("Log out", "POST /v1/auth/logout", who="$ACCESS", status=204),
    Recipe("Log in again", "POST /v1/auth/login", LOGIN, keep=TOKENS),
    Recipe("Log out everywhere", "POST /v1/auth/logout/all", who="$ACCESS", status=204),
    Recipe("Log in once more", "POST /v1/auth/login", LOGIN, keep=TOKENS),
    Recipe(
        "End all sessions", "DELETE /v1/sessions", who="$ACCESS", says="The same, for those who like it so.", status=204
    ),
    Recipe("Fetch the keys that tell an access token", "GET /.well-known/jwks.json"),
)

PROFILE: Final = (
    Recipe("Log in", "POST /v1/auth/login", LOGIN, keep={**TOKENS, "ADA": "user.id"}),
    Recipe("See one's account", "GET /v1/users/me", who="$ACCESS"),
    Recipe("Change a part of it", "PATCH /v1/users/me", {"username": "ada"}, "$ACCESS"),
    Recipe(
        "Say all of it anew",
        "PUT /v1/users/me",
        {"username": "ada", "locale": "en-GB"},
        "$ACCESS",
        "What is left out is taken away.",
    ),
    Recipe(
        "Change the password",
        "POST /v1/users/me/password",
        {"current_password": PASSWORD, "new_password": NEW},
        "$ACCESS",
        "All other sessions end.",
        status=204,
    ),
    Recipe(
        "Ask for another address",
        "POST /v1/users/me/email",
        {"new_email": COUNTESS, "password": NEW},
        "$ACCESS",
        status=202,
        mail={"CODE": Letter(COUNTESS, LONG_CODE)},
    ),
    Recipe(
        "Prove it",
        "POST /v1/users/me/email/confirm",
        {"code": "$CODE"},
        "$ACCESS",
        "`$CODE` is in the mail to the new address; the old one is told.",
    ),
    Recipe(
        "Forget the password",
        "POST /v1/auth/forgot-password",
        {"email": COUNTESS},
        says="The answer is the same for every address.",
        status=202,
        mail={"TOKEN": Letter(COUNTESS, TOKEN)},
    ),
    Recipe(
        "Set a new one with the token of the mail",
        "POST /v1/auth/reset-password",
        {"token": "$TOKEN", "new_password": NEWEST},
        says="All sessions end.",
        status=204,
    ),
    Recipe("Get the page that does so", "GET /reset-password", says="The mail's link leads people here."),
)

OPERATIONS: Final = (
    Recipe("Does the process turn?", "GET /livez"),
    Recipe("Is it ready for requests?", "GET /readyz"),
    Recipe("How do its parts do?", "GET /v1/health"),
    Recipe("Does the database answer?", "GET /v1/health/db"),
    Recipe(
        "What was counted?",
        "GET /v1/metrics",
        says="By all workers of the machine, with percentiles for each route. Where `REGSVC_METRICS_TOKEN` is set, it "
        "is shown as a bearer token; an administrator's will do too.",
    ),
    Recipe("The same for Prometheus", "GET /metrics", says="OpenMetrics, or older text with `Accept: text/plain`."),
    Recipe("What is where?", "GET /"),
    Recipe("The API, for programs", "GET /openapi.json"),
    Recipe("The same for people", "GET /docs"),
    Recipe("Watch the service", "GET /ops", says="Administrators sign in on the page."),
    Recipe("Every problem there is", "GET /problems"),
    Recipe("What one of them means", "GET /problems/weak-password"),
    Recipe("A style sheet of these pages", "GET /assets/pages.css"),
)

STAFF: Final = (
    Recipe(
        "Look for accounts",
        "GET /v1/admin/users?query=grace&limit=10",
        who="$ADMIN",
        says="`$ADMIN` is the service's `REGSVC_ADMIN_TOKEN`, or the access token of somebody of the role `admin`.",
    ),
    Recipe("See an account", "GET /v1/admin/users/$GRACE", who="$ADMIN"),
    Recipe(
        "Give it another role",
        "PATCH /v1/admin/users/$GRACE",
        {"role": "admin"},
        "$ADMIN",
    ),
    Recipe("See where it is logged in", "GET /v1/admin/users/$GRACE/sessions", who="$ADMIN"),
    Recipe("End its sessions", "DELETE /v1/admin/users/$GRACE/sessions", who="$ADMIN", status=204),
    Recipe(
        "Disable another",
        "PATCH /v1/admin/users/$ADA",
        {"disabled": True},
        "$ADMIN",
        "Its sessions end; `false` enables it again.",
    ),
    Recipe("Enable it", "PATCH /v1/admin/users/$ADA", {"disabled": False}, "$ADMIN"),
    Recipe("Look at mails", "GET /v1/admin/mails?limit=1", who="$ADMIN", keep={"MAIL": "mails.0.id"}, until='"sent"'),
    Recipe(
        "Send one again",
        "POST /v1/admin/mails/$MAIL/retry",
        who="$ADMIN",
        says="Only a dead one, or this is the answer: that one has arrived.",
        status=404,
    ),
    Recipe("Forget one", "POST /v1/admin/mails/$MAIL/discard", who="$ADMIN", says="Likewise.", status=404),
    Recipe("Read what happened", "GET /v1/admin/events?limit=2", who="$ADMIN"),
    Recipe("See how the limits stand", "GET /v1/admin/limits", who="$ADMIN"),
    Recipe(
        "Follow the log",
        "GET /v1/admin/logs/stream?event=mail_dead,login_refused",
        who="$ADMIN",
        says="Each line of all processes of the service as an event `line`; without `-m 1` there is no end to it.",
        seconds=1,
    ),
    Recipe(
        "Delete an account",
        "DELETE /v1/admin/users/$GRACE",
        who="$ADMIN",
        says="Not the last administrator; somebody else is gone with a 204.",
        status=409,
    ),
)

LEAVING: Final = (
    Recipe("Log in", "POST /v1/auth/login", {"email": COUNTESS, "password": NEWEST}, keep=TOKENS),
    Recipe(
        "Delete one's account",
        "DELETE /v1/users/me",
        {"password": NEWEST},
        "$ACCESS",
        "With its sessions and unsent mails; the address is free again.",
        status=204,
    ),
)

BOOK: Final = {
    "Register, activate": ACCOUNT,
    "Log in, sessions": SESSIONS,
    "One's account": PROFILE,
    "Administration": STAFF,
    "Operations": OPERATIONS,
    "Leave": LEAVING,
}
