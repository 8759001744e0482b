"""Register, activate, resend, and how it stands, over HTTP."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Final

from quart import Response, request

from regsvc.domain.refusals import Refused
from regsvc.domain.values import Secret
from regsvc.flows.account import Accounts, Activated, Noted, Registered, Registration, Resent, Standing
from regsvc.http import models, wire
from regsvc.http.caller import asked
from regsvc.http.connection import while_connected
from regsvc.http.forms import ActivateForm, NothingForm, RegisterForm, Rules
from regsvc.http.models import Fault
from regsvc.http.receipt import answered
from regsvc.http.reply import Answer, View, reply

WAIT_MAX: Final = 60  # seconds of a long poll; proxies cut what is silent for longer


def views(accounts: Accounts, rules: Rules) -> Mapping[str, View]:
    """Return what answers the routes of this room, by the names in the table."""
    return {
        "register": _register(accounts, rules),
        "activate": _activate(accounts, rules),
        "resend": _resend(accounts, rules),
        "standing": _standing(accounts),
    }


def _register(accounts: Accounts, rules: Rules) -> View:
    async def register() -> Answer:
        form = await wire.read(asked(), RegisterForm, rules)
        who = Registration(form.email, form.password, form.username, form.locale, asked().caller.address)
        return await answered(partial(accounts.register, who), _registered)

    return register


def _registered(done: Registered | Noted | Refused) -> Answer:
    if isinstance(done, Refused):
        return done
    if isinstance(done, Noted):
        return reply(models.Noted(email=done.email, message=f"What to do next is mailed to {done.email}."), 202)
    registration = models.Registration(
        id=done.id,
        email=done.email,
        created_at=done.created_at,
        resend_available_at=done.resend_available_at,
        message=f"A code is on its way to {done.email}. Activate with it: POST /v1/users/activate.",
    )
    return reply(registration, 201)


def _activate(accounts: Accounts, rules: Rules) -> View:
    async def activate() -> Answer:
        who = wire.credentials(request.headers)
        shown = (await wire.read(asked(), ActivateForm, rules)).shown()
        if isinstance(shown, Fault):
            raise wire.Unreadable(wire.faulty([shown]))
        if isinstance(shown, Secret):
            return await answered(partial(accounts.activate, who, shown), _activated)
        return await answered(partial(accounts.follow, who, shown), _activated)

    return activate


def _activated(done: Activated | Refused) -> Answer:
    if isinstance(done, Refused):
        return done
    asked().caller.user_id = str(done.id)
    message = "The account is active."
    return reply(models.User(id=done.id, email=done.email, activated_at=done.activated_at, message=message))


def _resend(accounts: Accounts, rules: Rules) -> View:
    async def resend() -> Answer:
        who = wire.credentials(request.headers)
        await wire.read_nothing(asked(), NothingForm, rules)
        return await answered(partial(accounts.resend, who), _resent)

    return resend


def _resent(done: Resent | Refused) -> Answer:
    if isinstance(done, Refused):
        return done
    message = f"A new code is on its way to {done.email}; it replaces the one before."
    available_at = done.resend_available_at
    return reply(models.Resent(email=done.email, resend_available_at=available_at, message=message), 202)


def _standing(accounts: Accounts) -> View:
    async def standing() -> Response | Refused:
        who = wire.credentials(request.headers)
        wait = timedelta(seconds=wire.seconds(request.args, "wait", WAIT_MAX))
        found: Standing | Refused | None = None
        if wait:
            asked().caller.wait(wait)
            async with while_connected():
                found = await accounts.standing(who, wait, asked().caller.errand)
        if found is None:  # nothing to wait for; or the server drains, and a client that is still there gets its answer
            found = await accounts.standing(who, timedelta(), asked().caller.errand)
        return found if isinstance(found, Refused) else reply(_shown(found))

    return standing


def _shown(found: Standing) -> models.Standing:
    return models.Standing(
        id=found.id,
        email=found.email,
        mail=found.mail.value,
        code_expires_at=found.code_expires_at,
        resend_available_at=found.resend_available_at,
    )
