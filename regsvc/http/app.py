"""Build the app out of flows and ports: nothing ambient, nothing before somebody asks for it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from quart_trio import QuartTrio

from regsvc.domain.values import PasswordRules, Secret
from regsvc.flows.account import Accounts
from regsvc.flows.profile import Profiles
from regsvc.flows.quota import Limits
from regsvc.flows.recovery import Recovery
from regsvc.flows.session import Sessions
from regsvc.flows.staff import Staff
from regsvc.http import account, logs, metrics, ops, pages, profile, session, staff
from regsvc.http import mailbox as development
from regsvc.http.caller import Network
from regsvc.http.cookies import Cookies
from regsvc.http.forms import Rules
from regsvc.http.front import Front
from regsvc.http.kinds import Kind
from regsvc.http.logs import Source
from regsvc.http.metrics import Metrics, nothing_counted
from regsvc.http.openapi import document, example
from regsvc.http.overload import Workload, probe_paths
from regsvc.http.problems import Writer
from regsvc.http.protection import AtTheDoor, Protection
from regsvc.http.quota import Turnstile, standing
from regsvc.http.receipt import Receipts
from regsvc.http.reply import View, Wording
from regsvc.http.routes import Auth
from regsvc.http.staff_models import StaffHashing
from regsvc.http.table import routes
from regsvc.ports import Mailbox, Probe, Tokens

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
    hashing: Callable[[], StaffHashing] = lambda: StaffHashing(waiting=0, running=0)
    verify_digits: int = 6
    cookies: bool = False  # whether refresh tokens are handed out in a cookie
    admin_token: Secret | None = None  # what a machine shows to administer
    uniform: bool = False  # whether every registration is answered alike
    cors_origins: Sequence[str] = ()  # of pages elsewhere that may call
    requests_max: int = 512  # in hand at once
    request_deadline: timedelta = timedelta(seconds=20)
    metrics: Metrics | None = field(default_factory=nothing_counted)  # None: there are no such routes
    logs: Source = field(default_factory=Source)  # what a stream of the log reads

    @property
    def rules(self) -> Rules:
        """What the fields of forms are held to."""
        return Rules(self.code_digits, self.passwords, self.verify_digits)

    @property
    def writer(self) -> Writer:
        """What writes problems."""
        return Writer(self.public_url.rstrip("/"))

    @property
    def protection(self) -> Protection:
        """What every answer tells browsers."""
        return Protection.of(self.public_url, self.cors_origins, credentials=self.cookies)

    @property
    def at_the_door(self) -> AtTheDoor:
        """What words the refusals of the server."""
        return AtTheDoor(self.writer, self.protection)


@dataclass(frozen=True, slots=True)
class Flows:
    """What people do, by room."""

    accounts: Accounts
    sessions: Sessions
    recovery: Recovery
    profiles: Profiles
    staff: Staff


def make_app(
    flows: Flows,
    *,
    tokens: Tokens,
    probe: Probe,
    receipts: Receipts,
    limits: Limits,
    mailbox: Mailbox | None,
    knobs: Knobs,
) -> QuartTrio:
    """Build the app. With a mailbox it has the development pages: whoever reaches them reads every code."""
    described = partial(describe, knobs, mailbox=mailbox is not None)

    def shown(kind: Kind) -> str:
        written = json.loads(knobs.writer.body(example(kind), EXAMPLE_ID))
        return json.dumps(written, indent=2, ensure_ascii=False)

    rules = knobs.rules
    cookies = Cookies.of(knobs.public_url, knobs.cors_origins) if knobs.cookies else None
    table = routes(development=mailbox is not None, uniform=knobs.uniform, metrics=knobs.metrics is not None)
    gate = staff.Gate.of(flows.staff, flows.sessions, knobs.admin_token)
    views: dict[str, View] = {
        **account.views(flows.accounts, rules),
        **session.views(flows.sessions, flows.recovery, tokens, rules, cookies),
        **profile.views(flows.profiles, flows.sessions, rules, cookies),
        **staff.views(flows.staff, gate, rules, standing(limits, table, knobs.hashing)),
        **logs.views(knobs.logs, gate, table),
        **ops.views(probe, knobs.checks, knobs.draining),
        **pages.views(described, shown, rules, root=knobs.writer.base, mailbox=mailbox is not None),
        **({} if mailbox is None else development.views(mailbox)),
        **({} if knobs.metrics is None else metrics.views(knobs.metrics, gate.admit)),
    }
    wording = Wording(knobs.writer, frozenset(route.name for route in table if route.auth is Auth.BASIC))
    views |= {route.name: receipts.keyed(route, views[route.name], wording) for route in table if route.keyed}
    turnstile = Turnstile.of(table, limits)
    workload = Workload(knobs.requests_max, knobs.request_deadline)
    return Front(table, views, wording, knobs.trusted_proxies, turnstile, knobs.protection, workload)


def always_answered() -> frozenset[bytes]:
    """Return the paths of the probes, which are answered even when the house is full."""
    return probe_paths(routes(development=False))


def describe(knobs: Knobs, *, mailbox: bool) -> bytes:
    """Return the OpenAPI document of an app with these knobs, as JSON on one line."""
    table = routes(development=mailbox, uniform=knobs.uniform, metrics=knobs.metrics is not None)
    found = document(table, knobs.writer, knobs.rules)
    return json.dumps(found, ensure_ascii=False).encode()
