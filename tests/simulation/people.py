"""Who uses the service in a simulation: people with mailboxes, those who only guess, and an administrator.

Everybody does what chance says, one thing after the other or several copies of it at once. What they are told goes into
the ledger where an invariant is about it.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from math import inf
from typing import Final, Literal, Protocol

import trio

from regsvc.domain.delivery import Letter
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Role
from regsvc.domain.staff import Actor, By, Newcomer, Wish
from regsvc.domain.values import Email, LinkToken, Secret, Username
from regsvc.flows.account import Activated, Credentials, Noted, Registered, Registration
from regsvc.flows.errand import Errand
from regsvc.flows.profile import Keep
from regsvc.flows.session import Admitted, Visitor, Where
from regsvc.ports import Dispatch
from tests.simulation import ledger
from tests.simulation.keys import InUse
from tests.simulation.life import LOST, Life, Lost
from tests.simulation.relay import Mailboxes

Deeds = list[tuple[Callable[[], Awaitable[None]], int]]
Asked = Callable[[Life, Errand], Awaitable[object]]
TRIES: Final = 5
NAMES: Final = ("ada", "bob", "eve", "kim", "lee", "max")
BOSS: Final = Actor(By.ADMIN_TOKEN)


class Town(Protocol):
    """Where people live."""

    ledger: ledger.Ledger
    boxes: Mailboxes
    hangs_up: float
    closes: float  # on Trio's clock: nobody begins anything later
    keyed: bool  # whether requests have keys

    def pick(self, rng: random.Random) -> Life: ...

    def say(self, line: str) -> None: ...


def email(text: str) -> Email:
    parsed = Email.parse(text)
    assert isinstance(parsed, Email)
    return parsed


def told(answer: object) -> str:
    """Say in a word what was answered."""
    match answer:
        case Refused(why=why, attempts_left=left):
            return why.value if left is None else f"{why.value} ({left} left)"
        case Registered() | Activated():
            return f"{type(answer).__name__} {answer.id}"
        case Lost() | InUse():
            return repr(answer)
        case None | int():
            return str(answer)
        case _:
            return type(answer).__name__


@dataclass
class Person:
    """Somebody with an address and a password; `reads`: the mails that come there too."""

    town: Town
    name: str
    email: Email
    password: Secret
    rng: random.Random
    reads: bool
    tokens: list[Admitted] = field(default_factory=list)
    stage: Literal["nobody", "registered", "active"] = "nobody"  # as far as this is known here
    keys: Iterator[int] = field(default_factory=count)

    async def live(self, things: int) -> None:
        """Do so many things, or fewer if the time is over."""
        if self.rng.random() < 0.6:
            await self.join()
        for _ in range(things):
            if trio.current_time() >= self.town.closes:
                return
            deeds, weights = zip(*self._deeds(), strict=True)
            await self.rng.choices(deeds, weights)[0]()
            await self._rest(self.rng.choice((0.0, 0.2, 1, 3, 10)))

    def _deeds(self) -> Deeds:
        """What somebody may do now, and how likely it is."""
        deeds: Deeds = [(self.login, 2), (self.forgot, 1), (self.prove, 1), (self.ask_how_it_stands, 1)]
        match self.stage:
            case "nobody":
                return [*deeds, (self.register, 8)]
            case "registered":
                return [
                    *deeds, (self.activate, 6), (self.guess, 4), (self.resend, 4), (self.follow, 2), (self.register, 2),
                ]  # fmt: skip
            case "active":
                deeds += [(self.login, 6), (self.forgot, 1), (self.activate, 1), (self.register, 1)]
        if self.tokens:
            deeds += [
                (self.refresh, 10), (self.leave, 2), (self.change_password, 3), (self.move, 3), (self.rename, 2),
                (self.remove, 2),
            ]  # fmt: skip
        return deeds

    async def ask(self, what: str, work: Asked) -> object:
        """Ask one of the processes; say what came of it."""
        rng, town = self.rng, self.town
        calls, seconds = 0, inf
        if rng.random() < town.hangs_up:
            calls, seconds = rng.choice(((rng.randint(1, 12), inf), (0, rng.uniform(0, 0.6))))
        life = town.pick(rng)
        answer = await life.serve(self.name, work, calls=calls, seconds=seconds)
        town.say(f"{self.name} {what} at {life.name}: {told(answer)}")
        return answer

    async def once(self, what: str, work: Asked) -> object:
        """Ask; with an Idempotency-Key, where people have them, and again with the same one while no answer comes."""
        if not self.town.keyed:
            return await self.ask(what, work)
        key, heard = f"{self.name}'s {next(self.keys)}", list[object]()
        self.town.ledger.answers[key] = heard

        async def asked() -> None:
            keyed: Asked = lambda life, errand: life.keys.once(key, errand, partial(work, life))  # noqa: E731
            answer = await self.ask(f"{what} with {key}", keyed)
            if not isinstance(answer, Lost | InUse):
                heard.append(answer)

        for _ in range(TRIES):
            await self.at_once(self.rng.choice((1, 1, 1, 2)), asked)
            if trio.current_time() >= self.town.closes or (heard and self.rng.random() < 0.8):
                break
            await self._rest(self.rng.choice((0.0, 0.3, 5)))
        return heard[-1] if heard else LOST

    async def at_once(self, copies: int, ask: Callable[[], Awaitable[None]]) -> None:
        """Do something several times at once."""
        if copies == 1:
            await ask()
            return
        async with trio.open_nursery() as nursery:
            for _ in range(copies):
                nursery.start_soon(ask)

    def mails(self, letter: Letter) -> list[Dispatch]:
        """The letters of a kind that came, if this is who reads them."""
        return [m for m in self.town.boxes.mails[self.email.key] if m.letter is letter] if self.reads else []

    async def wait_for(self, letter: Letter, seconds: float = 30.0) -> Dispatch | None:
        """Wait for one that is newer than those that came; return the newest."""
        before = len(self.mails(letter))
        with trio.move_on_after(min(seconds, max(0.0, self.town.closes - trio.current_time()))):
            while self.reads and len(self.mails(letter)) <= before:
                await self.town.boxes.arrived.wait()
        return next(reversed(self.mails(letter)), None)

    async def _rest(self, mean: float) -> None:
        left = max(0.0, self.town.closes - trio.current_time())
        await trio.sleep(min(left, self.rng.expovariate(1 / mean) if mean else 0.0))

    @property
    def who(self) -> Credentials:
        return Credentials(self.email, self.password)

    @property
    def where(self) -> Where:
        return Where(self.rng.choice(("Firefox on Linux", "Safari on iPhone")), "192.0.2.1")

    # ------------------------------------------------------------------------------------- before the account

    async def join(self) -> None:
        """What most people do: register, wait for the code, show it, log in."""
        await self._rest(2)
        await self.register()
        await self.wait_for(Letter.ACTIVATION)
        await self.activate()
        await self.login()

    async def register(self) -> None:
        name = Username.parse(self.rng.choice(("alpha", "beta"))) if self.rng.random() < 0.3 else None
        form = Registration(self.email, self.password, name if isinstance(name, Username) else None, None, self.name)
        answer = await self.once("registers", lambda life, errand: life.accounts.register(form, errand))
        if isinstance(answer, Registered | Noted | Lost) and self.stage == "nobody":
            self.stage = "registered"
        if isinstance(answer, Refused) and answer.why is Refusal.USER_ALREADY_EXISTS:
            self.stage = "active"
        if isinstance(answer, Registered):
            self.town.ledger.acknowledged.append(ledger.Acknowledged(answer.id, self.email.key))

    async def resend(self) -> None:
        await self.once("asks for another code", lambda life, errand: life.accounts.resend(self.who, errand))

    async def ask_how_it_stands(self) -> None:
        wait = timedelta(seconds=self.rng.choice((0, 0, 3)))
        await self.ask("asks how it stands", lambda life, errand: life.accounts.standing(self.who, wait, errand))

    async def activate(self) -> None:
        """Show the newest code, or an older one; perhaps several times at once."""
        came = [mail.code for mail in self.mails(Letter.ACTIVATION) if mail.code is not None]
        if not came:
            await self.guess()
            return
        code = came[-1] if self.rng.random() < 0.8 else self.rng.choice(came)
        await self.at_once(self.rng.choice((1, 1, 1, 2, 4)), lambda: self._show(code, "shows a code"))

    async def guess(self) -> None:
        """Show codes that are nobody's but by chance."""
        copies = self.rng.choice((1, 1, 1, 3, 7))
        await self.at_once(copies, lambda: self._show(Secret(f"{self.rng.randrange(10**6):06}"), "guesses"))
        if self.mails(Letter.ACTIVATION) and self.rng.random() < 0.3:
            await self.activate()

    async def _show(self, code: Secret, what: str) -> None:
        password, key = self.password, self.email.key
        answer = await self.once(what, lambda life, errand: life.accounts.activate(self.who, code, errand))
        noted = self.town.ledger
        if isinstance(answer, Activated):
            noted.activated.append(ledger.Activated(answer.id, password.reveal(), code, "activate"))
            self.stage = "active"
        elif isinstance(answer, Refused) and answer.why is Refusal.INVALID_ACTIVATION_CODE:
            noted.missed[key] += 1
        elif isinstance(answer, Refused) and answer.why is Refusal.USER_ALREADY_ACTIVATED:
            self.stage = "active"

    async def follow(self) -> None:
        """Follow the link of a letter."""
        came = [mail.link for mail in self.mails(Letter.ACTIVATION) if mail.link is not None]
        if not came:
            return
        token, password = LinkToken.parse(self.rng.choice(came).reveal()), self.password
        answer = await self.once("follows a link", lambda life, errand: life.accounts.follow(self.who, token, errand))
        if isinstance(answer, Activated) and token is not None:
            shown = ledger.Activated(answer.id, password.reveal(), token.secret, "link")
            self.town.ledger.activated.append(shown)

    async def prove(self) -> None:
        """Ask for the longer code, and show it without the password."""
        await self.once("asks for a proof", lambda life, errand: life.recovery.send_code(self.email, errand))
        mail = await self.wait_for(Letter.VERIFY, 15)
        if mail is not None and mail.code is not None:
            code = mail.code
            work: Asked = lambda life, errand: life.sessions.verify(self.email, code, self.where, errand)  # noqa: E731
            self._admitted(await self.ask("verifies", work))

    # ------------------------------------------------------------------------------------------- with one

    async def login(self) -> None:
        password = self.password if self.rng.random() < 0.8 else Secret("a wrong password")
        work: Asked = lambda life, errand: life.sessions.login(self.email, password, self.where, errand)  # noqa: E731
        self._admitted(await self.ask("logs in", work))

    def _admitted(self, answer: object) -> None:
        if isinstance(answer, Admitted):
            self.stage = "active"
            self.tokens.append(answer)

    async def refresh(self) -> None:
        """Use the newest token, or one that was used before; perhaps several times at once."""
        token = (self.tokens[-1] if self.rng.random() < 0.8 else self.rng.choice(self.tokens)).refresh_token

        async def once() -> None:
            work: Asked = lambda life, errand: life.sessions.refresh(token, self.where, errand)  # noqa: E731
            self._admitted(await self.ask("refreshes", work))

        await self.at_once(self.rng.choice((1, 1, 2, 3)), once)

    async def _visitor(self) -> Visitor | None:
        token = self.tokens[-1].access_token.reveal()
        answer = await self.ask("comes", lambda life, _: life.sessions.authenticate(token))
        return answer if isinstance(answer, Visitor) else None

    async def leave(self) -> None:
        visitor = await self._visitor()
        if visitor is not None and self.rng.random() < 0.5:
            await self.ask("logs out", lambda life, errand: life.sessions.logout(visitor, errand))
        elif visitor is not None:
            await self.ask("logs out everywhere", lambda life, errand: life.sessions.logout_all(visitor, errand))

    async def change_password(self) -> None:
        visitor, new = await self._visitor(), Secret(f"another password {self.rng.randrange(100)}")
        if visitor is not None:
            current = self.password
            answer = await self.once(
                "changes the password",
                lambda life, errand: life.profiles.change_password(visitor, current, new, errand),
            )
            if answer is None or answer is LOST:  # who got no answer will find out
                self.password = new

    async def rename(self) -> None:
        visitor, name = await self._visitor(), Username.parse(self.rng.choice(("alpha", "beta", "gamma")))
        if visitor is not None and isinstance(name, Username):
            await self.ask(
                "takes a name", lambda life, _: life.profiles.change(visitor, username=name, locale=Keep.KEEP)
            )

    async def move(self) -> None:
        """Propose another address, and confirm it by the code that comes there."""
        visitor = await self._visitor()
        if visitor is None:
            return
        there = email(f"{self.rng.choice(NAMES)}@example.org")
        work: Asked = lambda life, errand: life.profiles.propose_email(visitor, there, self.password, errand)  # noqa: E731
        await self.ask("proposes an address", work)
        await trio.sleep(self.rng.uniform(0, 10))
        came = [mail.code for mail in self.town.boxes.mails[there.key] if mail.letter is Letter.CHANGE_EMAIL]
        code = next((one for one in reversed(came) if one is not None), Secret("000000"))
        await self.ask("confirms it", lambda life, errand: life.profiles.confirm_email(visitor, code, errand))

    async def remove(self) -> None:
        visitor = await self._visitor()
        if visitor is not None:
            password = self.password
            await self.ask("deletes the account", lambda life, errand: life.profiles.remove(visitor, password, errand))
            self.tokens.clear()
            self.stage = "nobody"

    async def forgot(self) -> None:
        """Ask for a new password, and set it by the token that comes."""
        await self.once("forgot the password", lambda life, errand: life.recovery.forgot(self.email, errand))
        mail = await self.wait_for(Letter.RESET, 15)
        if mail is not None and mail.code is not None:
            token, new = LinkToken.parse(mail.code.reveal()), Secret(f"a new password {self.rng.randrange(100)}")
            answer = await self.once("sets a password", lambda life, errand: life.recovery.reset(token, new, errand))
            if answer is None or answer is LOST:
                self.password = new


