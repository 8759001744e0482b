"""What people do with their own account: its name and language, its password, its address, and its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from regsvc import observe
from regsvc.domain import account, profile, session
from regsvc.domain.delivery import Publish
from regsvc.domain.profile import Changed, Missed
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Role, User
from regsvc.domain.values import Email, Locale, PasswordRules, Secret, Username
from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.quota import check
from regsvc.flows.recovery import RESET
from regsvc.flows.session import Visitor, log_ended
from regsvc.flows.transaction import ring_for, transaction
from regsvc.ports import Begin, Crypto, Passwords, Unit

CHANGE_EMAIL: Final = "change_email"  # the purpose of the code, in its MAC and in `codes`
_GONE: Final = Refused(Refusal.INVALID_ACCESS_TOKEN)
_NOTHING_ASKED: Final = Refused(Refusal.CODE_EXPIRED)
_WRONG: Final = Refused(Refusal.WRONG_PASSWORD)


class Keep(Enum):
    """What stands for a part that is left as it is."""

    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Proposed:
    """A code is on its way to the new address."""

    email: str


@dataclass(frozen=True, slots=True)
class Profiles:
    """The flows of people who are logged in. `ring` wakes the mailer; `patience` bounds a transaction."""

    begin: Begin
    passwords: Passwords
    crypto: Crypto
    ring: Callable[[], None]
    rules: account.Rules
    password_rules: PasswordRules
    patience: timedelta = field(default=timedelta(seconds=5))

    async def change(
        self, visitor: Visitor, *, username: Username | Keep | None, locale: Locale | Keep | None
    ) -> User | Refused:
        """Change name and language; None takes one away."""
        async with transaction(self.begin, self.patience) as unit:
            mine = await _lock(unit, visitor)
            if isinstance(mine, Refused):
                return _refused(visitor, mine)
            before, now = mine
            after = replace(
                before,
                username=before.username if isinstance(username, Keep) else username,
                locale=before.locale if isinstance(locale, Keep) else locale,
            )
            fields = [name for name in ("username", "locale") if getattr(after, name) != getattr(before, name)]
            if not fields:
                return before
            after = replace(after, updated_at=now)
            refusal = await unit.people.change(before, after)
            if refusal is not None:
                return _refused(visitor, Refused(refusal))
            event = Publish("user.changed", before.id, actor=before.id, data={"fields": " ".join(fields)})
            await unit.outgoing.add((event,), trace=observe.trace())
        observe.emit("profile_changed", user_id=str(after.id), changed=fields)
        return after

    async def remove(self, visitor: Visitor, password: Secret, errand: Errand = PLAIN) -> Refused | None:
        """Delete the account and all that is its own; the address is free again."""
        refused = await self._prove(visitor, password, errand)
        if refused is not None:
            return _refused(visitor, refused)
        async with transaction(self.begin, self.patience) as unit:
            mine = await _lock(unit, visitor, checked=True)
            if isinstance(mine, Refused):
                return _refused(visitor, mine)
            user, _ = mine
            if user.role is Role.ADMIN and await unit.people.last_admin(user.id):
                return _refused(visitor, Refused(Refusal.LAST_ADMIN))
            await unit.people.remove(user.id)
            await unit.outgoing.add((Publish("user.deleted", user.id, actor=user.id),), trace=observe.trace())
        observe.emit("user_deleted", user_id=str(user.id))
        return None

    async def change_password(
        self, visitor: Visitor, current: Secret, new: Secret, errand: Errand = PLAIN
    ) -> Refused | None:
        """Give the account another password: its other sessions end, and what would reset it is worth nothing."""
        user = visitor.user
        flaw = self.password_rules.flaw(new, Email(user.email, user.email_key), user.username)
        if flaw is not None:
            return _refused(visitor, Refused(Refusal.WEAK_PASSWORD, flaw=flaw, field="new_password"))
        refused = await self._prove(visitor, current, errand)
        if refused is not None:
            return _refused(visitor, refused)
        hashed = await self.passwords.hash(new, errand.client)
        async with transaction(self.begin, self.patience) as unit:
            mine = await _lock(unit, visitor, checked=True)
            if isinstance(mine, Refused):
                return _refused(visitor, mine)  # nothing was done
            user, now = mine
            changed = profile.change_password(user, hashed, now)
            await unit.people.change(user, changed.user)
            await unit.people.drop_codes(user.id, RESET)
            ended = await unit.sessions.end(user.id, Ending.PASSWORD_CHANGED, now, but=visitor.session.id)
            effects = changed.effects + session.ended(user.id, Ending.PASSWORD_CHANGED, len(ended))
            await unit.outgoing.add(effects, trace=observe.trace())
            await errand.keep(unit, None)
        ring_for(effects, self.ring)
        observe.emit("password_changed", user_id=str(user.id))
        log_ended(user.id, Ending.PASSWORD_CHANGED, ended)
        return None

    async def propose_email(
        self, visitor: Visitor, email: Email, password: Secret, errand: Errand = PLAIN
    ) -> Proposed | Refused:
        """Mail a code to the address that the account is to have; the address it has stays until the code is shown."""
        refused = await self._prove(visitor, password, errand)
        if refused is not None:
            return _refused(visitor, refused)
        async with transaction(self.begin, self.patience) as unit:
            there, _ = await unit.accounts.load(email.key)
            mine = await _lock(unit, visitor, checked=True)
            if isinstance(mine, Refused):
                return _refused(visitor, mine)
            user, now = mine
            proposal = profile.propose(user, email, there, now, self.rules)
            if isinstance(proposal, Refused):
                return _refused(visitor, proposal)  # nothing was done
            await unit.accounts.save(email.key, there, proposal.there)
            await unit.people.propose(user.id, proposal.change, now)
            await unit.outgoing.add(proposal.effects, trace=observe.trace())
            proposed = Proposed(email.address)
            await errand.keep(unit, proposed)
        ring_for(proposal.effects, self.ring)
        observe.emit("email_change_asked", user_id=str(user.id), address=self.crypto.pseudonym(email.key))
        return proposed

    async def confirm_email(self, visitor: Visitor, code: Secret, errand: Errand = PLAIN) -> User | Refused:
        """Give the account the address that it proved; whoever claimed that address without proof has it no more."""
        macs = self.crypto.macs(visitor.user.id, CHANGE_EMAIL, code)
        async with transaction(self.begin, self.patience) as unit:
            step = await self._confirm(unit, visitor, macs, errand)
        if isinstance(step, Refused):
            return _refused(visitor, step)
        ring_for(step.effects, self.ring)
        user = step.user
        observe.emit("email_changed", user_id=str(user.id), address=self.crypto.pseudonym(user.email_key))
        return user

    async def _confirm(self, unit: Unit, visitor: Visitor, macs: Sequence[bytes], errand: Errand) -> Changed | Refused:
        # Read to know which address to lock, for that comes before the account; then read again under both.
        asked = await unit.people.proposed(visitor.user.id)
        if asked is None:
            return _NOTHING_ASKED
        key = asked.email.key
        there, _ = await unit.accounts.load(key)
        mine = await _lock(unit, visitor)
        if isinstance(mine, Refused):
            return mine
        user, now = mine
        change = await unit.people.proposed(user.id)
        if change is not None and change.email.key != key:
            change = None  # proposed anew meanwhile, and that address is not under our lock
        step = profile.confirm(user, change, there, macs, now, self.rules)
        match step:
            case Missed(spent, refused):
                await unit.people.spend(user.id, spent)
                await errand.keep(unit, refused)
                return refused
            case Changed():
                refusal = await _move(unit, user, step)
                if refusal is not None:
                    return Refused(refusal)
                await unit.accounts.save(key, there, replace(there, claims=()))
                await errand.keep(unit, step.user)
        return step

    async def _prove(self, visitor: Visitor, password: Secret, errand: Errand) -> Refused | None:
        """Check the password against the hash that the visitor was read with; return the refusal if it is wrong."""
        user = visitor.user
        right = await check(self.passwords, password, [user.password_hash], str(user.id), errand)
        if isinstance(right, Refused):
            return right
        return None if any(right) else _WRONG


async def _move(unit: Unit, user: User, step: Changed) -> Refusal | None:
    refusal = await unit.people.change(user, step.user)
    if refusal is None:
        await unit.people.drop_codes(user.id, RESET)  # they were mailed to the address that it was
        await unit.people.settle(user.id)
        await unit.outgoing.add(step.effects, trace=observe.trace())
    return refusal


async def _lock(unit: Unit, visitor: Visitor, *, checked: bool = False) -> tuple[User, datetime] | Refused:
    """Lock the visitor's account; `checked`: his password was, and must still be the same."""
    found = await unit.people.lock(visitor.user.id)
    if found is None or found[0].disabled_at is not None:
        return _GONE
    if checked and found[0].password_hash != visitor.user.password_hash:
        return _WRONG
    return found


def _refused(visitor: Visitor, refused: Refused) -> Refused:
    observe.emit("profile_refused", user_id=str(visitor.user.id), refusal=refused.why.value)
    return refused
