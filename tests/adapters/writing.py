"""Dispatches to write letters for."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from regsvc.domain.delivery import Letter
from regsvc.domain.values import LinkToken, Secret
from regsvc.ports import Dispatch

AT = datetime(2026, 11, 20, 11, 5, 59, tzinfo=UTC)
TOKEN = LinkToken(UUID(int=7 << 120), Secret("0123456789abcdef" * 2)).text().reveal()


def dispatch(
    to: str = "kim@example.test",
    letter: Letter = Letter.ACTIVATION,
    *,
    code: str | None = None,
    username: str | None = None,
    locale: str | None = "en",
    seconds: float = 60,
    data: Mapping[str, str] | None = None,
) -> Dispatch:
    """A letter to write; what it carries is what the test says, where it carries anything."""
    usual = TOKEN if letter is Letter.RESET else "0471"
    secret, lifetime = (None, None) if letter.notice else (Secret(code or usual), timedelta(seconds=seconds))
    return Dispatch(uuid4(), letter, to, username, locale, secret, lifetime, AT, data=data or {})
