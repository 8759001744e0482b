"""The service does what its document says: schemathesis against a running server, all of its phases and checks.

The engine is used, as its command line does, rather than its pytest plugin: that builds every example of every
operation when tests are collected, and its fixtures lean on what pytest 9.1 has no more.
"""

import re
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
import schemathesis
from schemathesis.engine import events, from_schema

from regsvc.http.receipt import HEADER
from regsvc.http.table.keyed import KEY
from tests.letters import code_for
from tests.service import Service, lines_of, running

EXAMPLES: Final = 10  # of one round, over all operations: 1,000 rounds are 10,000 examples and more
ADMIN_TOKEN: Final = "what-a-machine-shows-to-administer"
PASSWORD: Final = "a password of some length"
SMALL: Final = 1  # of each operation beside those that its schema calls for, where no rounds are asked for
ACCEPTED: Final = ("2xx", "401", "403", "404", "409", "429")  # what a request that the document allows may meet
ALSO: Final = {
    # No schema tells a weak password, or that a code or a token is another one.
    "register": ("422",),
    "change_password": ("422",),
    "reset_password": ("400", "422"),
    "activate": ("400", "410", "422"),  # 422: both names of the code, and not the same
    "verify": ("400", "410"),
    "confirm_email": ("400", "410"),
    # Without a token in the body it is the cookie's, where the operator has enabled cookies.
    "refresh": ("422",),
    # Cursors are the service's own words.
    "staff_users": ("422",),
    "staff_mails": ("422",),
    "staff_events": ("422",),
}
LENIENT: Final = ("mails", "mailhog_messages", "mailhog_search")  # take what is no number for absent, as MailHog does


@dataclass
class Seen:
    """What a run of schemathesis met."""

    cases: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def take(self, event: events.EngineEvent) -> None:
        """Note what an event tells."""
        match event:
            case events.ScenarioFinished(recorder=recorder):
                for node in recorder.cases.values():
                    self.cases[node.value.operation.label] += 1
                for checks in recorder.checks.values():
                    for check in checks:
                        if check.failure_info is not None:
                            failure = check.failure_info.failure
                            title = f"{recorder.label}: {check.name}: {failure.title}"
                            self.failures[title] = f"{failure.message}\n{check.failure_info.code_sample}"
            case events.NonFatalError(label=label, value=error):
                self.failures[f"{label}: {type(error).__name__}"] = str(error)
            case events.FatalError(exception=error):
                raise error

    def report(self) -> str:
        """Say it for people."""
        return "\n\n".join(f"{title}\n{text}" for title, text in sorted(self.failures.items()))


@dataclass
class Crowd:
    """Who asks: somebody with an account, an administrator, a machine, and whoever has registered only."""

    http: httpx.Client
    tokens: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    waiting: str = ""
    asked: Counter[str] = field(default_factory=Counter)

    def authorization(self, operation: Any) -> str | None:
        """Return what is good for an operation, or None where nothing is asked for."""
        schemes = {name for one in operation.definition.raw.get("security", ()) for name in one}
        self.asked[operation.label] += 1
        if "basic" in schemes:
            return self._basic()
        if "bearer" not in schemes:
            return None
        if "/admin/" not in operation.path:
            return f"Bearer {self._token('user')}"
        machine = self.asked[operation.label] % 2
        return f"Bearer {ADMIN_TOKEN if machine else self._token('admin')}"

    def _basic(self) -> str:
        """Return the credentials of a registration; a new one now and then, for its wrong codes are counted."""
        if self.asked["basic"] % 10 == 0:
            self.waiting = self._register()
        self.asked["basic"] += 1
        return "Basic " + b64encode(f"{self.waiting}:{PASSWORD}".encode()).decode()

    def _token(self, role: str) -> str:
        """Return the access token of somebody of a role: of somebody new if what was done ended the one before."""
        known = self.tokens.get(role)
        if known is None or self._ask("GET", "/v1/users/me", token=known).json().get("role") != role:
            known = self.tokens[role] = self._somebody(role)
        return known

    def _somebody(self, role: str) -> str:
        email = self._register()
        code = code_for(str(self.http.base_url), email)
        self._ask("POST", "/v1/users/activate", {"code": code}, auth=(email, PASSWORD)).raise_for_status()
        user = self._ask("POST", "/v1/auth/login", {"email": email, "password": PASSWORD}).json()
        self._ask("PATCH", f"/v1/admin/users/{user['user']['id']}", {"role": role}, ADMIN_TOKEN).raise_for_status()
        return str(user["access_token"])

    def _register(self) -> str:
        email = f"somebody-{next(self.numbers)}@example.test"
        self._ask("POST", "/v1/users/register", {"email": email, "password": PASSWORD}).raise_for_status()
        return email

    def _ask(
        self, method: str, path: str, form: object = None, token: str = "", auth: tuple[str, str] | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request(method, path, json=form, headers=headers, auth=auth)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        running(
            Path(folder),
            ADMIN_TOKEN=ADMIN_TOKEN,
            PASSWORD_ROUNDS="4",
            HASH_QUEUE="1000",
            RESEND_COOLDOWN="0",
            MAIL_CHANNEL="mailbox",
        ) as it,
    ):
        yield it


