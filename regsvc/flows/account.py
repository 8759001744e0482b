"""Register, resend, activate, and ask how it stands.

Every verb is the same few lines: begin, load, decide, save, enqueue, commit; then ring. Hashing comes before the
transaction, and what it was checked against is named in the proof, so the decision under the lock notices a change.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

import trio

from regsvc import observe
from regsvc.domain import account
from regsvc.domain.account import Address, Claim, Owner, Proof, Step
from regsvc.domain.delivery import LINK
from regsvc.domain.quota import Limit
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.values import Email, EmailKey, LinkToken, Locale, Secret, Username
from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.guessing import note_failed
from regsvc.flows.quota import check
from regsvc.flows.transaction import ring_for, transaction
from regsvc.ports import Begin, Crypto, Directory, MailState, News, Passwords

T = TypeVar("T", bound=Claim | Owner)
S = TypeVar("S")
ACTIVATE: Final = "activate"  # the purpose of the code, in its MAC and in `codes`
ASK_AGAIN: Final = 1.0  # seconds; a long poll looks this often even if word of a mail is lost


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody registers with; every part was read and found good at the door."""

    email: Email
    password: Secret
    username: Username | None = None
    locale: Locale | None = None
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """An address and a password, not yet checked."""

    email: Email
    password: Secret


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration that was accepted."""

    id: UUID
    email: str
    created_at: datetime
    resend_available_at: datetime


@dataclass(frozen=True, slots=True)
class Noted:
    """A registration under the policy `uniform`: whatever comes of it, this is all that is told."""

    email: str


@dataclass(frozen=True, slots=True)
class Activated:
    """An account that was just activated."""

    id: UUID
    email: str
    activated_at: datetime


@dataclass(frozen=True, slots=True)
class Resent:
    """A new code of a registration is on its way."""

    id: UUID
    email: str
    resend_available_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How a registration stands."""

    id: UUID
    email: str
    mail: MailState
    code_expires_at: datetime | None
    resend_available_at: datetime


