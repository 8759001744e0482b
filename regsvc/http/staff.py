"""What administrators do, over HTTP.

Whether somebody may is decided before anything else of his request is looked at, so that the ids, the queries and the
bodies of those who may not have no influence on their answer.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

from quart import Response, request

from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.staff import Actor, By, Entry, Sought, Wish
from regsvc.domain.values import Secret
from regsvc.flows.errand import Errand
from regsvc.flows.session import Sessions
from regsvc.flows.staff import Page, Staff
from regsvc.http import staff_models, wire
from regsvc.http.caller import Caller, asked
from regsvc.http.forms import NothingForm, Rules
from regsvc.http.models import Fault
from regsvc.http.receipt import answered
from regsvc.http.reply import Answer, View, nothing, nothing_unless, reply
from regsvc.http.staff_models import StaffChangeForm
from regsvc.ports import MailRow

P = ParamSpec("P")
T = TypeVar("T")
Acting = Callable[Concatenate[Actor, P], Awaitable[Answer]]
"""A view that is told who acts."""

LIMIT: Final = 50
LIMIT_MAX: Final = 200
SOUGHT: Final = {sought.value: sought for sought in Sought}
MAIL_STATES: Final = ("ready", "leased", "sent", "dead")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_ID_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{22}")  # 16 octets in base64url without padding
_EVENT_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{32}")  # 8 octets of a time, and 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NO_SUCH_USER: Final = Refused(Refusal.NO_SUCH_USER)
_NO_SUCH_MAIL: Final = Refused(Refusal.NO_SUCH_MAIL)


def views(staff: Staff, gate: "Gate", rules: Rules, limits: Acting[[]]) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table; `limits` shows how they stand."""
    return {
        "staff_users": gate.acting(_users(staff)),
        "staff_user": gate.acting(_user(staff)),
        "staff_change_user": gate.acting(_change_user(staff, rules)),
        "staff_delete_user": gate.acting(_delete_user(staff)),
        "staff_sessions": gate.acting(_sessions(staff)),
        "staff_end_sessions": gate.acting(_end_sessions(staff)),
        "staff_mails": gate.acting(_mails(staff)),
        "staff_retry_mail": gate.acting(_settle(staff.retry_mail, rules)),
        "staff_discard_mail": gate.acting(_settle(staff.discard_mail, rules)),
        "staff_events": gate.acting(_events(staff)),
        "staff_limits": gate.acting(limits),
    }


