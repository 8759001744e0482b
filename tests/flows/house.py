"""All flows of people over one shelf, and the instruments that strike a story at each of its points."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import trio

from regsvc.domain import account, session
from regsvc.domain.account import Address, Code
from regsvc.domain.delivery import LINK
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import User
from regsvc.domain.values import Email, LinkToken, PasswordRules, Secret
from regsvc.flows.account import ACTIVATE, Accounts, Noted, Registered, Registration
from regsvc.flows.profile import CHANGE_EMAIL, Profiles
from regsvc.flows.recovery import RESET, Recovery
from regsvc.flows.session import VERIFY, Admitted, Sessions, Visitor, Where
from tests.flows.fakes import PASSWORD, PATIENCE, Dice, Hashing, Members, Shelf, Telegraph, Tokens
from tests.flows.unit import StoredCode
from tests.instruments import HangUp

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LAPTOP = Where("Firefox on Linux", "192.0.2.1")
PHONE = Where("Safari on iPhone", "192.0.2.2")
RIGHT = Secret(PASSWORD)
WRONG = Secret("wrong password")
NEW = Secret("another password")
CODE = Secret("004242")


def email(text: str = "ada@example.org") -> Email:
    parsed = Email.parse(text)
    assert isinstance(parsed, Email)
    return parsed


ADA = email()


@dataclass
class House:
    """The flows, the fakes under them, and how often the bell rang. Every port call counts as one of the shelf's."""

    shelf: Shelf = field(default_factory=Shelf)
    hashing: Hashing = field(default_factory=Hashing)
    dice: Dice = field(default_factory=Dice)
    tokens: Tokens = field(default_factory=Tokens)
    rules: account.Rules = field(default_factory=account.Rules)
    password_rules: PasswordRules = field(default_factory=PasswordRules)
    rings: int = 0

    def __post_init__(self) -> None:
        self.hashing.busy = self.tokens.busy = self.shelf.count
        ports = (self.shelf.begin, self.shelf, self.hashing, self.dice)
        self.accounts = Accounts(*ports, Telegraph(), self._ring, self.rules, PATIENCE)
        self.sessions = Sessions(
            self.shelf.begin, Members(self.shelf), self.shelf, self.hashing, self.dice, self.tokens, self._ring,
            session.Rules(), self.rules, PATIENCE,
        )  # fmt: skip
        self.recovery = Recovery(
            self.shelf.begin, Members(self.shelf), self.hashing, self.dice, self._ring, self.rules,
            self.password_rules, PATIENCE,
        )  # fmt: skip
        self.profiles = Profiles(
            self.shelf.begin, self.hashing, self.dice, self._ring, self.rules, self.password_rules, PATIENCE
        )

    def _ring(self) -> None:
        self.rings += 1

    def user(self, user: User) -> User:
        """Return an account as it is now."""
        return self.shelf.users[user.id]

    async def admitted(self, who: Email = ADA, password: Secret = RIGHT, where: Where = LAPTOP) -> Admitted:
        admitted = await self.sessions.login(who, password, where)
        assert isinstance(admitted, Admitted), admitted
        return admitted

    async def visiting(self, admitted: Admitted) -> Visitor:
        visitor = await self.sessions.authenticate(admitted.access_token.reveal())
        assert isinstance(visitor, Visitor), visitor
        return visitor

    async def visitor(self, who: Email = ADA, password: Secret = RIGHT, where: Where = LAPTOP) -> Visitor:
        return await self.visiting(await self.admitted(who, password, where))

    async def turned_away(self, admitted: Admitted) -> bool:
        """Tell whether neither of its tokens opens anything."""
        access = await self.sessions.authenticate(admitted.access_token.reveal())
        refresh = await self.sessions.refresh(admitted.refresh_token, LAPTOP)
        return (access, refresh) == (Refused(Refusal.INVALID_ACCESS_TOKEN), Refused(Refusal.INVALID_REFRESH_TOKEN))

    async def registered(self, who: Email = ADA, password: Secret = RIGHT) -> UUID:
        made = await self.accounts.register(Registration(who, password))
        if self.rules.uniform:  # which tells no id
            assert made == Noted(who.address)
            return self.shelf.addresses[who.key].claims[0].id
        assert isinstance(made, Registered), made
        return made.id

    # What the mailer does when it hands a code over.

    def mint_link(self, claim: UUID) -> LinkToken:
        token = LinkToken(claim, self.dice.new_token())
        self.mint(claim, token.secret, purpose=LINK)
        return token

    def mint(self, claim: UUID, code: Secret = CODE, *, purpose: str = VERIFY) -> None:
        minted = Code(self.dice.mac(claim, purpose, code), self.shelf.now + 10 * MINUTE)
        part = {VERIFY: "verify", ACTIVATE: "code", LINK: "link"}[purpose]
        for key, address in self.shelf.addresses.items():
            theirs = [replace(c, **{part: minted}) for c in address.claims]  # type: ignore[arg-type]  # a Code, in all
            claims = tuple(new if new.id == claim else old for old, new in zip(address.claims, theirs, strict=True))
            self.shelf.addresses[key] = replace(address, claims=claims)

    def mint_reset(self, user: User) -> LinkToken:
        token = LinkToken(user.id, self.dice.new_token())
        mac = self.dice.mac(user.id, RESET, token.secret)
        self.shelf.codes[user.id, RESET] = StoredCode(mac, self.shelf.now + 30 * MINUTE)
        return token

    def mint_change(self, user: User, code: Secret = CODE) -> None:
        minted = Code(self.dice.mac(user.id, CHANGE_EMAIL, code), self.shelf.now + 10 * MINUTE)
        self.shelf.changes[user.id] = replace(self.shelf.changes[user.id], code=minted)


