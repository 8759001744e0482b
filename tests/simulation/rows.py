"""Rows of a simulation's database that are not the flows' own values, and how an address is read from rows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from regsvc.domain.account import Address, Claim, Code, Owner
from regsvc.domain.session import User
from regsvc.domain.values import EmailKey
from tests.fakes import Row
from tests.flows.unit import StoredCode

SECRETS: Final = ("activate", "link", "verify")  # the purposes of what a claim may have
WAITING: Final = ("ready", "leased")  # the states of mails that have still to leave


@dataclass(frozen=True)
class Held:
    """A row of a registration; its codes are rows of their own."""

    key: EmailKey
    claim: Claim


@dataclass
class Cargo(Row):
    """An outbox row, with the rest of its fence."""

    leased_at: datetime | None = None
    sent_at: datetime | None = None


def address_of(
    key: EmailKey,
    users: Iterable[User],
    claims: Iterable[Held],
    codes: Mapping[tuple[UUID, str], StoredCode],
    counters: Address,
) -> Address:
    """Read an address from its rows, as `load_address` does."""
    owner = next((Owner(u.id, u.email, u.password_hash, u.activated_at) for u in users if u.email_key == key), None)
    found = []
    for held in claims:
        if held.key == key:
            mine = [codes.get((held.claim.id, purpose)) for purpose in SECRETS]
            code, link, verify = (
                None if one is None or one.used else Code(one.mac, one.expires_at, one.failures) for one in mine
            )
            found.append(replace(held.claim, code=code, link=link, verify=verify))
    found.sort(key=lambda claim: (claim.created_at, claim.id), reverse=True)
    return replace(counters, owner=owner, claims=tuple(found))
