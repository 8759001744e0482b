"""Addresses for the machine's tests: claims, codes and proofs by number."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from regsvc.domain import account
from regsvc.domain.account import Activate, Claim, Code, DuplicatePolicy, Owner, Proof, Register, Rules
from regsvc.domain.refusals import Refused
from regsvc.domain.values import Email, EmailKey

NOW = datetime(2026, 11, 20, 11, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
EMAIL = Email("Ada@example.org", EmailKey("ada@example.org"))
RULES = Rules()
CLAIMS = Rules(duplicates=DuplicatePolicy.CLAIMS)
RIGHT, WRONG = b"right", b"wrong"


def registering(number: int = 1) -> Register:
    return Register(UUID(int=number), EMAIL, f"hash-{number}")


def claimed(number: int = 1, *, code: Code | None = None, verify: Code | None = None, at: datetime = NOW) -> Claim:
    ends = at + account.DAY
    return Claim(UUID(int=number), EMAIL.address, f"hash-{number}", at, at + MINUTE, ends, code=code, verify=verify)


def live(mac: bytes = RIGHT, failures: int = 0) -> Code:
    return Code(mac, NOW + MINUTE, failures)


def proof(*numbers: int) -> Proof:
    return Proof({UUID(int=number): f"hash-{number}" for number in numbers})


def showing(mac: bytes, *numbers: int) -> Activate:
    return Activate(proof(*numbers), {UUID(int=number): (mac,) for number in numbers})


def refused(outcome: object) -> Refused:
    assert isinstance(outcome, Refused)
    return outcome


OWNER = Owner(UUID(int=1), EMAIL.address, "hash-1", NOW)
