"""Whole histories from seeds: every invariant holds at the end of each, and a seed has one history.

The small form runs 80 seeds, the same each time; `--rounds N` a hundred times N that nobody chose, so that runs add up.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.recording import Counted
from tests.simulation import __main__ as command
from tests.simulation.town import simulate

SEEDS = 80
ROUND = 100  # seeds
TELLING = (
    435470604,  # a registration that is over before its mail could leave, and that nobody has swept
    507049661,  # a mailer that stood still through an outage of the database, and was the first to ask afterwards
)
NOTABLE = (  # what must happen in some of them, or they show little
    ": Registered", ": Activated", ": Noted", ": Admitted", ": Resent", " refreshes at ", "invalid_activation_code (",
    "too_many_attempts", "rate_limited", "invalid_refresh_token", "sets a password at ", "deletes the account at ",
    "makes an account at ", "mails reset ", "mails new_device ", "mails registered_again ",
    "taken, and its answer lost",
    ": Rejected", ": Deferred", ": Outage", "! kill ", "! stop ", "! database ", "! cut ", "! relay ", "! jump ",
    "! hang ", "no answer", ": InUse",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_invariant_holds_in_every_history(
    rounds: int | None, capsys: pytest.CaptureFixture[str], counted: Counted
) -> None:
    if rounds is not None:
        failed = command.main(["--seeds", str(rounds * ROUND), "--from", str(secrets.randbelow(10**9))])
        counted(rounds, rounds * ROUND)
        assert not failed, capsys.readouterr().out
        return
    said = set[str]()
    for seed in (*range(SEEDS), *TELLING):
        history = simulate(seed)
        assert history.broken == [], history.text()
        said.update(notable for notable in NOTABLE if any(notable in line for line in history.lines))
    assert said == set(NOTABLE)


def test_a_seed_has_one_history(capsys: pytest.CaptureFixture[str]) -> None:
    """Also in another process, where strings and objects have other hashes; whatever ran before it in this one."""
    simulate(3)
    assert command.main(["--seed", "58"]) == 0
    here = capsys.readouterr().out
    assert here == simulate(58).text()
    assert "mails activation" in here
    for salt in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "58"],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert there.stdout == here


def test_two_seeds_have_two_histories() -> None:
    assert simulate(4).lines != simulate(5).lines


def test_many_seeds_on_several_processes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", "30", "--from", "7", "--processes", "2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 seeds from 7: 0 break an invariant; ")
