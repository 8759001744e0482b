"""People with accounts on a real service, and two services on one database."""

import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from regsvc.http.routes import EVENTS
from tests import letters
from tests.chaos.ledger import PASSWORD, PLAIN
from tests.service import READY_SECONDS, Service, lines_of
from tests.waiting import until_asked

SECRET = "one secret of all the services of a test"
TOKEN = re.compile(r"^[A-Za-z0-9_-]{43}$", re.MULTILINE)
ADMIN_TOKEN = "a-machine-shows-this-to-administer-the-service"
METRICS_TOKEN = "a-scraper-shows-this-to-read-the-metrics"
_numbers = count(1)


def new_email(name: str = "someone") -> str:
    """Return an address that nobody has."""
    return f"{name}-{next(_numbers)}@example.test"


@asynccontextmanager
async def client(service: Service, **how: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of a service."""
    how = {"timeout": 20, "limits": lines_of(), **how}
    async with httpx.AsyncClient(base_url=service.url, verify=PLAIN, **how) as http:
        yield http


async def answer_of(http: httpx.AsyncClient, method: str, target: str, **how: Any) -> httpx.Response:
    """Ask; of a stream, which has no end, only the head is waited for."""
    async with http.stream(method, target, **how) as answer:
        if not answer.headers.get("Content-Type", "").startswith(EVENTS):
            await answer.aread()
        return answer


async def mails(http: httpx.AsyncClient, email: str) -> list[str]:
    """Return the texts of the mails to an address, newest first."""
    answer = await http.get("/api/v2/search", params={"kind": "to", "query": email})
    return [item["Content"]["Body"].replace("\r\n", "\n") for item in answer.json()["items"]]


async def mail_with(http: httpx.AsyncClient, email: str, pattern: re.Pattern[str], but: tuple[str, ...] = ()) -> str:
    """Wait for a mail to an address that has `pattern` on a line, other than those in `but`; return the match."""
    found: list[str] = []

    async def came() -> bool:
        matches = [match[0] for text in await mails(http, email) for match in pattern.finditer(text)]
        found[:] = [match for match in matches if match not in but]
        return bool(found)

    await until_asked(came)
    return found[0]


async def link_for(http: httpx.AsyncClient, email: str, number: int = 1) -> str:
    """Wait for the `number`th letter with a link to an address; return its token."""
    found: list[str] = []

    async def came() -> bool:
        answer = await http.get("/api/v2/search", params={"kind": "to", "query": email})
        found[:] = [match[1] for text in letters.read(answer) if (match := letters.LINK.search(text))]
        return len(found) >= number

    await until_asked(came)
    return found[0]


def digits(number: int) -> re.Pattern[str]:
    """Return what finds a code of so many digits: alone on its line."""
    return re.compile(rf"^\d{{{number}}}$", re.MULTILINE)


@dataclass
class Person:
    """Somebody with an account, who logs in and out through `http`."""

    http: httpx.AsyncClient
    email: str
    password: str = PASSWORD
    id: str = ""
    access: str = ""
    refresh: str = ""

    @property
    def bearer(self) -> dict[str, str]:
        """The header that says who he is."""
        return {"Authorization": f"Bearer {self.access}"}

    async def register(self) -> httpx.Response:
        """Register, and no more."""
        return await self.http.post("/v1/users/register", json={"email": self.email, "password": self.password})

    async def sign_up(self) -> "Person":
        """Register, read the code, activate."""
        made = await self.register()
        assert made.status_code == 201, made.text
        code = await mail_with(self.http, self.email, digits(4))
        who = (self.email, self.password)
        done = await self.http.post("/v1/users/activate", json={"code": code}, auth=who)
        assert done.status_code == 200, done.text
        self.id = done.json()["id"]
        return self

    async def log_in(self, agent: str = "tests") -> "Person":
        """Log in; the tokens are kept."""
        answer = await self.try_login(agent)
        assert answer.status_code == 200, answer.text
        self.keep(answer.json())
        return self

    async def try_login(self, agent: str = "tests") -> httpx.Response:
        """Ask to log in."""
        form = {"email": self.email, "password": self.password}
        return await self.http.post("/v1/auth/login", json=form, headers={"User-Agent": agent})

    def keep(self, admitted: dict[str, Any]) -> None:
        """Take over what a login gave."""
        self.access, self.refresh = admitted["access_token"], admitted["refresh_token"]
        self.id = admitted["user"]["id"]

    async def me(self, http: httpx.AsyncClient | None = None) -> httpx.Response:
        """Ask who one is, of another service perhaps."""
        return await (http or self.http).get("/v1/users/me", headers=self.bearer)

    async def again(self, token: str | None = None) -> httpx.Response:
        """Ask for new tokens."""
        return await self.http.post("/v1/auth/refresh", json={"refresh_token": token or self.refresh})


async def somebody(http: httpx.AsyncClient, name: str = "someone") -> Person:
    """Return a new account that is logged in."""
    return await (await Person(http, new_email(name)).sign_up()).log_in()


@contextmanager
def on_database(folder: Path, dsn: str, number: int = 1, **environ: str) -> Iterator[list[Service]]:
    """Run `number` services on one database (REGSVC_ variables as given); end them whatever happens."""
    told = {
        "DATABASE_URL": dsn,
        "PROFILE": "dev",
        "SECRET": SECRET,
        "PUBLIC_URL": "http://accounts.example.test",  # one for all: it is the issuer of their tokens
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "PASSWORD_ROUNDS": "4",
        "RESEND_COOLDOWN": "0",
        "HASH_QUEUE": "1000",
        "MAIL_CHANNEL": "mailbox",
        **environ,
    }
    with ExitStack() as stack:
        services = []
        for one in range(number):
            service = Service(folder / f"service {one}", {f"REGSVC_{name}": value for name, value in told.items()})
            stack.callback(service.end)
            service.start()
            services.append(service)
        yield services


def command(service: Service, *arguments: str, given: str = "", status: int = 0, **environ: str) -> str:
    """Run `regsvc …` with the settings of a service; return what it said on stdout."""
    inherited = {"PATH": "/usr/bin:/bin", "HOME": str(service.folder), "PYTHONWARNINGS": "error"}
    changed = {f"REGSVC_{name}": value for name, value in environ.items()}
    done = subprocess.run(
        [sys.executable, "-m", "regsvc", *arguments],
        cwd=service.folder,
        env=inherited | dict(service.environ) | changed,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, f"{done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


async def eventually(ask: Callable[[], Awaitable[httpx.Response]], status: int) -> httpx.Response:
    """Ask until the answer has this status."""
    last: list[httpx.Response] = []

    async def has() -> bool:
        with contextlib.suppress(httpx.TransportError):
            last[:] = [await ask()]
        return bool(last) and last[0].status_code == status

    await until_asked(has, READY_SECONDS)
    return last[0]