# ------------------------------------------------------------------------------------------------- who may


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets administrators in: accounts of that role, and machines with the token that has this `digest`."""

    staff: Staff
    sessions: Sessions
    digest: bytes | None

    @classmethod
    def of(cls, staff: Staff, sessions: Sessions, admin_token: Secret | None) -> "Gate":
        """Return the gate; `admin_token` is what a machine shows."""
        return cls(staff, sessions, _digest(admin_token.reveal()) if admin_token is not None else None)

    def acting(self, view: Acting[P]) -> View:
        """Return the view for those who may."""

        async def act(*args: P.args, **kwargs: P.kwargs) -> Answer:
            actor = await self.admit()
            return actor if isinstance(actor, Refused) else await view(actor, *args, **kwargs)

        return act

    async def admit(self) -> Actor | Refused:
        """Tell who acts, if he may. Raises Unreadable where no token is shown."""
        caller = asked().caller
        token = wire.bearer(request.headers)
        if self.digest is not None and hmac.compare_digest(_digest(token), self.digest):
            return Actor(By.ADMIN_TOKEN, ip=caller.address)
        return await self.known(token, caller)

    async def known(self, token: str, caller: Caller) -> Actor | Refused:
        """Tell who of the accounts acts, if it may, now: what it could do a moment ago does not count."""
        visitor = await self.sessions.authenticate(token)
        if isinstance(visitor, Refused):
            return visitor
        caller.user_id = str(visitor.user.id)
        return self.staff.admit(visitor.user, caller.address)


def _digest(token: str) -> bytes:
    """Return what tokens are compared by: of one length, whatever theirs is."""
    return hashlib.sha256(token.encode()).digest()


# ------------------------------------------------------------------------------------------------- accounts


def _users(staff: Staff) -> Acting[[]]:
    async def users(_: Actor) -> Response:
        state = _one_of("state", SOUGHT)
        page = await staff.list(
            query=wire.argument(request.args, "query") or None,
            sought=SOUGHT[state] if state is not None else None,
            before=_id_cursor(),
            limit=_limit(),
        )
        shown = [_shown(entry) for entry in page.items]
        return reply(staff_models.StaffUsers(users=shown, next=_next(page, lambda entry: entry.id.bytes)))

    return users


def _user(staff: Staff) -> Acting[[str]]:
    async def user(_: Actor, user_id: str) -> Answer:
        wanted = wire.identifier(user_id)
        found = await staff.show(wanted) if wanted is not None else _NO_SUCH_USER
        return found if isinstance(found, Refused) else reply(_shown(found))

    return user


def _change_user(staff: Staff, rules: Rules) -> Acting[[str]]:
    async def change_user(actor: Actor, user_id: str) -> Answer:
        form = await wire.read(asked(), StaffChangeForm, rules)
        if (fault := form.empty()) is not None:
            raise wire.Unreadable(wire.faulty([fault]))
        wanted = wire.identifier(user_id)
        wish = Wish(form.disabled, form.role)
        found = await staff.change(actor, wanted, wish) if wanted is not None else _NO_SUCH_USER
        return found if isinstance(found, Refused) else reply(_shown(found))

    return change_user


def _delete_user(staff: Staff) -> Acting[[str]]:
    async def delete_user(actor: Actor, user_id: str) -> Answer:
        wanted = wire.identifier(user_id)
        refused = await staff.remove(actor, wanted) if wanted is not None else _NO_SUCH_USER
        return refused or nothing()

    return delete_user


def _sessions(staff: Staff) -> Acting[[str]]:
    async def sessions(_: Actor, user_id: str) -> Answer:
        wanted = wire.identifier(user_id)
        found = await staff.sessions(wanted) if wanted is not None else _NO_SUCH_USER
        if isinstance(found, Refused):
            return found
        shown = [
            staff_models.StaffSession(
                id=one.id,
                device=one.device,
                ip=one.ip,
                created_at=one.created_at,
                last_used_at=one.last_used_at,
                expires_at=one.expires_at,
            )
            for one in found
        ]
        return reply(staff_models.StaffSessions(sessions=shown))

    return sessions


def _end_sessions(staff: Staff) -> Acting[[str]]:
    async def end_sessions(actor: Actor, user_id: str) -> Answer:
        wanted = wire.identifier(user_id)
        ended = await staff.end_sessions(actor, wanted) if wanted is not None else _NO_SUCH_USER
        return ended if isinstance(ended, Refused) else nothing()

    return end_sessions


def _shown(entry: Entry) -> staff_models.StaffUser:
    return staff_models.StaffUser(
        id=entry.id,
        email=entry.email,
        username=entry.username,
        locale=entry.locale,
        state=entry.state.value,
        role=entry.role.value,
        created_at=entry.created_at,
        activated_at=entry.activated_at,
        disabled_at=entry.disabled_at,
    )


# ------------------------------------------------------------------------------------------- mails and events


def _mails(staff: Staff) -> Acting[[]]:
    async def mails(_: Actor) -> Response:
        page = await staff.mails(state=_one_of("state", MAIL_STATES), before=_id_cursor(), limit=_limit())
        shown = [_letter(mail) for mail in page.items]
        return reply(staff_models.StaffMails(mails=shown, next=_next(page, lambda mail: mail.id.bytes)))

    return mails


def _letter(mail: MailRow) -> staff_models.StaffMail:
    return staff_models.StaffMail.model_validate(
        {
            "id": mail.id,
            "letter": mail.letter,
            "state": mail.state,
            "subject_id": mail.subject,
            "attempts": mail.attempts,
            "created_at": mail.created_at,
            "not_before": mail.not_before,
            "not_after": mail.not_after,
            "sent_at": mail.sent_at,
            "last_error": mail.last_error,
        }
    )


def _settle(act: Callable[[Actor, UUID, Errand], Awaitable[Refused | None]], rules: Rules) -> Acting[[str]]:
    async def settle(actor: Actor, mail_id: str) -> Answer:
        await wire.read_nothing(asked(), NothingForm, rules)
        wanted = wire.identifier(mail_id)
        return _NO_SUCH_MAIL if wanted is None else await answered(partial(act, actor, wanted), nothing_unless)

    return settle


def _events(staff: Staff) -> Acting[[]]:
    async def events(_: Actor) -> Response:
        page = await staff.events(
            subject=_id("subject"),
            name=wire.argument(request.args, "name"),
            before=_event_cursor(),
            limit=_limit(),
        )
        shown = [
            staff_models.StaffEvent(
                id=one.id,
                at=one.at,
                name=one.name,
                actor_id=one.actor,
                subject_id=one.subject,
                ip=one.ip,
                data=dict(one.data),
            )
            for one in page.items
        ]
        return reply(staff_models.StaffEvents(events=shown, next=_next(page, lambda one: _moment(one.at, one.id))))

    return events


# ------------------------------------------------------------------------------------------------- queries


def _wrong(field: str, message: str, code: str) -> wire.Unreadable:
    return wire.Unreadable(wire.faulty([Fault(field=field, message=message, code=code)]))


def _limit() -> int:
    text = request.args.get("limit", str(LIMIT))
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= LIMIT_MAX:
        raise _wrong("limit", f"limit is a whole number from 1 to {LIMIT_MAX}.", "out_of_range")
    return int(text)


def _one_of(name: str, words: Collection[str]) -> str | None:
    text = request.args.get(name)
    if text is not None and text not in words:
        raise _wrong(name, f"{name} is one of {', '.join(words)}.", "unknown_value")
    return text


def _id(name: str) -> UUID | None:
    text = request.args.get(name)
    found = wire.identifier(text) if text is not None else None
    if text is not None and found is None:
        raise _wrong(name, f"{name} is an id.", "invalid_id")
    return found


def _next(page: Page[T], place: Callable[[T], bytes]) -> str | None:
    """Return where the page after this one begins."""
    return urlsafe_b64encode(place(page.items[-1])).rstrip(b"=").decode() if page.more else None


def _moment(at: datetime, id_: UUID) -> bytes:
    return ((at - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True) + id_.bytes


def _id_cursor() -> UUID | None:
    text = request.args.get("cursor")
    if text is None:
        return None
    if not _ID_CURSOR.fullmatch(text):
        raise _no_cursor()
    return UUID(bytes=urlsafe_b64decode(f"{text}=="))


def _event_cursor() -> tuple[datetime, UUID] | None:
    text = request.args.get("cursor")
    if text is None:
        return None
    if not _EVENT_CURSOR.fullmatch(text):
        raise _no_cursor()
    octets = urlsafe_b64decode(text)
    try:
        at = _EPOCH + int.from_bytes(octets[:8], "big", signed=True) * _MICROSECOND
    except OverflowError:
        raise _no_cursor() from None
    return at, UUID(bytes=octets[8:])


def _no_cursor() -> wire.Unreadable:
    return _wrong("cursor", "A cursor is the `next` of the page before, as it was.", "invalid_cursor")
