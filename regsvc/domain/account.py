"""The life of an address as a pure machine, one function an event: (state, event, now, rules) -> Step.

Rule 1. Every transition of a registration is here, and nothing here waits: no I/O, no clock, no randomness.
Rule 2. A refusal is a value, because it may come *with* a new state: a wrong code spends a try.
Rule 3. `now` is the database's clock, read after the address's lock was held; the sweeper tidies, it never decides.
Rule 4. A proof names the very hash it was checked against: what changed between the check and the lock proves nothing.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Generic, TypeVar, assert_never
from uuid import UUID

from regsvc.domain.delivery import Effect, Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Email, Locale, Username

DAY: Final = timedelta(hours=24)
HOUR: Final = timedelta(hours=1)
NO_PASSWORD: Final = "!"  # noqa: S105 - what is stored where an account has none: no password is ever right
ON_THE_WAY_MAX: Final = timedelta(minutes=10)  # how long a mail that was not sent yet keeps an address taken


class DuplicatePolicy(Enum):
    """What a second registration of an address meets while the first is live."""

    CONFLICT = "conflict"
    CLAIMS = "claims"
    UNIFORM = "uniform"  # as claims, and an account beside them shows in no answer: see `Rules.uniform`


@dataclass(frozen=True, slots=True)
class Rules:
    """The knobs of the machine; counts are inclusive."""

    code_attempts: int = 5
    code_failures_per_day: int = 10
    resend_cooldown: timedelta = timedelta(seconds=30)
    resends_per_hour: int = 5
    pending_ttl: timedelta = DAY
    claims_max: int = 5  # checking a password costs one hash a claim: an address never holds more
    duplicates: DuplicatePolicy = DuplicatePolicy.CONFLICT
    limit_mails: bool = True

    @property
    def uniform(self) -> bool:
        """Whether a registration is taken note of at an address that has an account too.

        To whoever registered it, that claim is as any other: its password is known, its code expires, its tries run
        out. But its letter tells the owner instead of carrying the code, and no code makes it an account.
        """
        return self.duplicates is DuplicatePolicy.UNIFORM


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something happened in a window that began at `since`."""

    count: int = 0
    since: datetime | None = None

    def within(self, window: timedelta, now: datetime) -> "Tally":
        """Return the tally as it counts now: itself, or empty when its window is over."""
        return self if self.since is not None and now < self.since + window else Tally()

    def plus_one(self, now: datetime) -> "Tally":
        """Return the tally with one more."""
        return Tally(self.count + 1, now if self.since is None else self.since)


class Way(Enum):
    """How an address is proved; the value is the purpose of what proves it, in its MAC and in `codes`."""

    CODE = "activate"  # the short code and the claim's password
    LINK = "link"  # the token of the letter's link and the claim's password
    VERIFY = "verify"  # the longer code alone


@dataclass(frozen=True, slots=True)
class Code:
    """The one live code of a claim; the code itself is nowhere, only its MAC. So is the token of its link."""

    mac: bytes = field(repr=False)
    expires_at: datetime
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A registration: somebody's unproved claim to the address, with a password and a code of its own."""

    id: UUID
    email: str
    password_hash: str = field(repr=False)
    created_at: datetime
    live_until: datetime
    expires_at: datetime
    username: Username | None = None
    locale: Locale | None = None
    client: str | None = None
    code: Code | None = None
    link: Code | None = None  # what the link beside the code proves with: too long to be guessed, so no try is counted
    verify: Code | None = None  # the longer code, which proves the address without the password


@dataclass(frozen=True, slots=True)
class Owner:
    """The account that proved the address; `way` is how, where it just did."""

    id: UUID
    email: str
    password_hash: str = field(repr=False)
    activated_at: datetime
    way: Way | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Everything that decides about one address, as it is under the address's lock."""

    owner: Owner | None = None
    claims: tuple[Claim, ...] = ()  # newest first
    failures: Tally = Tally()  # wrong codes, over all claims, in 24 h
    verify_failures: Tally = Tally()  # wrong codes that came without a password, in 24 h: anybody can spend these
    mails: Tally = Tally()  # mails caused, in 1 h
    mailed_at: datetime | None = None
    asked: Tally = Tally()  # letters that anybody may ask for, in 1 h
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """Passwords that were right: subject id to the stored hash they were checked against."""

    hashes: Mapping[UUID, str] = field(repr=False)

    def opens(self, subject: Claim | Owner) -> bool:
        """Tell whether this proof is about `subject` as it is now."""
        return self.hashes.get(subject.id) == subject.password_hash


