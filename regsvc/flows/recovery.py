"""A letter that anybody may ask for, and the new password that one of them opens.

Whether there is an account, a registration, or nothing at an address shows neither in an answer nor in its time: the
same statements are run for all, and what is asked for nobody is dropped when it would be written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from regsvc import observe
from regsvc.domain import account, profile, session
from regsvc.domain.account import Address
from regsvc.domain.delivery import Effect, Letter
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending
from regsvc.domain.values import Email, LinkToken, PasswordRules, Secret
from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.session import log_ended
from regsvc.flows.transaction import ring_for, transaction
from regsvc.ports import Begin, Crypto, Members, Passwords, Unit

RESET: Final = "reset"  # the purpose of the token, in its MAC and in `codes`
_INVALID: Final = Refused(Refusal.INVALID_RESET_TOKEN)


@dataclass(frozen=True, slots=True)
class Recovery:
    """The flows of people who are not let in. `ring` wakes the mailer; `patience` bounds a transaction."""

    begin: Begin
    members: Members
    passwords: Passwords
    crypto: Crypto
    ring: Callable[[], None]
    rules: account.Rules
    password_rules: PasswordRules
    patience: timedelta = field(default=timedelta(seconds=5))

    async def forgot(self, email: Email, errand: Errand = PLAIN) -> None:
        """Mail what opens a new password, if there is an account."""
        await self._ask(email, Letter.RESET, _owner, errand)

    async def send_code(self, email: Email, errand: Errand = PLAIN) -> None:
        """Mail the code that is a proof alone, if there is a registration and no account."""
        await self._ask(email, Letter.VERIFY, _claimant, errand)

    async def _ask(
        self, email: Email, letter: Letter, whose: Callable[[Address, datetime], UUID | None], errand: Errand
    ) -> None:
        nobody = self.crypto.new_id()
        async with transaction(self.begin, self.patience) as unit:
            before, now = await unit.accounts.load(email.key)
            after, mails = account.ask(before, letter, whose(before, now) or nobody, now, self.rules)
            await unit.accounts.save(email.key, before, after)
            await unit.outgoing.add(mails, trace=observe.trace())
            await errand.keep(unit, None)
        ring_for(mails, self.ring)
        if mails:
            observe.emit("letter_asked", letter=letter.value, address=self.crypto.pseudonym(email.key))

    async def reset(self, token: LinkToken | None, password: Secret, errand: Errand = PLAIN) -> Refused | None:
        """Give an account the password: its first one too. All its sessions end, and its owner is told."""
        refused = _INVALID if token is None else await self._reset(token, password, errand)
        if refused is not None:
            observe.emit("reset_refused", refusal=refused.why.value)
        return refused

    async def _reset(self, token: LinkToken, password: Secret, errand: Errand) -> Refused | None:
        macs = self.crypto.macs(token.subject, RESET, token.secret)
        # A look without the lock spares the hash where the answer is no already; only the lock decides a yes.
        alive = await self.members.code_alive(token.subject, RESET, macs)
        user = await self.members.by_id(token.subject) if alive else None
        if user is None or user.disabled_at is not None:
            return _INVALID
        flaw = self.password_rules.flaw(password, Email(user.email, user.email_key), user.username)
        if flaw is not None:
            return Refused(Refusal.WEAK_PASSWORD, flaw=flaw, field="new_password")
        hashed = await self.passwords.hash(password, errand.client)
        async with transaction(self.begin, self.patience) as unit:
            done = await _replace(unit, user.id, macs, hashed)
            if isinstance(done, Refused):
                return done  # nothing was done
            await errand.keep(unit, None)
        effects, ended = done
        ring_for(effects, self.ring)
        observe.emit("password_reset", user_id=str(user.id))
        log_ended(user.id, Ending.PASSWORD_RESET, ended)
        return None


async def _replace(
    unit: Unit, subject: UUID, macs: Sequence[bytes], hashed: str
) -> tuple[Sequence[Effect], Sequence[UUID]] | Refused:
    """Use the token under the account's lock; return what leaves, and the sessions that ended."""
    found = await unit.people.lock(subject)
    if found is None:
        return _INVALID
    user, now = found
    if user.disabled_at is not None or not await unit.people.use_code(user.id, RESET, macs, now):
        return _INVALID
    changed = profile.reset_password(user, hashed, now)
    await unit.people.change(user, changed.user)
    await unit.people.settle(user.id)  # an address that somebody else proposed, who knew the old password
    ended = await unit.sessions.end(user.id, Ending.PASSWORD_RESET, now)
    effects = changed.effects + session.ended(user.id, Ending.PASSWORD_RESET, len(ended))
    await unit.outgoing.add(effects, trace=observe.trace())
    return effects, ended


def _owner(address: Address, _: datetime) -> UUID | None:
    return None if address.owner is None else address.owner.id  # one who is disabled gets no letter: its mint says so


def _claimant(address: Address, now: datetime) -> UUID | None:
    alive = (claim.id for claim in address.claims if now < claim.expires_at)
    return next(alive, None) if address.owner is None else None
