"""Folders and services for the fault tests; nothing of them is left afterwards."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.ledger import CODE_DIGITS, Ledger
from tests.service import Service
from tests.smtp_sink import Sink, open_sink


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def sink(ledger: Ledger) -> Iterator[Sink]:
    """A relay that takes everything and notes it in the ledger."""
    with open_sink(told=ledger.take) as sink:
        yield sink


@pytest.fixture
def service(sink: Sink) -> Iterator[Callable[..., Service]]:
    """Make a service that mails to the sink; it is not started, and ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="regsvc-") as folder:
        made: list[Service] = []

        def make(**environ: str) -> Service:
            knobs = {
                "PASSWORD_ROUNDS": "4",
                "CODE_LENGTH": str(CODE_DIGITS),
                "MAIL_CHANNEL": "smtp",
                "SMTP_HOST": "127.0.0.1",
                "SMTP_PORT": str(sink.port),
                "SMTP_TLS": "none",
                "MAIL_FROM": "no-reply@regsvc.test",
                **environ,
            }
            made.append(Service(Path(folder), {f"REGSVC_{name}": value for name, value in knobs.items()}))
            return made[-1]

        try:
            yield make
        finally:
            for one in made:
                one.end()
