"""Build the app out of flows and ports: nothing ambient, nothing before somebody asks for it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from quart_trio import QuartTrio

from regsvc.domain.values import PasswordRules
from regsvc.flows.account import Accounts
from regsvc.http import account, ops, pages
from regsvc.http import mailbox as development
from regsvc.http.caller import Network
from regsvc.http.forms import Rules
from regsvc.http.front import Front
from regsvc.http.kinds import Kind
from regsvc.http.openapi import document, example
from regsvc.http.problems import Writer
from regsvc.http.table import routes
from regsvc.ports import Mailbox, Probe

EXAMPLE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass(frozen=True, slots=True)
class Knobs:
    """What the front needs of the settings, and `draining`: whether this worker is on its way out."""

    public_url: str
    code_digits: int = 4
    passwords: PasswordRules = field(default_factory=PasswordRules)
    trusted_proxies: Sequence[Network] = ()
    draining: Callable[[], bool] = lambda: False
    checks: ops.Checks = field(default_factory=dict)

    @property
    def rules(self) -> Rules:
        """What the fields of forms are held to."""
        return Rules(self.code_digits, self.passwords)

    @property
    def writer(self) -> Writer:
        """What writes problems."""
        return Writer(self.public_url.rstrip("/"))


def make_app(accounts: Accounts, *, probe: Probe, mailbox: Mailbox | None, knobs: Knobs) -> QuartTrio:
    """Build the app. With a mailbox it has the development pages: whoever reaches them reads every code."""
    described = partial(describe, knobs, mailbox=mailbox is not None)

    def shown(kind: Kind) -> str:
        written = json.loads(knobs.writer.body(example(kind), EXAMPLE_ID))
        return json.dumps(written, indent=2, ensure_ascii=False)

    views = {
        **account.views(accounts, knobs.rules),
        **ops.views(probe, knobs.checks, knobs.draining),
        **pages.views(described, shown, root=knobs.writer.base, mailbox=mailbox is not None),
        **({} if mailbox is None else development.views(mailbox)),
    }
    return Front(routes(development=mailbox is not None), views, knobs.writer, knobs.trusted_proxies)


def describe(knobs: Knobs, *, mailbox: bool) -> bytes:
    """Return the OpenAPI document of an app with these knobs, as JSON on one line."""
    found = document(routes(development=mailbox), knobs.writer, knobs.rules)
    return json.dumps(found, ensure_ascii=False).encode()
