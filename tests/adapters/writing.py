"""Dispatches to write letters for."""

from datetime import timedelta
from uuid import uuid4

from regsvc.domain.delivery import Letter
from regsvc.domain.values import Secret
from regsvc.ports import Dispatch


def dispatch(
    to: str = "kim@example.test",
    *,
    code: str = "0471",
    username: str | None = None,
    locale: str | None = "en",
    seconds: float = 60,
) -> Dispatch:
    """A letter to write; its code is what the test says."""
    return Dispatch(uuid4(), Letter.ACTIVATION, to, username, locale, Secret(code), timedelta(seconds=seconds))
