"""Somebody's own account over HTTP: see it, change it, leave."""

from collections.abc import Mapping
from functools import partial

from quart import Response

from regsvc.domain.refusals import Refused
from regsvc.domain.session import User
from regsvc.flows.profile import Keep, Profiles, Proposed
from regsvc.flows.session import Sessions, Visitor
from regsvc.http import models, wire
from regsvc.http.caller import asked
from regsvc.http.cookies import Cookies, cleared
from regsvc.http.forms import ConfirmForm, EmailForm, PasswordForm, ProfileForm, RemoveForm, Rules
from regsvc.http.problems import REASK_EMAIL, told
from regsvc.http.receipt import answered
from regsvc.http.reply import Answer, View, nothing, nothing_unless, reply
from regsvc.http.visitor import Visited, visited


def views(profiles: Profiles, sessions: Sessions, rules: Rules, cookies: Cookies | None) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table."""
    return {
        "me": visited(sessions, _me),
        "change_me": visited(sessions, _change(profiles, rules)),
        "replace_me": visited(sessions, _replace(profiles, rules)),
        "remove_me": visited(sessions, _remove(profiles, rules, cookies)),
        "change_password": visited(sessions, _change_password(profiles, rules)),
        "propose_email": visited(sessions, _propose_email(profiles, rules)),
        "confirm_email": visited(sessions, _confirm_email(profiles, rules)),
    }


def shown(user: User) -> models.Profile:
    """Return an account as the API writes it."""
    return models.Profile(
        id=user.id,
        email=user.email,
        username=None if user.username is None else user.username.name,
        locale=None if user.locale is None else user.locale.tag,
        role=user.role.value,
        created_at=user.created_at,
        activated_at=user.activated_at,
        updated_at=user.updated_at,
    )


async def _me(visitor: Visitor) -> Response:  # noqa: ASYNC124 - views are async
    return reply(shown(visitor.user))


def _change(profiles: Profiles, rules: Rules) -> Visited[[]]:
    async def change(visitor: Visitor) -> Response | Refused:
        form = await wire.read(asked(), ProfileForm, rules)
        sent = form.model_fields_set
        done = await profiles.change(
            visitor,
            username=form.username if "username" in sent else Keep.KEEP,
            locale=form.locale if "locale" in sent else Keep.KEEP,
        )
        return done if isinstance(done, Refused) else reply(shown(done))

    return change


def _replace(profiles: Profiles, rules: Rules) -> Visited[[]]:
    async def replace(visitor: Visitor) -> Response | Refused:
        form = await wire.read(asked(), ProfileForm, rules)
        done = await profiles.change(visitor, username=form.username, locale=form.locale)
        return done if isinstance(done, Refused) else reply(shown(done))

    return replace


def _remove(profiles: Profiles, rules: Rules, cookies: Cookies | None) -> Visited[[]]:
    async def remove(visitor: Visitor) -> Response | Refused:
        form = await wire.read(asked(), RemoveForm, rules)
        refused = await profiles.remove(visitor, form.password, asked().caller.errand)
        return refused or nothing(cleared(cookies))

    return remove


def _change_password(profiles: Profiles, rules: Rules) -> Visited[[]]:
    async def change_password(visitor: Visitor) -> Answer:
        form = await wire.read(asked(), PasswordForm, rules)
        act = partial(profiles.change_password, visitor, form.current_password, form.new_password)
        return await answered(act, nothing_unless)

    return change_password


def _propose_email(profiles: Profiles, rules: Rules) -> Visited[[]]:
    async def propose_email(visitor: Visitor) -> Answer:
        form = await wire.read(asked(), EmailForm, rules)
        return await answered(partial(profiles.propose_email, visitor, form.new_email, form.password), _proposed)

    return propose_email


def _proposed(made: Proposed | Refused) -> Answer:
    if isinstance(made, Refused):
        return told(made, REASK_EMAIL)
    message = f"A code is on its way to {made.email}. Confirm with it: POST /v1/users/me/email/confirm."
    return reply(models.Proposed(email=made.email, message=message), 202)


def _confirm_email(profiles: Profiles, rules: Rules) -> Visited[[]]:
    async def confirm_email(visitor: Visitor) -> Answer:
        form = await wire.read(asked(), ConfirmForm, rules)
        return await answered(partial(profiles.confirm_email, visitor, form.code), _confirmed)

    return confirm_email


def _confirmed(made: User | Refused) -> Answer:
    return told(made, REASK_EMAIL) if isinstance(made, Refused) else reply(shown(made))