@dataclass(frozen=True, slots=True)
class Accounts:
    """The flows of an address that somebody is proving. `ring` wakes the mailer; `patience` bounds a transaction."""

    begin: Begin
    directory: Directory
    passwords: Passwords
    crypto: Crypto
    news: News
    ring: Callable[[], None]
    rules: account.Rules
    patience: timedelta = field(default=timedelta(seconds=5))

    async def register(self, form: Registration, errand: Errand = PLAIN) -> Registered | Noted | Refused:
        """Claim an address: when this returns, the registration is stored and its mail is under way.

        Under `uniform` the same is done and told wherever that is not so, but for a name that is taken.
        """
        key = form.email.key
        with self.passwords.announced(errand.client):
            taken = form.username is not None and await self.directory.username_taken(form.username.key)
            event = account.Register(
                self.crypto.new_id(), form.email, "", form.username, form.locale, form.client, username_taken=taken
            )
            glimpse = await self._glimpse(key, event)
        if glimpse is not None:
            return self._refused("registration_refused", key, glimpse)
        event = replace(event, password_hash=await self.passwords.hash(form.password, errand.client))

        def told(made: Claim | Refused, state: Address, now: datetime) -> Registered | Noted | Refused:
            if self.rules.uniform:
                return Noted(form.email.address)
            if isinstance(made, Refused):
                return made
            available_at = account.resend_available_at(state, now, self.rules)
            return Registered(event.id, form.email.address, made.created_at, available_at)

        made, answer = await self._decide(
            key, lambda state, now: account.register(state, event, now, self.rules), told, errand
        )
        if isinstance(made, Refused):
            self._refused("registration_refused", key, made)
        else:
            observe.emit("registration_created", registration_id=str(event.id), address=self.crypto.pseudonym(key))
        return answer

    async def _glimpse(self, key: EmailKey, event: account.Register) -> Refused | None:
        """Look without the lock: it spares the hash where the answer is no already; only the lock decides a yes.

        Under `uniform` a hash that is spared would tell of the address: there a name alone can be refused.
        """
        if self.rules.uniform:
            return Refused(Refusal.USERNAME_TAKEN) if event.username_taken else None
        state, now = await self.directory.look(key)
        found = account.register(state, event, now, self.rules).outcome
        return found if isinstance(found, Refused) else None

    async def activate(self, who: Credentials, code: Secret, errand: Errand = PLAIN) -> Activated | Refused:
        """Turn a registration into the account of its address, if password and code are its own and the code lives."""
        key = who.email.key
        proof = await self._prove(who, errand)
        if isinstance(proof, Refused):
            return self._refused("activation_refused", key, proof)
        # After the password, so that nobody else spends it; of several claims with it, none that is new adds to it.
        refused = await errand.meter.take(Limit.ACTIVATION, str(min(proof.hashes)))
        if refused is not None:
            return self._refused("activation_refused", key, refused)
        macs = {subject: self.crypto.macs(subject, ACTIVATE, code) for subject in proof.hashes}
        done = await self._activate(key, account.activate, account.Activate(proof, macs), errand)
        await note_failed(done, errand)
        return done

    async def follow(self, who: Credentials, token: LinkToken | None, errand: Errand = PLAIN) -> Activated | Refused:
        """Turn a registration into the account of its address by the token of its link (None: what cannot be one).

        A token cannot be guessed, so no try is spent and no limit of activations asked: whoever used those up, with
        a claim of his own to the address, does not keep its owner out.
        """
        key = who.email.key
        proof = await self._prove(who, errand)
        if isinstance(proof, Refused):
            return self._refused("activation_refused", key, proof)
        shown = () if token is None or token.subject not in proof.hashes else (token,)
        macs = {one.subject: self.crypto.macs(one.subject, LINK, one.secret) for one in shown}
        return await self._activate(key, account.follow, account.Activate(proof, macs), errand)

    async def _activate(
        self,
        key: EmailKey,
        decide: Callable[[Address, account.Activate, datetime, account.Rules], Step[Owner]],
        event: account.Activate,
        errand: Errand,
    ) -> Activated | Refused:
        def told(owner: Owner | Refused, _state: Address, _now: datetime) -> Activated | Refused:
            return owner if isinstance(owner, Refused) else Activated(owner.id, owner.email, owner.activated_at)

        _, done = await self._decide(key, lambda state, now: decide(state, event, now, self.rules), told, errand)
        if isinstance(done, Refused):
            return self._refused("activation_refused", key, done)
        observe.emit("activation_succeeded", user_id=str(done.id), address=self.crypto.pseudonym(key))
        return done

    async def resend(self, who: Credentials, errand: Errand = PLAIN) -> Resent | Refused:
        """Send a new code; the older one stops working when the new one is handed over."""
        key = who.email.key
        proof = await self._prove(who, errand)
        if isinstance(proof, Refused):
            return self._refused("resend_refused", key, proof)
        event = account.Resend(proof)

        def told(claim: Claim | Refused, state: Address, now: datetime) -> Resent | Refused:
            if isinstance(claim, Refused):
                return claim
            return Resent(claim.id, claim.email, account.resend_available_at(state, now, self.rules))

        _, done = await self._decide(
            key, lambda state, now: account.resend(state, event, now, self.rules), told, errand
        )
        if isinstance(done, Refused):
            return self._refused("resend_refused", key, done)
        observe.emit("resend_accepted", registration_id=str(done.id), address=self.crypto.pseudonym(key))
        return done

    async def standing(self, who: Credentials, wait: timedelta, errand: Errand = PLAIN) -> Standing | Refused:
        """Tell how the registration stands; waits up to `wait` for its mail to leave."""
        proof = await self._prove(who, errand)
        if isinstance(proof, Refused):
            return proof
        until = trio.current_time() + wait.total_seconds()
        while True:
            state, now = await self.directory.look(who.email.key)
            proved = account.claims_proved(state, proof, now, self.rules)
            if isinstance(proved, Refused):
                return proved
            claim = proved[0]
            status = await self.directory.mail_status(claim.id)
            left = until - trio.current_time()
            if status.mail is not MailState.QUEUED or left <= 0:
                available_at = account.resend_available_at(state, now, self.rules)
                return Standing(claim.id, claim.email, status.mail, status.code_expires_at, available_at)
            await self.news.wait(claim.id, min(left, ASK_AGAIN))

    async def _prove(self, who: Credentials, errand: Errand) -> Proof | Refused:
        """Check the password against everyone who has one here; nobody costs as much as somebody."""
        with self.passwords.announced(errand.client):
            state, _ = await self.directory.look(who.email.key)
        subjects, stored = account.hashes(state, self.rules)
        right = await check(self.passwords, who.password, stored, who.email.key, errand)
        if isinstance(right, Refused):
            return right
        opened = {s.id: s.password_hash for s, ok in zip(subjects, right, strict=False) if ok}
        return Proof(opened) if opened else Refused(Refusal.INVALID_CREDENTIALS)

    async def _decide(
        self,
        key: EmailKey,
        decide: Callable[[Address, datetime], Step[T]],
        told: Callable[[T | Refused, Address, datetime], S],
        errand: Errand,
    ) -> tuple[T | Refused, S]:
        """Decide under the address's lock; `told` makes what is answered of what was decided. Return both."""
        async with transaction(self.begin, self.patience) as unit:
            before, now = await unit.accounts.load(key)
            step = decide(before, now)
            await unit.accounts.save(key, before, step.state)
            await unit.outgoing.add(step.effects, trace=observe.trace())
            answer = told(step.outcome, step.state, now)
            await errand.keep(unit, answer, changed=step.state != before)
        ring_for(step.effects, self.ring)
        return step.outcome, answer

    def _refused(self, event: observe.Event, key: EmailKey, refused: Refused) -> Refused:
        observe.emit(event, refusal=refused.why.value, address=self.crypto.pseudonym(key))
        return refused
