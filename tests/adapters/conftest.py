"""What the tests of the ways out share."""

from ssl import SSLContext

import pytest

from regsvc.adapters.mail import Letters
from tests.smtp_sink import tls_pair


@pytest.fixture(scope="session")
def letters() -> Letters:
    return Letters(sender="Registration <no-reply@service.test>", public_url="https://service.test", service="regsvc")


@pytest.fixture(scope="session")
def tls() -> tuple[SSLContext, SSLContext]:
    """For a server on this host, and for its client."""
    return tls_pair()