def told(url: str, rounds: int | None) -> dict[str, Any]:
    """Return what schemathesis is told. In the large form each of its runs is another one."""
    operations = sum(len(item) for item in httpx.get(f"{url}/openapi.json", timeout=20).json()["paths"].values())
    examples = SMALL if rounds is None else max(SMALL, EXAMPLES * rounds // operations)
    return {
        **({"seed": 1} if rounds is None else {}),
        "request-timeout": 10,
        # NUL is refused in every text, with a 400: PostgreSQL can store none. JSON Schema has no word for that.
        "generation": {"max-examples": examples, "database": "none", "allow-x00": False},
        "output": {"sanitization": {"enabled": False}},  # there are no secrets but ours
        # The server refuses TRACE and what it does not know before there is a path to have methods.
        "phases": {"coverage": {"unexpected-methods": ["get", "put", "post", "delete", "options", "patch"]}},
        "operations": [
            *(
                _of(name, "positive_data_acceptance", {"expected-statuses": [*ACCEPTED, *statuses]})
                for name, statuses in ALSO.items()
            ),
            *(_of(name, "negative_data_rejection", {"enabled": False}) for name in LENIENT),
        ],
    }


def _of(name: str, check: str, how: dict[str, Any]) -> dict[str, Any]:
    return {"include-operation-id-regex": f"^{name}(_at_.*)?$", "checks": {check: how}}


@pytest.fixture
def schema(service: Service, rounds: int | None) -> Iterator[Any]:
    """The document of the service, with somebody who is let in for every operation; in the large form aliases too."""
    config = schemathesis.Config.from_dict(told(service.url, rounds))
    found: Any = schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=config)
    found = found.exclude(operation_id_regex="^(mail_events|staff_log_stream)(_at_.*)?$")  # they never end
    if rounds is None:
        found = found.exclude(tag="Aliases")
    with httpx.Client(base_url=service.url, timeout=20, limits=lines_of()) as http:
        crowd = Crowd(http)

        @found.auth(refresh_interval=None)
        class Shown:
            def get(self, _case: schemathesis.Case[Any], context: schemathesis.AuthContext) -> str:
                return crowd.authorization(context.operation) or ""

            def set(self, case: schemathesis.Case[Any], data: str, _context: schemathesis.AuthContext) -> None:
                if data:
                    case.headers["Authorization"] = data
                key = case.headers.get(HEADER)
                if isinstance(key, str) and re.fullmatch(KEY.schema["pattern"], key):
                    case.headers[HEADER] = f'"{uuid4()}"'  # of its own: else it would meet another request's

        yield found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_operation_does_what_the_document_says(schema: Any, rounds: int | None) -> None:
    seen = Seen()
    for event in from_schema(schema).execute():
        seen.take(event)
    asked = sum(seen.cases.values())
    print(f"{asked} examples of {len(seen.cases)} operations")  # noqa: T201 - the figure to publish
    assert not seen.failures, seen.report()
    assert asked >= EXAMPLES * (rounds or SMALL)
