"""Dispatches to write letters for."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from hypothesis import strategies as st

from regsvc.domain.delivery import Letter
from regsvc.domain.values import LinkToken, Secret
from regsvc.ports import Dispatch

AT = datetime(2026, 11, 20, 11, 5, 59, tzinfo=UTC)
LINK = LinkToken(UUID(int=8 << 120), Secret("fedcba9876543210" * 2)).text().reveal()
TOKEN = LinkToken(UUID(int=7 << 120), Secret("0123456789abcdef" * 2)).text().reveal()

tokens = st.builds(
    lambda subject, secret: LinkToken(subject, Secret(secret.hex())).text().reveal(),
    st.uuids(),
    st.binary(min_size=16, max_size=16),
)
links = tokens.filter(lambda token: not re.search(r"\d{4}", token))  # as the courier mints them


def dispatch(
    to: str = "kim@example.test",
    letter: Letter = Letter.ACTIVATION,
    *,
    code: str | None = None,
    username: str | None = None,
    locale: str | None = "en",
    seconds: float = 60,
    data: Mapping[str, str] | None = None,
    link: str | None = LINK,
    link_seconds: float = 600,
) -> Dispatch:
    """A letter to write; what it carries is what the test says, where it carries anything."""
    usual = TOKEN if letter is Letter.RESET else "0471"
    secret, lifetime = (None, None) if letter.notice else (Secret(code or usual), timedelta(seconds=seconds))
    beside, its_life = (
        (Secret(link), timedelta(seconds=link_seconds)) if link and letter is Letter.ACTIVATION else (None, None)
    )
    return Dispatch(
        uuid4(), letter, to, username, locale, secret, lifetime, AT,
        data=data or {}, link=beside, link_lifetime=its_life,
    )  # fmt: skip
