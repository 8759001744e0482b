"""Somebody moves in with the accounts of another service: imports them, and they log in as they always did."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.e2e.people import Person, client, command, on_database
from tests.postgres import temporary_cluster
from tests.service import Service

FEW = 500
PROMISED = 60.0  # seconds for 100,000


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="regsvc ") as folder,
        temporary_cluster() as cluster,
        on_database(Path(folder), cluster.dsn, PASSWORD_ROUNDS="5") as [one],
    ):
        yield one


def stored(service: Service, email: str) -> str:
    """Return the hash of an account, as an export has it."""
    lines = (json.loads(line) for line in command(service, "user", "export").splitlines())
    return next(str(line["password_hash"]) for line in lines if line["email"] == email)


@pytest.mark.timeout(0)
async def test_imported_people_log_in_with_their_old_passwords_and_are_upgraded(
    service: Service, rounds: int | None
) -> None:
    number, password = rounds or FEW, "an old password from elsewhere"
    shared = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    php = shared.replace("$2b$", "$2y$")  # as PHP's password_hash writes it
    lines = [
        {"email": f"moved-{n}@example.test", "password_hash": php if n % 2 else shared, "username": f"moved{n}"}
        for n in range(number)
    ]
    file = service.folder / "users.ndjson"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    began = time.monotonic()
    command(service, "user", "import", str(file))
    took = time.monotonic() - began
    print(f"\n{number} users imported in {took:.1f} s: {number / took:.0f} a second")  # noqa: T201 - it is the report
    async with client(service) as http:
        for n in (0, 1, number - 1):
            someone = await Person(http, f"moved-{n}@example.test", password).log_in()
            assert (await someone.me()).json()["username"] == f"moved{n}"
            assert (await Person(http, someone.email, "not the password").try_login()).status_code == 401
    upgraded = stored(service, "moved-1@example.test")
    assert upgraded.startswith("bcrypt-hmac-sha384$")
    assert "$05$" in upgraded
    command(service, "user", "import", str(file), status=1)  # whoever was upgraded is not as his line says
    assert stored(service, "moved-1@example.test") == upgraded
    if number >= 100_000:
        assert took <= PROMISED
