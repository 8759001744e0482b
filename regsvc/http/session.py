"""Log in, sessions, recovery over HTTP, and the keys that tell a token of ours."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from quart import Response

from regsvc.domain import session
from regsvc.domain.refusals import Refusal, Refused
from regsvc.flows.recovery import Recovery
from regsvc.flows.session import Admitted, Sessions, Visitor, Where
from regsvc.http import models, wire
from regsvc.http.caller import asked
from regsvc.http.cookies import Cookies, cleared
from regsvc.http.forms import AddressForm, LoginForm, RefreshForm, ResetForm, Rules, VerifyForm
from regsvc.http.models import Fault
from regsvc.http.problems import REASK_CODE, told
from regsvc.http.profile import shown
from regsvc.http.receipt import answered
from regsvc.http.reply import Answer, View, nothing, nothing_unless, reply, written
from regsvc.http.visitor import Visited, visited
from regsvc.ports import Tokens

FORGOTTEN: Final = "If the address has an account, a mail with a link for a new password is on its way to it."
CODE_SENT: Final = "If the address waits to be proved, a mail with a code is on its way to it."


def views(
    sessions: Sessions, recovery: Recovery, tokens: Tokens, rules: Rules, cookies: Cookies | None
) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table; `cookies`: where refresh tokens go."""
    return {
        "login": _login(sessions, rules, cookies),
        "verify": _verify(sessions, rules, cookies),
        "refresh": _refresh(sessions, rules, cookies),
        "logout": visited(sessions, _logout(sessions, cookies)),
        "logout_all": visited(sessions, _logout_all(sessions, cookies)),
        "send_code": _send_code(recovery, rules),
        "forgot_password": _forgot_password(recovery, rules),
        "reset_password": _reset_password(recovery, rules),
        "sessions": visited(sessions, _list(sessions)),
        "end_sessions": visited(sessions, _logout_all(sessions, cookies)),
        "session": visited(sessions, _show(sessions)),
        "end_session": visited(sessions, _revoke(sessions, cookies)),
        "jwks": _jwks(tokens),
    }


# ------------------------------------------------------------------------------------------------- log in


def _login(sessions: Sessions, rules: Rules, cookies: Cookies | None) -> View:
    async def login() -> Answer:
        form = await wire.read(asked(), LoginForm, rules)
        who = form.who()
        if isinstance(who, Fault):
            raise wire.Unreadable(wire.faulty([who]))
        return await answered(partial(sessions.login, who, form.password, _where()), _admitting(cookies))

    return login


def _verify(sessions: Sessions, rules: Rules, cookies: Cookies | None) -> View:
    admitted = _admitting(cookies)

    def shown(done: Admitted | Refused) -> Answer:
        return told(done, REASK_CODE) if isinstance(done, Refused) else admitted(done)

    async def verify() -> Answer:
        form = await wire.read(asked(), VerifyForm, rules)
        return await answered(partial(sessions.verify, form.email, form.code, _where()), shown)

    return verify


def _refresh(sessions: Sessions, rules: Rules, cookies: Cookies | None) -> View:
    async def refresh() -> Answer:
        form = await wire.read(asked(), RefreshForm, rules)
        token = form.refresh_token
        if token is None:
            if cookies is None:
                raise wire.Unreadable(wire.faulty([_NO_REFRESH_TOKEN]))
            return await _refresh_by_cookie(sessions, cookies)
        return await answered(partial(sessions.refresh, token, _where()), _admitting(cookies))

    return refresh


_NO_REFRESH_TOKEN: Final = Fault(field="refresh_token", message="This field is required.", code="missing")


async def _refresh_by_cookie(sessions: Sessions, cookies: Cookies) -> Answer:
    headers = asked().headers
    token = cookies.read(headers)
    if token is None:
        return Refused(Refusal.INVALID_REFRESH_TOKEN)
    if cookies.foreign(headers):
        return Refused(Refusal.CSRF_SUSPECTED)  # and the cookie stays: a foreign page must not log anybody out either
    admitted = _admitting(cookies)

    def shown(done: Admitted | Refused) -> Answer:
        return replace(told(done), cookie=cleared(cookies)) if isinstance(done, Refused) else admitted(done)

    return await answered(partial(sessions.refresh, token, _where()), shown)


