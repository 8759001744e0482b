"""What administrators do: look for accounts, change, end and make them; the mails, and the audit trail.

Who may is decided before anything is looked at (`admit`), by the account as it was read with the session. Every change
writes its events into the audit trail in its own transaction; what changes nothing writes none.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar
from uuid import UUID

from regsvc import observe
from regsvc.domain import staff
from regsvc.domain.delivery import Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import Ending, Session, User
from regsvc.domain.staff import Actor, By, Deed, Entry, Newcomer, Sought, Wish
from regsvc.domain.values import Email, PasswordRules, Secret, Username
from regsvc.flows.errand import PLAIN, Errand
from regsvc.flows.transaction import transaction
from regsvc.ports import (
    Crypto,
    MailDesk,
    MailRow,
    Members,
    Occurrence,
    Passwords,
    Roster,
    StaffBegin,
    StaffUnit,
)

T = TypeVar("T")
_NO_SUCH_USER: Final = Refused(Refusal.NO_SUCH_USER)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of many, the newest first; `more` when the last one here is not the last one there is."""

    items: Sequence[T]
    more: bool


@dataclass(frozen=True, slots=True)
class Staff:
    """The flows of administrators. `patience` bounds a transaction; only `create` hashes."""

    begin: StaffBegin
    roster: Roster
    members: Members
    desk: MailDesk
    passwords: Passwords
    crypto: Crypto
    password_rules: PasswordRules
    patience: timedelta = field(default=timedelta(seconds=5))

    # ----------------------------------------------------------------------------------------------- looking

    def admit(self, user: User, ip: str | None) -> Actor | Refused:
        """Tell who acts, if the account may."""
        actor = Actor(By.ACCOUNT, user.id, ip)
        if staff.administers(user):
            return actor
        return _refused(actor, "admit", None, Refused(Refusal.NOT_ADMIN))

    async def list(self, *, query: str | None, sought: Sought | None, before: UUID | None, limit: int) -> Page[Entry]:
        """List accounts whose address or name begins as `query` does, newest first, from before the one `before`."""
        pattern = staff.beginning(query) if query is not None else None
        return _page(await self.roster.list(pattern=pattern, sought=sought, before=before, limit=limit + 1), limit)

    async def show(self, user: UUID) -> Entry | Refused:
        """Return an account, or a registration."""
        return await self.roster.show(user) or _NO_SUCH_USER

    async def find(self, who: Email | Username) -> Entry | Refused:
        """Return the account of an address or a name."""
        if isinstance(who, Email):
            found = await self.members.by_email(who.key)
        else:
            found = await self.members.by_username(who.key)
        return staff.entry(found) if found is not None else _NO_SUCH_USER

    async def sessions(self, user: UUID) -> Sequence[Session] | Refused:
        """Return the sessions of an account that are alive, the newest first."""
        if await self.members.by_id(user) is None:
            return _NO_SUCH_USER
        return await self.members.sessions(user)

    async def mails(self, *, state: str | None, before: UUID | None, limit: int) -> Page[MailRow]:
        """List mails, newest first, from before the one `before`."""
        return _page(await self.desk.list(state=state, before=before, limit=limit + 1), limit)

    async def events(
        self, *, subject: UUID | None, name: str | None, before: tuple[datetime, UUID] | None, limit: int
    ) -> Page[Occurrence]:
        """List what happened, newest first, from before an event's time and id."""
        found = await self.roster.events(subject=subject, name=name, before=before, limit=limit + 1)
        return _page(found, limit)

    # ---------------------------------------------------------------------------------------------- changing

    async def change(self, actor: Actor, user: UUID, wish: Wish) -> Entry | Refused:
        """Disable or enable an account, or give it another role; disabled, its sessions end."""

        async def work(unit: StaffUnit, before: User, now: datetime) -> tuple[Entry | Refused, Sequence[Publish]]:
            changed = staff.change(before, wish, now)
            loses = staff.administers(before) and not staff.administers(changed.user)
            if loses and await unit.people.last_admin(user):
                return Refused(Refusal.LAST_ADMIN), ()
            events = []
            for deed in changed.deeds:
                data = {}
                if deed is Deed.DISABLED:
                    data["sessions"] = str(len(await unit.sessions.end(user, Ending.DISABLED, now)))
                events.append(staff.publish(deed, user, actor, **data))
            if events:  # neither name nor address is another one, so nothing stands against it
                await unit.people.change(before, changed.user)
            return staff.entry(changed.user), events

        return await self._at(actor, "change_user", user, work)

    async def remove(self, actor: Actor, user: UUID) -> Refused | None:
        """Delete an account with all that is its own; the address is free again."""

        async def work(unit: StaffUnit, before: User, _: datetime) -> tuple[Refused | None, Sequence[Publish]]:
            if staff.administers(before) and await unit.people.last_admin(user):
                return Refused(Refusal.LAST_ADMIN), ()
            await unit.people.remove(user)
            return None, [staff.publish(Deed.DELETED, user, actor)]

        return await self._at(actor, "delete_user", user, work)

    async def end_sessions(self, actor: Actor, user: UUID) -> int | Refused:
        """End all sessions of an account; return how many."""

        async def work(unit: StaffUnit, _: User, now: datetime) -> tuple[int, Sequence[Publish]]:
            ended = len(await unit.sessions.end(user, Ending.STAFF, now))
            return ended, [staff.publish(Deed.SESSIONS_ENDED, user, actor, sessions=str(ended))] if ended else []

        return await self._at(actor, "end_sessions", user, work)

    async def create(self, actor: Actor, who: Newcomer, password: Secret | None) -> Entry | Refused:
        """Make an account that is active at once; claims to its address go. Without a password it has none."""
        flaw = self.password_rules.flaw(password, who.email, who.username) if password is not None else None
        if flaw is not None:
            refused = Refused(Refusal.WEAK_PASSWORD, flaw=flaw, field="password")
            return _refused(actor, "create_user", None, refused)
        hashed = await self.passwords.hash(password) if password is not None else None

        async def work(unit: StaffUnit) -> tuple[Entry | Refused, Sequence[Publish]]:
            address, now = await unit.accounts.load(who.email.key)
            if address.owner is not None:
                return Refused(Refusal.USER_ALREADY_EXISTS), ()
            user = staff.newcomer(self.crypto.new_id(), who, hashed, now)
            refusal = await unit.enrolment.add(user)
            if refusal is not None:
                return Refused(refusal), ()
            await unit.accounts.save(who.email.key, address, replace(address, claims=()))
            return staff.entry(user), [staff.publish(Deed.CREATED, user.id, actor, role=who.role.value)]

        return await self._decide(actor, "create_user", None, work)

    async def retry_mail(self, actor: Actor, mail: UUID, errand: Errand = PLAIN) -> Refused | None:
        """Make a dead mail ready again, with all its tries and a new code."""
        return await self._settle(actor, Deed.MAIL_RETRIED, mail, lambda desk: desk.retry(mail), errand)

    async def discard_mail(self, actor: Actor, mail: UUID, errand: Errand = PLAIN) -> Refused | None:
        """Delete a dead mail."""
        return await self._settle(actor, Deed.MAIL_DISCARDED, mail, lambda desk: desk.discard(mail), errand)

    async def _settle(
        self, actor: Actor, deed: Deed, mail: UUID, act: Callable[[MailDesk], Awaitable[bool]], errand: Errand
    ) -> Refused | None:
        """Do something to a dead mail. It is written down with whom it was for: his trail has it when it is gone."""

        async def work(unit: StaffUnit) -> tuple[Refused | None, Sequence[Publish]]:
            row = await unit.desk.show(mail)
            if row is None or not await act(unit.desk):
                return Refused(Refusal.NO_SUCH_MAIL), ()
            return None, [staff.publish(deed, row.subject, actor, mail=str(row.id), letter=row.letter)]

        return await self._decide(actor, deed.value, mail, work, errand)

    async def _at(
        self,
        actor: Actor,
        action: str,
        user: UUID,
        work: Callable[[StaffUnit, User, datetime], Awaitable[tuple[T, Sequence[Publish]]]],
    ) -> T | Refused:
        """Work on an account under its lock."""

        async def locked(unit: StaffUnit) -> tuple[T | Refused, Sequence[Publish]]:
            found = await unit.people.lock(user)
            return (_NO_SUCH_USER, ()) if found is None else await work(unit, *found)

        return await self._decide(actor, action, user, locked)

    async def _decide(
        self,
        actor: Actor,
        action: str,
        subject: UUID | None,
        work: Callable[[StaffUnit], Awaitable[tuple[T, Sequence[Publish]]]],
        errand: Errand = PLAIN,
    ) -> T:
        """Work in one transaction, and write its events down in it."""
        async with transaction(self.begin, self.patience) as unit:
            outcome, events = await work(unit)
            await unit.outgoing.add(events, trace=observe.trace())
            await errand.keep(unit, outcome, changed=bool(events))
        # Committed; nothing after this line may matter.
        for event in events:
            deed = event.name.removeprefix("admin.")
            observe.emit("staff_acted", actor_id=actor.name, action=deed, subject_id=str(event.subject))
        if isinstance(outcome, Refused):
            _refused(actor, action, subject, outcome)
        return outcome


def _page(found: Sequence[T], limit: int) -> Page[T]:
    """Make a page of what was found of `limit` and one more."""
    return Page(found[:limit], len(found) > limit)


def _refused(actor: Actor, action: str, subject: UUID | None, refused: Refused) -> Refused:
    observe.emit(
        "staff_refused",
        actor_id=actor.name,
        action=action,
        subject_id=str(subject) if subject is not None else None,
        refusal=refused.why.value,
    )
    return refused