class Boss(Person):
    """Who administers: by the admin token, so nobody's account is needed."""

    def _deeds(self) -> Deeds:
        return [(self.create, 2), (self.judge, 4), (self.tidy_mails, 3)]

    async def join(self) -> None:
        await self.create()

    async def create(self) -> None:
        who = Newcomer(email(f"{self.rng.choice(NAMES)}@example.org"), role=self.rng.choice(tuple(Role)))
        await self.ask("makes an account", lambda life, _: life.staff.create(BOSS, who, Secret("given by the boss")))

    async def judge(self) -> None:
        """Disable, enable, promote, log out or delete somebody."""
        page = await self.ask("looks", lambda life, _: life.staff.list(query=None, sought=None, before=None, limit=10))
        items = getattr(page, "items", ())
        if not items:
            return
        rng, user = self.rng, self.rng.choice(items).id
        wish = Wish(disabled=rng.choice((None, True, False)), role=rng.choice((None, *Role)))
        acts: tuple[tuple[str, Asked], ...] = (
            ("changes somebody", lambda life, _: life.staff.change(BOSS, user, wish)),
            ("ends sessions", lambda life, _: life.staff.end_sessions(BOSS, user)),
            ("deletes somebody", lambda life, _: life.staff.remove(BOSS, user)),
        )
        await self.ask(*rng.choices(acts, (3, 1, 1))[0])

    async def tidy_mails(self) -> None:
        page = await self.ask("looks at mails", lambda life, _: life.staff.mails(state="dead", before=None, limit=10))
        items = getattr(page, "items", ())
        if not items:
            return
        mail = items[0].id
        if self.rng.random() < 0.5:
            await self.ask("retries a mail", lambda life, errand: life.staff.retry_mail(BOSS, mail, errand))
        else:
            await self.ask("discards a mail", lambda life, errand: life.staff.discard_mail(BOSS, mail, errand))