def _where() -> Where:
    request = asked()
    return Where(session.device(request.headers.get("User-Agent")), request.caller.address)


def _admitting(cookies: Cookies | None) -> Callable[[Admitted | Refused], Answer]:
    """Return what shows a session that was opened or refreshed."""

    def admitted(done: Admitted | Refused) -> Answer:
        if isinstance(done, Refused):
            return done
        asked().caller.user_id = str(done.user.id)
        body = models.Admitted(
            access_token=done.access_token.reveal(),
            expires_in=int(done.expires_in.total_seconds()),
            refresh_token=done.refresh_token.reveal(),
            user=shown(done.user),
        )
        if cookies is None:
            return reply(body)
        answer = written(body.model_dump_json(exclude={"refresh_token"}).encode())
        answer.headers["Set-Cookie"] = cookies.written(done.refresh_token, done.refresh_until)
        return answer

    return admitted


# ------------------------------------------------------------------------------------------------- sessions


def _logout(sessions: Sessions, cookies: Cookies | None) -> Visited[[]]:
    async def logout(visitor: Visitor) -> Answer:
        return await answered(partial(sessions.logout, visitor), lambda _: nothing(cleared(cookies)))

    return logout


def _logout_all(sessions: Sessions, cookies: Cookies | None) -> Visited[[]]:
    async def logout_all(visitor: Visitor) -> Answer:
        return await answered(partial(sessions.logout_all, visitor), lambda _: nothing(cleared(cookies)))

    return logout_all


def _list(sessions: Sessions) -> Visited[[]]:
    async def list_sessions(visitor: Visitor) -> Response:
        found = await sessions.list(visitor)
        return reply(models.Sessions(sessions=[_shown(one, visitor) for one in found]))

    return list_sessions


def _show(sessions: Sessions) -> Visited[[str]]:
    async def show(visitor: Visitor, session_id: str) -> Response | Refused:
        wanted = wire.identifier(session_id)
        found = _NO_SUCH_SESSION if wanted is None else await sessions.show(visitor, wanted)
        return found if isinstance(found, Refused) else reply(_shown(found, visitor))

    return show


def _revoke(sessions: Sessions, cookies: Cookies | None) -> Visited[[str]]:
    async def revoke(visitor: Visitor, session_id: str) -> Response | Refused:
        wanted = wire.identifier(session_id)
        refused = _NO_SUCH_SESSION if wanted is None else await sessions.revoke(visitor, wanted)
        return refused or nothing(cleared(cookies) if wanted == visitor.session.id else None)

    return revoke


_NO_SUCH_SESSION: Final = Refused(Refusal.NO_SUCH_SESSION)


def _shown(found: session.Session, visitor: Visitor) -> models.Session:
    return models.Session(
        id=found.id,
        device=found.device,
        ip=found.ip,
        created_at=found.created_at,
        last_used_at=found.last_used_at,
        expires_at=found.expires_at,
        current=found.id == visitor.session.id,
    )


# ------------------------------------------------------------------------------------------------- recovery


def _send_code(recovery: Recovery, rules: Rules) -> View:
    async def send_code() -> Answer:
        form = await wire.read(asked(), AddressForm, rules)
        return await answered(partial(recovery.send_code, form.email), _accepting(CODE_SENT))

    return send_code


def _forgot_password(recovery: Recovery, rules: Rules) -> View:
    async def forgot_password() -> Answer:
        form = await wire.read(asked(), AddressForm, rules)
        return await answered(partial(recovery.forgot, form.email), _accepting(FORGOTTEN))

    return forgot_password


def _reset_password(recovery: Recovery, rules: Rules) -> View:
    async def reset_password() -> Answer:
        form = await wire.read(asked(), ResetForm, rules)
        return await answered(partial(recovery.reset, form.token, form.new_password), nothing_unless)

    return reset_password


def _accepting(message: str) -> Callable[[None], Answer]:
    return lambda _: reply(models.Accepted(message=message), 202)


def _jwks(tokens: Tokens) -> View:
    async def jwks() -> Response:  # noqa: ASYNC124 - views are async
        return written(json.dumps(tokens.public()).encode())

    return jwks
