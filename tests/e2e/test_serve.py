"""`regsvc serve` as people run it: a process, its workers, its PostgreSQL, seen from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.service import READY_SECONDS, Service, plain, running, running_first

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
GONE_SECONDS = 15.0  # after a kill -9 of the parent
PLAIN = plain()
QUICK = {"PASSWORD_ROUNDS": "4"}
HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it as it was; two workers, in a folder with a space in its name."""
    with running_first(tmp_path_factory.mktemp("a folder"), WORKERS="2", **QUICK) as service:
        yield service


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether nothing of that number runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def processes(service: Service) -> list[int]:
    """Every process that the service has told of."""
    assert service.process is not None
    lines = [*service.lines("worker_started"), *service.lines("embedded_database_started")]
    return [service.process.pid, *(int(str(line["pid"])) for line in lines)]


def register(service: Service, email: str) -> httpx.Response:
    form = {"email": email, "password": PASSWORD}
    return httpx.post(f"{service.url}/v1/users/register", json=form, timeout=10, verify=PLAIN)


def activate(service: Service, email: str, code: str) -> httpx.Response:
    auth = httpx.BasicAuth(email, PASSWORD)
    return httpx.post(f"{service.url}/v1/users/activate", json={"code": code}, auth=auth, timeout=10, verify=PLAIN)


def code_for(service: Service, email: str) -> str:
    """The code in the newest mail to that address, once it is there."""
    found: list[str] = []

    def look() -> bool:
        query = {"kind": "to", "query": email}
        mails = httpx.get(f"{service.url}/api/v2/search", params=query, timeout=10, verify=PLAIN).json()["items"]
        found.extend(re.search(r"^(\d{4})\r?$", mail["Content"]["Body"], re.MULTILINE)[1] for mail in mails[:1])  # type: ignore[index]  # no code, no test
        return bool(found)

    until(look)
    return found[0]


def test_somebody_registers_reads_the_code_and_activates(service: Service) -> None:
    registered = register(service, EMAIL)
    assert registered.status_code == 201
    code = code_for(service, EMAIL)
    activated = activate(service, EMAIL, code)
    assert (activated.status_code, activated.json()["is_activated"]) == (200, True)
    assert activated.json()["id"] == registered.json()["id"]
    assert activate(service, EMAIL, code).status_code == 409
    said = [value for line in service.lines() for value in line.values() if isinstance(value, str)]
    assert code not in said  # as a value: four digits are found in many a time and id
    assert not [value for value in said if EMAIL in value or PASSWORD in value]


def test_both_workers_serve(service: Service) -> None:
    def workers() -> set[object]:
        httpx.get(f"{service.url}/livez", timeout=20, verify=PLAIN)
        return {line["worker"] for line in service.lines("http_request")}

    until(lambda: workers() == {1, 2})


def test_a_killed_worker_is_replaced_within_two_seconds(service: Service) -> None:
    started = service.lines("worker_started")
    os.kill(int(str(started[-1]["pid"])), signal.SIGKILL)
    began = time.monotonic()
    until(lambda: len(service.lines("worker_started")) > len(started) and service.lines("worker_restarted"))
    # A machine that runs other tests beside this one takes longer to import: the wait itself is what is promised.
    assert service.lines("worker_restarted")[-1]["wait_s"] == 0.1
    assert time.monotonic() - began < 15
    assert httpx.get(f"{service.url}/livez", timeout=20, verify=PLAIN).status_code == 200


def test_a_killed_postgresql_is_started_again(service: Service) -> None:
    started = service.lines("embedded_database_started")
    os.kill(int(str(started[-1]["pid"])), signal.SIGKILL)
    until(lambda: len(service.lines("embedded_database_started")) > len(started))
    service.wait_ready()
    assert register(service, "after@example.org").status_code == 201
    assert code_for(service, "after@example.org")


def test_verbs_work_beside_the_running_service(service: Service) -> None:
    register(service, "verbs@example.org")
    code_for(service, "verbs@example.org")
    listed = regsvc(service.folder, "mail", "list", "--state", "sent", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    newest = json.loads(listed.stdout.splitlines()[0])
    assert newest["letter"] == "activation"


def test_a_second_service_on_the_same_folder_or_port_says_what_to_do(service: Service) -> None:
    folder = regsvc(service.folder, "serve", "--port", "0")
    assert folder.returncode == os.EX_TEMPFAIL
    assert re.search(r"is in use by process \d+: stop it", folder.stderr)
    port = regsvc(service.folder, "serve", "--port", str(service.port))
    assert port.returncode == os.EX_TEMPFAIL
    assert "another program listens there: stop it, or set REGSVC_PORT" in port.stderr
    assert httpx.get(f"{service.url}/readyz", timeout=20, verify=PLAIN).status_code == 200


def regsvc(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a verb on the data that a service in `folder` has."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("REGSVC_", "DATABASE_"))}
    return subprocess.run(
        [sys.executable, "-m", "regsvc", *words],
        cwd=folder,
        env={**clean, "REGSVC_DATA_DIR": str(folder / "data"), **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_told_to_stop_it_drains_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, **QUICK) as service:
        assert register(service, EMAIL).status_code == 201
        assert service.terminate() == 0  # the mail is on its way perhaps: it is handed over before the end
        assert all(gone(pid) for pid in processes(service))
        [drained] = service.lines("drain_completed")
        assert (drained["in_flight"], drained["left"], drained["cut"]) == (0, 0, 0)
        assert len(service.lines("mail_sent")) == 1
        assert service.lines()[-1]["event"] == "service_stopped"


def test_a_killed_service_leaves_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, **QUICK) as service:
        assert register(service, EMAIL).status_code == 201
        code = code_for(service, EMAIL)
        before = processes(service)
        service.kill()
        until(lambda: all(gone(pid) for pid in before), GONE_SECONDS)
        service.start()
        assert activate(service, EMAIL, code).status_code == 200


def test_a_wrong_value_stops_the_start_with_one_line(tmp_path: Path) -> None:
    found = regsvc(tmp_path, "serve", REGSVC_CODE_TTL="5")
    assert found.returncode == os.EX_CONFIG
    assert found.stderr == "regsvc: REGSVC_CODE_TTL: got '5', takes seconds, 10 to 86400\n"
    assert not (tmp_path / "data").exists()


def test_a_database_that_is_away_at_the_start_is_told_of_and_waited_for(tmp_path: Path) -> None:
    away = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x", "REGSVC_PROFILE": "dev"}
    service = Service(tmp_path, away)
    try:
        service.launch()
        until(lambda: len(service.lines("worker_restarted")) >= 2, READY_SECONDS)
        assert {line["exit_status"] for line in service.lines("worker_exited")} == {os.EX_TEMPFAIL}
        assert service.lines("database_unavailable")
        assert service.terminate() == 0
    finally:
        service.end()