def whole(house: House) -> None:
    """Fail if something is half there, or held: what is true of the shelf whatever was done or struck."""
    shelf = house.shelf
    assert not [key for key, lock in shelf.locks.items() if lock.locked()]
    owners = {address.owner.id: key for key, address in shelf.addresses.items() if address.owner is not None}
    assert owners == {user.id: user.email_key for user in shelf.users.values()}
    assert not [key for key, address in shelf.addresses.items() if address.owner is not None and address.claims]
    for login in shelf.logins.values():
        assert login.user_id in shelf.users
        links = [one.link for one in shelf.chain.values() if one.session == login.id]
        assert [link.used_at for link in links].count(None) == (login.ended_at is None), "one unused leaf, or none"
    asked = [address.asked.count for address in shelf.addresses.values()]
    letters = [mail for mail in shelf.mails() if mail.letter.value in ("reset", "verify", "change_email")]
    assert len(letters) == sum(asked)


Story = Callable[[House], Awaitable[None]]


async def hung_up_everywhere(story: Story, holds: Callable[[House], None], made: Callable[[], House] = House) -> int:
    """Tell the story again and again, its teller hanging up one point later each time; return how often."""
    n, over = 0, False
    while not over:
        house, n = made(), n + 1
        with trio.CancelScope() as scope:
            instrument = HangUp(scope, n)
            trio.lowlevel.add_instrument(instrument)
            try:
                await story(house)
                over = True
            finally:
                trio.lowlevel.remove_instrument(instrument)
        holds(house)
    return n


async def failed_everywhere(
    story: Story, holds: Callable[[House], None], error: type[Exception], made: Callable[[], House] = House
) -> int:
    """Tell the story again and again, one port call later failing each time; return how often."""
    n = 0
    while True:
        house, n = made(), n + 1
        house.shelf.error, house.shelf.fail_at = error, n
        with contextlib.suppress(error):
            await story(house)
        holds(house)
        if house.shelf.calls < n:
            return n


def nobody(house: House, who: Email) -> Address:
    """Return what an address is that was only asked about."""
    return house.shelf.addresses.get(who.key, Address())