@dataclass(frozen=True, slots=True)
class Register:
    """Somebody claims the address."""

    id: UUID
    email: Email
    password_hash: str = field(repr=False)
    username: Username | None = None
    locale: Locale | None = None
    client: str | None = None
    username_taken: bool = False


@dataclass(frozen=True, slots=True)
class Resend:
    """The claimant asks for a new code."""

    proof: Proof


@dataclass(frozen=True, slots=True)
class Activate:
    """The claimant shows a code, or a link's token; `macs`: per claim proved, the MACs it has there, one a secret."""

    proof: Proof
    macs: Mapping[UUID, Sequence[bytes]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verify:
    """Somebody shows the longer code, and no password; `macs` holds, per claim, the MACs the shown code has there."""

    macs: Mapping[UUID, Sequence[bytes]] = field(repr=False)


T = TypeVar("T", bound=Claim | Owner)


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """What an event does: the state after it, what it comes to (or the refusal), and what must leave the service."""

    state: Address
    outcome: T | Refused
    effects: tuple[Effect, ...] = ()


def resend_available_at(state: Address, now: datetime, rules: Rules) -> datetime:
    """Return when the next mail to this address may be asked for; not before `now`."""
    if not rules.limit_mails:
        return now
    earliest = now if state.mailed_at is None else max(now, state.mailed_at + rules.resend_cooldown)
    mails = state.mails.within(HOUR, now)
    if mails.since is not None and mails.count > rules.resends_per_hour:  # the first mail is not a resend
        earliest = max(earliest, mails.since + HOUR)
    return earliest


def register(state: Address, event: Register, now: datetime, rules: Rules) -> Step[Claim]:
    """Claim the address: at most one live claim at a time, or several, as the rules have it."""
    if state.owner is not None and not rules.uniform:
        return Step(state, Refused(Refusal.USER_ALREADY_EXISTS))
    if event.username_taken:
        return Step(state, Refused(Refusal.USERNAME_TAKEN))
    live = [claim.live_until for claim in state.claims if now < claim.live_until]
    free_at = _free_at(live, rules)
    if free_at is not None:
        return Step(state, Refused(Refusal.REGISTRATION_PENDING, retry_after=free_at - now))
    mails = state.mails.within(HOUR, now)
    if rules.limit_mails and mails.since is not None and mails.count > rules.resends_per_hour:
        return Step(state, Refused(Refusal.TOO_MANY_MAILS, retry_after=mails.since + HOUR - now))
    claim = Claim(
        id=event.id,
        email=event.email.address,
        password_hash=event.password_hash,
        created_at=now,
        live_until=now + ON_THE_WAY_MAX,
        expires_at=now + rules.pending_ttl,
        username=event.username,
        locale=event.locale,
        client=event.client,
    )
    return Step(
        replace(state, claims=(claim, *_kept(state.claims, now, rules)), mails=mails.plus_one(now), mailed_at=now),
        claim,
        (Mail(Letter.ACTIVATION, claim.id), Publish("registration.created", claim.id)),
    )


def _free_at(live: list[datetime], rules: Rules) -> datetime | None:
    """Return when an address with these live claims takes another; None: now."""
    match rules.duplicates:
        case DuplicatePolicy.CONFLICT:
            return max(live, default=None)
        case DuplicatePolicy.CLAIMS | DuplicatePolicy.UNIFORM:
            return min(live) if len(live) >= rules.claims_max else None
        case _:
            assert_never(rules.duplicates)


def _kept(claims: tuple[Claim, ...], now: datetime, rules: Rules) -> tuple[Claim, ...]:
    """Make room for one more: the oldest claims that are not live give way, a live one never does."""
    surplus = len(claims) + 1 - rules.claims_max
    gone = {claim.id for claim in [c for c in reversed(claims) if now >= c.live_until][: max(surplus, 0)]}
    return tuple(claim for claim in claims if claim.id not in gone)


def resend(state: Address, event: Resend, now: datetime, rules: Rules) -> Step[Claim]:
    """Have another code mailed to the newest claim that the proof opens."""
    proved = claims_proved(state, event.proof, now, rules)
    if isinstance(proved, Refused):
        return Step(state, proved)
    available_at = resend_available_at(state, now, rules)
    if now < available_at:
        refused = Refused(Refusal.RESEND_TOO_SOON, retry_after=available_at - now, resend_available_at=available_at)
        return Step(state, refused)
    claim = replace(proved[0], live_until=max(proved[0].live_until, now + ON_THE_WAY_MAX))
    mails = state.mails.within(HOUR, now).plus_one(now)
    after = replace(state, claims=_with(state.claims, claim), mails=mails, mailed_at=now)
    return Step(after, claim, (Mail(Letter.ACTIVATION, claim.id),))


def activate(state: Address, event: Activate, now: datetime, rules: Rules) -> Step[Owner]:
    """Make a claim the account of its address, or spend a try."""
    proved = claims_proved(state, event.proof, now, rules)
    if isinstance(proved, Refused):
        return Step(state, proved)
    if state.owner is not None:
        event = replace(event, macs={})  # an owner is never replaced: beside one, every code is wrong
    shown = [(claim, code) for claim in proved if (code := claim.code) is not None and now < code.expires_at]
    if not shown:
        return Step(state, Refused(Refusal.ACTIVATION_CODE_EXPIRED))
    failures = state.failures.within(DAY, now)
    if failures.since is not None and failures.count >= rules.code_failures_per_day:
        refused = Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=failures.since + DAY - now)
        return Step(state, refused)
    open_codes = [(claim, code) for claim, code in shown if code.failures < rules.code_attempts]
    if not open_codes:
        wait = max(resend_available_at(state, now, rules) - now, timedelta(seconds=1))
        refused = Refused(Refusal.TOO_MANY_ATTEMPTS, attempts_left=0, retry_after=wait)
        return Step(state, refused)
    for claim, code in open_codes:
        if _same(code, event.macs.get(claim.id, ())):
            return _activated(state, claim, Way.CODE, now)
    return _one_try_less(replace(state, failures=failures), *open_codes[0], now, rules)


