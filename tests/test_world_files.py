"""How many connections there is room for, in a process of its own: a limit that was lowered is not raised again."""

import json
import subprocess
import sys

ASKED = """
import json, resource, sys
from regsvc.observe import open_log
from regsvc.settings import load_settings
from regsvc.world.files import room
settings = load_settings({"REGSVC_PROFILE": "dev", "REGSVC_CONNECTIONS_MAX": "1000"})
with open_log(level="info", fmt="json"):
    for limits in json.loads(sys.argv[1]):
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        found = room(settings)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        print(json.dumps([found.connections, found.guests, soft]), file=sys.stderr)
"""
OTHERS = 10 + 8 + 128  # connections of the pool, mails at once, and the margin
CASES = {
    (100, 4000): [1000, 256, 1256 + OTHERS],
    (3000, 4000): [1000, 256, 3000],
    (100, 1000): [1000 - OTHERS - 256, 256, 1000],
    (100, 200): [27, 27, 200],
    (100, 100): [1, 1, 100],
}


def test_there_is_a_file_for_each_connection_or_fewer_connections() -> None:
    command = [sys.executable, "-c", ASKED, json.dumps(list(CASES))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stderr.splitlines()] == list(CASES.values())
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["setting"] for line in told} == {"REGSVC_CONNECTIONS_MAX"}
    reasons = [line["reason"] for line in told]
    assert len(reasons) == 3
    assert all(f"enough for {n}: raise ulimit -n" in reason for n, reason in zip((598, 27, 1), reasons, strict=True))
