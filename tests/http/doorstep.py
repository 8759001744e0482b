"""The real app over the real flows, with the ports in memory: what a client sees, and what the log says."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import trio
from quart.testing.utils import sentinel
from quart.wrappers import Response
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from regsvc.adapters.crypto import Keys, Seals
from regsvc.domain import session
from regsvc.domain.account import Code, Rules
from regsvc.domain.delivery import LINK
from regsvc.domain.session import User
from regsvc.domain.values import Email, EmailKey, LinkToken, PasswordRules, Secret
from regsvc.flows.account import ACTIVATE, Accounts
from regsvc.flows.profile import CHANGE_EMAIL, Profiles
from regsvc.flows.quota import Limits
from regsvc.flows.recovery import RESET, Recovery
from regsvc.flows.session import VERIFY, Sessions
from regsvc.flows.staff import Staff
from regsvc.http.app import Flows, Knobs, make_app
from regsvc.http.receipt import Receipts
from regsvc.ports import BoxedMail, Unavailable
from tests import canaries
from tests.flows.fakes import PATIENCE, Dice, Hashing, Members, Telegraph, Tokens
from tests.flows.quota_fakes import FREE, Buckets, limited
from tests.flows.receipt_fakes import Counter
from tests.flows.staff_fakes import Desk, StaffShelf
from tests.flows.unit import StoredCode

URL = "https://id.example.org"
PASSWORD = "correct horse battery staple"
EMAIL = "alice@example.com"
LEASE = timedelta(seconds=25)
PASSWORDS = PasswordRules(common=frozenset({"password"}))


@dataclass
class Pulse:
    """A Probe one can stop: `silent` never answers, `away` says so."""

    away: bool = False
    silent: bool = False
    current: bool = True
    asked: int = 0

    async def ping(self) -> timedelta:
        await self._ask()
        return timedelta(microseconds=412)

    async def migrated(self) -> bool:
        await self._ask()
        return self.current

    async def _ask(self) -> None:
        self.asked += 1
        if self.silent:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("database", "it is not there")


@dataclass
class Pigeonhole:
    """A Mailbox in memory."""

    mails: list[BoxedMail] = field(default_factory=list)
    made: int = 0
    away: bool = False

    def drop(self, to: str, *, subject: str, text: str, html: str, raw: bytes, at: datetime) -> BoxedMail:
        self.made += 1
        mail = BoxedMail(UUID(int=self.made), at, "regsvc <no-reply@example.org>", to, subject, text, html, raw)
        self.mails.insert(0, mail)
        return mail

    async def put(self, *, sender: str, to: str, subject: str, text: str, html: str, raw: bytes) -> None:
        raise NotImplementedError("the tests of the front only read")

    async def list(self, *, to: str | None, start: int, limit: int) -> tuple[int, Sequence[BoxedMail]]:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unavailable("database", "it is not there")
        found = [mail for mail in self.mails if to is None or mail.to.lower() == to.lower()]
        return len(found), found[start : start + limit]

    async def show(self, mail: UUID) -> BoxedMail | None:
        await trio.lowlevel.checkpoint()
        return next((one for one in self.mails if one.id == mail), None)

    async def remove(self, mail: UUID) -> bool:
        before = len(self.mails)
        self.mails[:] = [one for one in self.mails if one.id != mail]
        await trio.lowlevel.checkpoint()
        return len(self.mails) < before

    async def clear(self) -> int:
        gone = len(self.mails)
        self.mails.clear()
        await trio.lowlevel.checkpoint()
        return gone


@dataclass
class Doorstep:
    """The app, and everything behind it."""

    shelf: StaffShelf = field(default_factory=StaffShelf)
    hashing: Hashing = field(default_factory=Hashing)
    dice: Dice = field(default_factory=Dice)
    news: Telegraph = field(default_factory=Telegraph)
    tokens: Tokens = field(default_factory=Tokens)
    pulse: Pulse = field(default_factory=Pulse)
    seals: Seals = field(default_factory=lambda: Seals(Keys.derive(Secret("a secret of the tests of the front"))))
    limits: Limits = field(default_factory=lambda: limited(Buckets(), FREE))
    mailbox: Pigeonhole | None = field(default_factory=Pigeonhole)
    knobs: Knobs = field(default_factory=lambda: Knobs(URL, passwords=PASSWORDS))
    rules: Rules = field(default_factory=Rules)
    session_rules: session.Rules = field(default_factory=session.Rules)
    _app: QuartTrio | None = None

    def __post_init__(self) -> None:
        self.counter = Counter(self.shelf.kept)

    @property
    def app(self) -> QuartTrio:
        if self._app is None:
            self._app = make_app(
                self.flows(),
                tokens=self.tokens,
                probe=self.pulse,
                receipts=Receipts(self.counter, self.seals, LEASE),
                limits=self.limits,
                mailbox=self.mailbox,
                knobs=self.knobs,
            )
        return self._app

    def flows(self) -> Flows:
        """Return the flows over the ports in memory."""
        shelf, hashing, dice, rules = self.shelf, self.hashing, self.dice, self.rules
        begin, members, ring, passwords = shelf.begin, Members(shelf), lambda: None, self.knobs.passwords
        desk = Desk(shelf, shelf.letters)
        return Flows(
            Accounts(begin, shelf, hashing, dice, self.news, ring, rules),
            Sessions(begin, members, shelf, hashing, dice, self.tokens, ring, self.session_rules, rules, PATIENCE),
            Recovery(begin, members, hashing, dice, ring, rules, passwords, PATIENCE),
            Profiles(begin, hashing, dice, ring, rules, passwords, PATIENCE),
            Staff(begin, shelf, members, desk, hashing, dice, passwords, PATIENCE),
        )

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        who: str | None = None,
        bearer: str | None = None,
        peer: str = "192.0.2.1",
    ) -> "Answer":
        """Ask as a client does: `body` is sent as JSON, `raw` as it is, `who` as Basic, `bearer` as that,
        by a connection of `peer`.
        """
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None and not any(name.lower() == "content-type" for name, _ in pairs):
            pairs.append(("Content-Type", "application/json"))
        if who is not None:
            pairs.append(("Authorization", basic(who)))
        if bearer is not None:
            pairs.append(("Authorization", f"Bearer {bearer}"))
            canaries.KNOWN.token("bearer", bearer)
        canaries.KNOWN.body(data or b"")
        with trio.fail_after(30):
            client = self.app.test_client()
            response = await client.open(
                path,
                method=method,
                data=data or b"",
                json=sentinel,
                headers=Headers(pairs),
                scope_base={"client": (peer, 49152)},
            )
            return Answer(response.status_code, response, await response.get_data(as_text=False))

    async def register(self, email: str = EMAIL, password: str = PASSWORD) -> "Answer":
        return await self.ask("POST", "/v1/users/register", {"email": email, "password": password})

    def member(self, email: str = EMAIL, password: str = PASSWORD, **parts: Any) -> User:
        """Put an account there; `parts` are those of a User."""
        return self.shelf.member(email, password, **parts)

    async def login(self, email: str = EMAIL, password: str = PASSWORD, agent: str | None = None) -> Any:
        """Log in as one of the members; return what was answered."""
        headers = [] if agent is None else [("User-Agent", agent)]
        answer = await self.ask("POST", "/v1/auth/login", {"email": email, "password": password}, headers=headers)
        assert answer.status == 200, answer.body
        return answer.json

    def reset_token(self, user: User, lifetime: timedelta = timedelta(minutes=10)) -> str:
        """Store a reset token of a user as the mailer does; return its text."""
        token = LinkToken(user.id, self.dice.new_token())
        mac = self.dice.mac(user.id, RESET, token.secret)
        self.shelf.codes[user.id, RESET] = StoredCode(mac, self.shelf.now + lifetime)
        return token.text().reveal()

    def mint_change(self, user: User, code: str, lifetime: timedelta = timedelta(seconds=60)) -> None:
        """Store the code of a change of address."""
        mac = self.dice.mac(user.id, CHANGE_EMAIL, Secret(code))
        minted = replace(self.shelf.changes[user.id], code=Code(mac, self.shelf.now + lifetime))
        self.shelf.changes[user.id] = minted

    def mint_verify(self, code: str, email: str = EMAIL, lifetime: timedelta = timedelta(minutes=10)) -> None:
        """Store the longer code for the newest claim."""
        key = _key(email)
        address = self.shelf.addresses[key]
        newest, *rest = address.claims
        mac = self.dice.mac(newest.id, VERIFY, Secret(code))
        minted = replace(newest, verify=Code(mac, self.shelf.now + lifetime))
        self.shelf.addresses[key] = replace(address, claims=(minted, *rest))

    def mint_link(self, email: str = EMAIL, lifetime: timedelta = timedelta(minutes=10)) -> str:
        """Store the token of a link for the newest claim, as the mailer does; return its text."""
        key = _key(email)
        address = self.shelf.addresses[key]
        newest, *rest = address.claims
        token = LinkToken(newest.id, self.dice.new_token())
        minted = replace(newest, link=Code(self.dice.mac(newest.id, LINK, token.secret), self.shelf.now + lifetime))
        self.shelf.addresses[key] = replace(address, claims=(minted, *rest))
        return token.text().reveal()

    def mint(self, code: str, email: str = EMAIL, lifetime: timedelta = timedelta(seconds=60)) -> None:
        """Store a code for the newest claim, as the mailer does when it hands the mail over."""
        key = _key(email)
        address = self.shelf.addresses[key]
        newest, *rest = address.claims
        mac = self.dice.mac(newest.id, ACTIVATE, Secret(code))
        minted = replace(newest, code=Code(mac, self.shelf.now + lifetime))
        self.shelf.addresses[key] = replace(address, claims=(minted, *rest))


_NEW = ("x-request-id", "traceparent", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit")


@dataclass(frozen=True)
class Answer:
    status: int
    response: Response
    body: bytes

    @property
    def headers(self) -> Any:
        return self.response.headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def unlike_by_chance(self) -> tuple[int, str, bytes]:
        """Return all of the answer but what is new in each: the ids of request and trace, how limits stand."""
        head = sorted((name.lower(), value) for name, value in self.headers if name.lower() not in _NEW)
        return self.status, str(head), self.body.replace(self.headers["X-Request-ID"].encode(), b"")

    def problem(self, status: int, name: str) -> dict[str, Any]:
        """Return the problem; fail unless it is one, complete, of that name."""
        found: dict[str, Any] = self.json
        assert (self.status, found.get("error")) == (status, name), found
        assert self.headers["Content-Type"] == "application/problem+json"
        slug = found["type"].removeprefix(f"{URL}/problems/")
        assert slug.replace("-", "") == name.lower()
        assert found["status"] == status
        assert found["instance"] == self.headers["X-Request-ID"]
        assert found["title"]
        assert found["message"]
        return found


def _key(email: str) -> EmailKey:
    parsed = Email.parse(email)
    assert isinstance(parsed, Email)
    return parsed.key


def basic(who: str) -> str:
    return "Basic " + base64.b64encode(who.encode()).decode()