def follow(state: Address, event: Activate, now: datetime, rules: Rules) -> Step[Owner]:
    """Make a claim the account of its address by the token of its link; a wrong one costs nothing, nor is it guessed.

    So whoever spends the tries of an address, with a claim of his own to it, keeps nobody else from proving it.
    """
    proved = claims_proved(state, event.proof, now, rules)
    if isinstance(proved, Refused):
        return Step(state, proved)
    links = [(claim, link) for claim in proved if (link := claim.link) is not None and now < link.expires_at]
    if not links:
        return Step(state, Refused(Refusal.ACTIVATION_CODE_EXPIRED))
    for claim, link in links:
        if state.owner is None and _same(link, event.macs.get(claim.id, ())):
            return _activated(state, claim, Way.LINK, now)
    return Step(state, Refused(Refusal.INVALID_ACTIVATION_CODE))


def _same(code: Code, shown: Sequence[bytes]) -> bool:
    return any(hmac.compare_digest(code.mac, mac) for mac in shown)


def _activated(state: Address, claim: Claim, way: Way, now: datetime) -> Step[Owner]:
    # Every other claim to the address goes with it: their passwords and codes prove nothing any more.
    password_hash = NO_PASSWORD if way is Way.VERIFY else claim.password_hash
    owner = Owner(claim.id, claim.email, password_hash, now, way)
    return Step(replace(state, owner=owner, claims=()), owner, (Publish("user.activated", claim.id),))


