"""Log in, refresh, look at one's sessions, and end them; and who it is that shows an access token.

A session's row says what its tokens are worth, so what ended is refused at once, by every process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from regsvc import observe
from regsvc.domain import account, session
from regsvc.domain.account import Owner
from regsvc.domain.delivery import Effect
from regsvc.domain.quota import Limit
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Family, Link, Opened, Person, Repeated, Reused, Rotated, Session, User
from regsvc.domain.values import Email, Secret, Username
from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.guessing import note_failed
from regsvc.flows.transaction import ring_for, transaction
from regsvc.ports import Begin, Crypto, Directory, Members, Passwords, Tokens, Unavailable, Unit

VERIFY: Final = "verify"  # the purpose of the code that is a proof alone, in its MAC and in `codes`
LOOKS: Final = 2  # at a password: another login may have hashed it anew while this one checked the old hash
_INVALID: Final = Refused(Refusal.INVALID_CREDENTIALS)
_NO_ACCESS: Final = Refused(Refusal.INVALID_ACCESS_TOKEN)
_NO_REFRESH: Final = Refused(Refusal.INVALID_REFRESH_TOKEN)
_NO_SESSION: Final = Refused(Refusal.NO_SUCH_SESSION)


@dataclass(frozen=True, slots=True)
class Where:
    """Where somebody comes from; `device` as `domain.session.device` names it."""

    device: str
    ip: str | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A session that was opened or refreshed; the refresh token is good for `refresh_until`."""

    access_token: Secret
    expires_in: timedelta
    refresh_token: Secret
    refresh_until: timedelta
    user: User


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who shows an access token, as he was when it was read."""

    user: User
    session: Session


@dataclass(frozen=True, slots=True)
class _Known:
    """Whose password was right, and the stored hash it was checked against."""

    user: UUID
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Entered:
    """A session that was opened in a transaction."""

    user: User
    opened: Opened
    now: datetime
    effects: tuple[Effect, ...]
    superseded: Sequence[UUID] = ()  # older sessions that ended for it


@dataclass(frozen=True, slots=True)
class Sessions:
    """The flows of people who log in. `ring` wakes the mailer; `patience` bounds a transaction."""

    begin: Begin
    members: Members
    directory: Directory
    passwords: Passwords
    crypto: Crypto
    tokens: Tokens
    ring: Callable[[], None]
    rules: session.Rules
    address_rules: account.Rules
    patience: timedelta = field(default=timedelta(seconds=5))

    async def login(
        self, who: Email | Username, password: Secret, where: Where, errand: Errand = PLAIN
    ) -> Admitted | Refused:
        """Open a session for whoever has the password; only he is told that the account is not active or disabled."""
        outcome = await errand.meter.take(Limit.LOGIN_ACCOUNT, who.key) or await self._login(
            who, password, where, errand
        )
        if isinstance(outcome, Refused):
            address = self.crypto.pseudonym(who.key) if isinstance(who, Email) else None
            observe.emit("login_refused", refusal=outcome.why.value, address=address)
        return outcome

    async def _login(self, who: Email | Username, password: Secret, where: Where, errand: Errand) -> Admitted | Refused:
        outcome: Admitted | Refused = _INVALID
        for _ in range(LOOKS):
            known = await self._known(who, password, errand)
            if isinstance(known, Refused):
                return known
            outcome = await self._enter(known, password, where, errand)
            if outcome != _INVALID:
                break
        return outcome

    async def _known(self, who: Email | Username, password: Secret, errand: Errand) -> _Known | Refused:
        """Check the password: one read and one check, whoever is asked for; nobody costs as much as somebody."""
        owner: Owner | User | None
        with self.passwords.announced(errand.client):
            if isinstance(who, Email):
                state, now = await self.directory.look(who.key)
                owner, claims = state.owner, [claim.password_hash for claim in state.claims if now < claim.expires_at]
                if self.address_rules.uniform:
                    claims = []  # "not activated" would say that there is no account
            else:
                owner, claims = await self.members.by_username(who.key), []
        right = await self.passwords.check(
            password, [owner.password_hash] if owner is not None else claims, errand.client
        )
        if not any(right):
            return _INVALID
        return Refused(Refusal.NOT_ACTIVATED) if owner is None else _Known(owner.id, owner.password_hash)

    async def _enter(self, known: _Known, password: Secret, where: Where, errand: Errand) -> Admitted | Refused:
        anew = await self._hashed_anew(known.password_hash, password, errand)
        token = self.crypto.new_refresh()
        async with transaction(self.begin, self.patience) as unit:
            entered = await self._open(unit, known.user, token, where, known.password_hash)
            if isinstance(entered, Refused):
                return entered  # nothing was done; and it may be looked at once more
            if anew is not None:  # the same password: nothing that its owner would call a change
                await unit.people.change(entered.user, replace(entered.user, password_hash=anew))
            outcome = self._told(entered, token)
            await errand.keep(unit, outcome)
        if anew is not None:
            observe.emit("password_upgraded", user_id=str(known.user))
        self._welcome(entered, "password")
        return outcome

    async def _hashed_anew(self, stored: str, password: Secret, errand: Errand) -> str | None:
        """Hash a password that was right as new ones are hashed, where it is not and there is time."""
        if not self.passwords.outdated(stored):
            return None
        try:
            return await self.passwords.hash(password, errand.client)
        except Unavailable:  # another login will do it
            return None

    async def verify(self, email: Email, code: Secret, where: Where, errand: Errand = PLAIN) -> Admitted | Refused:
        """Activate an account and open its first session, by the longer code alone."""
        key, token = email.key, self.crypto.new_refresh()
        async with transaction(self.begin, self.patience) as unit:
            before, now = await unit.accounts.load(key)
            macs = {claim.id: self.crypto.macs(claim.id, VERIFY, code) for claim in before.claims}
            step = account.verify(before, account.Verify(macs), now, self.address_rules)
            await unit.accounts.save(key, before, step.state)
            await unit.outgoing.add(step.effects, trace=observe.trace())
            owner = step.outcome
            entered = owner if isinstance(owner, Refused) else await self._open(unit, owner.id, token, where, None)
            outcome = self._told(entered, token)
            await errand.keep(unit, outcome, changed=step.state != before)
        address = self.crypto.pseudonym(key)
        if isinstance(entered, Refused):
            observe.emit("activation_refused", refusal=entered.why.value, address=address)
            await note_failed(entered, errand)
        else:
            observe.emit("activation_succeeded", user_id=str(entered.user.id), address=address)
            self._welcome(entered, "code")
        return outcome

    async def _open(
        self, unit: Unit, user_id: UUID, token: Secret, where: Where, password_hash: str | None
    ) -> _Entered | Refused:
        """Lock the account and open a session of it; `password_hash`: what its password was checked against, if any."""
        found = await unit.people.lock(user_id)
        if found is None:
            return _INVALID
        user, now = found
        person = Person(user, await unit.sessions.devices(user_id, now))
        event = session.Login(self.crypto.new_id(), self.crypto.digest(token), where.device, where.ip, password_hash)
        opened, effects = session.login(person, event, now, self.rules)
        if isinstance(opened, Refused):
            return opened
        superseded: Sequence[UUID] = ()
        if opened.surplus:
            superseded = await unit.sessions.end_oldest(user_id, opened.surplus, Ending.SUPERSEDED, now)
            effects += session.ended(user_id, Ending.SUPERSEDED, len(superseded), ip=where.ip)
        await unit.sessions.open(opened)
        await unit.outgoing.add(effects, trace=observe.trace())
        return _Entered(user, opened, now, effects, superseded)

    def _told(self, entered: _Entered | Refused, token: Secret) -> Admitted | Refused:
        """Return what is answered."""
        if isinstance(entered, Refused):
            return entered
        return self._admit(entered.user, entered.opened.session, token, entered.opened.link, entered.now)

    def _welcome(self, entered: _Entered, proof: str) -> None:
        """Say that a session was opened: this comes after the commit."""
        ring_for(entered.effects, self.ring)
        user, opened = entered.user, entered.opened
        address = self.crypto.pseudonym(user.email_key)
        opened_as = str(opened.session.id)
        observe.emit("login_succeeded", user_id=str(user.id), session_id=opened_as, address=address, proof=proof)
        log_ended(user.id, Ending.SUPERSEDED, entered.superseded)

    async def refresh(self, token: Secret, where: Where, errand: Errand = PLAIN) -> Admitted | Refused:
        """Use a refresh token for the next one; a copy that is used after the grace ends its session."""
        successors = self.crypto.successors(token)
        async with transaction(self.begin, self.patience) as unit:
            found = await unit.sessions.load(self.crypto.digest(token))
            if found is None:
                return _no_refresh(_NO_REFRESH)  # nothing was done
            family, now = found
            step = session.refresh(family, self.crypto.digest(successors[0]), now, self.rules)
            if isinstance(step, Rotated):
                await unit.sessions.rotate(step)
            elif isinstance(step, Reused):
                await self._end_copied(unit, family.user.id, step, now, where)
            outcome = self._following(family, step, successors, now)
            await errand.keep(unit, outcome, changed=isinstance(step, Reused))
        user = family.user
        if isinstance(step, Reused):
            observe.emit("refresh_reuse_detected", user_id=str(user.id), session_id=str(step.session.id))
            log_ended(user.id, Ending.REUSED, [step.session.id])
        if isinstance(outcome, Refused):
            return _no_refresh(outcome)
        told = isinstance(step, Repeated)
        observe.emit("session_refreshed", user_id=str(user.id), session_id=str(family.session.id), repeated=told)
        return outcome

    def _following(
        self, family: Family, step: Rotated | Repeated | Reused | Refused, successors: Sequence[Secret], now: datetime
    ) -> Admitted | Refused:
        """Return what is answered to whoever used a refresh token."""
        match step:
            case Refused():
                return step
            case Reused():
                return _NO_REFRESH
        # Under the secret of now, or the one before: whichever made the link.
        following = next((one for one in successors if self.crypto.digest(one) == step.link.digest), None)
        if following is None:
            return _NO_REFRESH
        return self._admit(family.user, family.session, following, step.link, now)

    async def _end_copied(self, unit: Unit, user: UUID, step: Reused, now: datetime, where: Where) -> None:
        ended = await unit.sessions.end(user, Ending.REUSED, now, only=step.session.id)
        effects = session.ended(user, Ending.REUSED, len(ended), ip=where.ip)
        await unit.outgoing.add(effects, trace=observe.trace())

    def _admit(self, user: User, opened: Session, token: Secret, link: Link, now: datetime) -> Admitted:
        access = self.tokens.issue(user, opened.id, now)
        return Admitted(access, self.tokens.lifetime, token, link.expires_at - now, user)

    async def authenticate(self, token: str) -> Visitor | Refused:
        """Tell who shows an access token: of a session that is alive, and an account that is not disabled."""
        access = await self.tokens.read(token)
        if access is None:
            return _NO_ACCESS
        visit = await self.members.visit(access.session_id)
        if (
            visit is None
            or visit.now >= access.expires_at
            or visit.user.id != access.user_id
            or visit.user.disabled_at is not None
            or not visit.session.alive(visit.now)
        ):
            return _NO_ACCESS
        return Visitor(visit.user, visit.session)

    async def logout(self, visitor: Visitor, errand: Errand = PLAIN) -> None:
        """End this session."""
        await self._end(visitor, Ending.LOGOUT, visitor.session.id, errand)

    async def logout_all(self, visitor: Visitor, errand: Errand = PLAIN) -> None:
        """End all sessions, this one too."""
        await self._end(visitor, Ending.LOGOUT_ALL, None, errand)

    async def list(self, visitor: Visitor) -> Sequence[Session]:
        """Return the sessions that are alive, the newest first."""
        return await self.members.sessions(visitor.user.id)

    async def show(self, visitor: Visitor, session: UUID) -> Session | Refused:
        """Return a session that is alive; others' are as unknown as those that never were."""
        visit = await self.members.visit(session)
        if visit is None or visit.user.id != visitor.user.id or not visit.session.alive(visit.now):
            return _NO_SESSION
        return visit.session

    async def revoke(self, visitor: Visitor, session: UUID) -> Refused | None:
        """End a session, from this one or another."""
        reason = Ending.LOGOUT if session == visitor.session.id else Ending.REVOKED
        return None if await self._end(visitor, reason, session) else _NO_SESSION

    async def _end(self, visitor: Visitor, reason: Ending, only: UUID | None, errand: Errand = PLAIN) -> Sequence[UUID]:
        user = visitor.user.id
        async with transaction(self.begin, self.patience) as unit:
            found = await unit.people.lock(user)
            ended = await unit.sessions.end(user, reason, found[1], only=only) if found is not None else ()
            effects = session.ended(user, reason, len(ended), ip=visitor.session.ip)
            await unit.outgoing.add(effects, trace=observe.trace())
            await errand.keep(unit, None)
        log_ended(user, reason, ended)
        return ended


def log_ended(user: UUID, reason: Ending, sessions: Sequence[UUID]) -> None:
    """Say which sessions ended: this comes after the commit."""
    for one in sessions:
        observe.emit("session_ended", user_id=str(user), session_id=str(one), reason=reason.value)


def _no_refresh(refused: Refused) -> Refused:
    observe.emit("refresh_refused", refusal=refused.why.value)
    return refused