def _one_try_less(state: Address, claim: Claim, code: Code, now: datetime, rules: Rules) -> Step[Owner]:
    """Spend a try of the newest open code and of the address."""
    spent = replace(code, failures=code.failures + 1)
    after = replace(
        state,
        claims=_with(state.claims, replace(claim, code=spent)),
        failures=state.failures.plus_one(now),
    )
    left = min(rules.code_attempts - spent.failures, rules.code_failures_per_day - after.failures.count)
    return Step(after, Refused(Refusal.INVALID_ACTIVATION_CODE, attempts_left=left))


def verify(state: Address, event: Verify, now: datetime, rules: Rules) -> Step[Owner]:
    """Make a claim the account of its address by the longer code alone, or spend a try of those without a password.

    Whoever reads the mail is not shown to be who chose the claim's password, so the account begins without one: else
    somebody could register another's address, wait for him to prove it, and log in. To whoever lacks the code, an
    address with an account, with claims, and with nothing at all are one: all of them have the same tries.
    """
    failures = state.verify_failures.within(DAY, now)
    if failures.since is not None and failures.count >= rules.code_failures_per_day:
        return Step(state, Refused(Refusal.TOO_MANY_ATTEMPTS, retry_after=failures.since + DAY - now))
    claims = () if state.owner is not None else state.claims
    codes = [(claim, claim.verify) for claim in claims if claim.verify is not None and now < claim.expires_at]
    for claim, code in codes:
        if code.failures < rules.code_attempts and _same(code, event.macs.get(claim.id, ())):
            if now >= code.expires_at:
                return Step(state, Refused(Refusal.ACTIVATION_CODE_EXPIRED))
            return _activated(state, claim, Way.VERIFY, now)
    spent = {claim.id: replace(claim, verify=replace(code, failures=code.failures + 1)) for claim, code in codes}
    claims = tuple(spent.get(claim.id, claim) for claim in state.claims)
    return Step(
        replace(state, claims=claims, verify_failures=failures.plus_one(now)),
        Refused(Refusal.INVALID_ACTIVATION_CODE),
    )


def ask(state: Address, letter: Letter, subject: UUID, now: datetime, rules: Rules) -> tuple[Address, tuple[Mail, ...]]:
    """Have a letter sent that anybody may ask for; nothing is sent too soon after the last one, and nobody is told.

    `subject` is whom the letter is for, or an id that nobody has: the same is done for both. These letters are counted
    apart from those that a registration causes, so that a stranger who asks for them keeps nobody from registering.
    """
    asked = state.asked.within(HOUR, now)
    soon = state.asked_at is not None and now < state.asked_at + rules.resend_cooldown
    if rules.limit_mails and (soon or asked.count > rules.resends_per_hour):
        return state, ()
    return replace(state, asked=asked.plus_one(now), asked_at=now), (Mail(letter, subject),)


def claims_proved(state: Address, proof: Proof, now: datetime, rules: Rules) -> tuple[Claim, ...] | Refused:
    """Return the claims that `proof` opens, newest first; or what a proof of nothing here is answered with."""
    if state.owner is not None and proof.opens(state.owner):
        return Refused(Refusal.USER_ALREADY_ACTIVATED)
    if state.owner is not None and not rules.uniform:
        # An account that came another way (an import) voids the claims beside it: an owner is never replaced.
        return Refused(Refusal.INVALID_CREDENTIALS)
    claims = tuple(claim for claim in state.claims if now < claim.expires_at and proof.opens(claim))
    return claims or Refused(Refusal.INVALID_CREDENTIALS)


def hashes(state: Address, rules: Rules) -> tuple[tuple[Claim | Owner, ...], tuple[str, ...]]:
    """Return who has a password here, and what a password is checked against: their hashes, in that order, first.

    Where nobody may learn of an account, an address without one costs as much as one with it, and one without a claim
    as much as one with it: there are hashes more that nothing opens. Otherwise nobody costs as much as one.
    """
    subjects = (*state.claims, *(() if state.owner is None else (state.owner,)))
    wanted = max(len(state.claims), 1) + 1 if rules.uniform else 0
    return subjects, (*(s.password_hash for s in subjects), *(NO_PASSWORD,) * (wanted - len(subjects)))


def _with(claims: tuple[Claim, ...], changed: Claim) -> tuple[Claim, ...]:
    return tuple(changed if claim.id == changed.id else claim for claim in claims)
