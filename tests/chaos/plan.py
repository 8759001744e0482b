"""The faults, row by row: which test brings each about, what is at risk in it, and how often it is done.

`middle` is what `nox -s chaos` does in at most twenty minutes, `large` what is published; both are numbers for
`--rounds`, which each test reads in its own way (cycles, seconds, inputs). `each`: operations at risk in a round, of
tests that do not count them.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the report."""

    fault: str
    test: str  # below tests/, as pytest names it
    did: str
    at_risk: str
    middle: int
    large: int
    each: int = 1


ROWS: Final = (
    # ------------------------------------------------------------------------------------- processes and databases
    Row(
        "kill -9 of the service",
        "chaos/test_faults.py::test_killed_at_random_moments_it_loses_nothing",
        "killed at a random moment while 8 clients register and activate, started again",
        "acknowledged requests",
        middle=15,
        large=1000,
    ),
    Row(
        "kill -9 at bcrypt's 12 rounds",
        "chaos/test_faults.py::test_killed_while_it_hashes_as_people_have_it_few_mails_come_twice",
        "the same with passwords hashed as people have it: no more than 5 mails in 100 kills come twice",
        "acknowledged requests",
        middle=12,
        large=100,
    ),
    Row(
        "kill -9 while tokens rotate",
        "chaos/test_sessions.py::test_killed_while_tokens_rotate_no_acknowledged_one_is_lost",
        "the same while 6 people refresh and change their passwords",
        "acknowledged refreshes and passwords",
        middle=12,
        large=300,
    ),
    Row(
        "kill -9 with an Idempotency-Key",
        "e2e/test_idempotency.py::test_killed_at_random_moments_each_key_has_one_effect_and_one_answer",
        "killed while requests with keys are under way, each asked again until it is answered",
        "kills",
        middle=10,
        large=100,
    ),
    Row(
        "PostgreSQL restarted, `-m immediate`",
        "chaos/test_faults.py::test_a_database_that_crashes_and_comes_back_loses_nothing",
        "crashed and recovered under 8 clients",
        "acknowledged requests",
        middle=15,
        large=100,
    ),
    Row(
        "PostgreSQL frozen",
        "chaos/test_frozen.py::test_while_the_database_is_frozen_everybody_is_answered_and_all_is_whole_afterwards",
        "every process of it stopped (SIGSTOP) for so many seconds, then woken",
        "acknowledged requests",
        middle=30,
        large=30,
    ),
    Row(
        "the way to PostgreSQL",
        "chaos/test_network.py::test_whatever_befalls_the_way_to_the_database_loses_nothing",
        "refused, cut at the n-th byte, stalled, slow, late, half closed, then whole",
        "acknowledged requests",
        middle=24,
        large=300,
    ),
    Row(
        "primary failover",
        "chaos/test_failover.py::test_a_standby_that_takes_over_has_all_that_was_acknowledged",
        "the primary killed, its synchronous standby promoted, under 8 clients",
        "acknowledged requests",
        middle=3,
        large=20,
    ),
    Row(
        "disk full",
        "chaos/test_resources.py::test_a_full_disk_is_said_and_recovered_from_without_a_restart",
        "the database's disk filled to the last octet, and freed",
        "acknowledged requests",
        middle=1,
        large=10,
    ),
    # ------------------------------------------------------------------------------------------------------- mail
    Row(
        "the relay away",
        "chaos/test_faults.py::test_while_the_relay_is_away_mail_waits_and_every_first_code_works",
        "nobody at the relay's port for so many seconds, then there",
        "acknowledged registrations",
        middle=30,
        large=600,
    ),
    Row(
        "the relay sick",
        "chaos/test_relay.py::test_a_relay_that_fails_some_mails_delays_no_other",
        "4xx, 5xx, hang, half-close, drop after the dot, a byte a second for some recipients, others beside them",
        "mails",
        middle=20,
        large=600,
    ),
    Row(
        "the way to the relay",
        "chaos/test_network.py::test_whatever_befalls_the_way_to_the_relay_loses_nothing",
        "refused, cut at the n-th byte, stalled, slow, late, half closed, then whole",
        "acknowledged requests",
        middle=18,
        large=300,
    ),
    Row(
        "the relay's name unknown",
        "chaos/test_resources.py::test_a_name_server_that_fails_delays_mail_and_nothing_else",
        "the name server silent, then failing, then right",
        "acknowledged registrations",
        middle=1,
        large=10,
    ),
    # ---------------------------------------------------------------------------------------------------- clients
    Row(
        "clients that hang up",
        "chaos/test_faults.py::test_clients_that_hang_up_at_any_moment_leave_nothing_half_done",
        "register and activate, aborted at every millisecond of their time, closed or half closed",
        "aborted requests",
        middle=1500,
        large=9000,
    ),
    Row(
        "file descriptors exhausted",
        "chaos/test_resources.py::test_without_file_descriptors_it_refuses_and_recovers",
        "RLIMIT_NOFILE down to what is open, more connections than that, then fewer",
        "requests",
        middle=3,
        large=20,
    ),
    Row(
        "clock jumps",
        "chaos/test_clock.py::test_whether_a_code_is_good_is_for_the_database_s_clock_to_say",
        "the service's own clock set an hour ahead, a day back and forth, while people activate",
        "activations",
        middle=4,
        large=50,
    ),
    # ------------------------------------------------------------------------------------------------------ races
    Row(
        "race: register",
        "e2e/test_main_job.py::test_of_fifty_at_once_one_registers_and_one_activates",
        "50 registrations of one address in 10 spellings at once, then 50 activations: one of each wins",
        "requests",
        middle=20,
        large=1000,
        each=100,
    ),
    Row(
        "race: activate",
        "store/test_races.py::test_of_fifty_activations_at_once_one_wins",
        "50 activations with the right code at once: one wins",
        "activations",
        middle=20,
        large=1000,
        each=50,
    ),
    Row(
        "race: guess",
        "e2e/test_guessing.py::test_of_two_hundred_guesses_at_once_five_are_compared",
        "200 codes shown at once, the right one among them: five are compared",
        "guesses",
        middle=5,
        large=1000,
        each=200,
    ),
    Row(
        "race: refresh",
        "store/test_races_people.py::test_of_fifty_refreshes_at_once_one_makes_the_successor",
        "50 refreshes with one token at once: one successor",
        "refreshes",
        middle=20,
        large=1000,
        each=50,
    ),
    Row(
        "race: refresh, two processes",
        "e2e/test_sessions.py::test_of_fifty_refreshes_at_once_all_get_one_successor",
        "50 refreshes with one token at once, over two services: all get the same successor",
        "refreshes",
        middle=20,
        large=1000,
        each=50,
    ),
    Row(
        "race: retry",
        "e2e/test_idempotency.py::test_of_twenty_at_once_one_does_it_and_all_get_its_answer",
        "20 requests with one Idempotency-Key at once: one effect, one answer",
        "requests",
        middle=10,
        large=1000,
        each=20,
    ),
    Row(
        "race: limits",
        "store/test_quota.py::test_of_takes_at_once_in_two_processes_exactly_the_limit_is_allowed",
        "more takes than a limit allows at once, from two processes: exactly the limit passes",
        "rounds",
        middle=20,
        large=100,
    ),
    Row(
        "race: migrate",
        "store/test_migrations.py::test_eight_at_once_apply_each_step_once",
        "8 migrations of an empty database at once: each step once",
        "migrations",
        middle=5,
        large=1000,
        each=8,
    ),
    # ------------------------------------------------------------------------------------------------------ input
    Row(
        "hostile HTTP",
        "http/test_hostile_connections.py::test_a_storm_of_attacks_ends_nothing_and_delays_nobody",
        "K1 to K7 and mutations of them on raw connections, probes beside them",
        "inputs",
        middle=10_000,
        large=1_000_000,
    ),
    Row(
        "a siege",
        "e2e/test_siege.py::test_a_siege_ends_nothing_and_delays_nobody",
        "attacks on the parser, slow heads, stalled bodies, slow readers, bodies without an end",
        "attacks",
        middle=3000,
        large=100_000,
    ),
    Row(
        "hostile JSON",
        "e2e/test_hostile_input.py::test_no_body_at_any_route_is_a_5xx",
        "bodies made to break the decoder, at every route",
        "bodies",
        middle=3000,
        large=1_000_000,
    ),
    Row(
        "hostile lines",
        "e2e/test_hostile_lines.py::test_one_request_is_one_line_whatever_it_holds",
        "paths, agents and addresses made to forge a line of the log",
        "requests",
        middle=1000,
        large=100_000,
    ),
    Row(
        "hostile mail fields",
        "e2e/test_mail_injection.py::test_nobody_makes_a_mail_say_or_reach_more_than_it_should",
        "injections by every field that a mail shows",
        "injections",
        middle=200,
        large=1000,
    ),
    # ------------------------------------------------------------------------------------------------- operations
    Row(
        "rolling restart",
        "e2e/test_rolling.py::test_one_instance_of_two_is_restarted_and_no_request_fails",
        "SIGTERM to one of two instances behind a proxy at 100 requests a second: no request fails",
        "restarts",
        middle=3,
        large=50,
    ),
    Row(
        "rolling reload",
        "e2e/test_rolling.py::test_a_hang_up_replaces_the_workers_and_no_request_fails",
        "SIGHUP to a service of two workers at 100 requests a second: no request fails",
        "reloads",
        middle=3,
        large=50,
    ),
    Row(
        "cancelled transactions",
        "trio_asyncpg/test_cancellation.py::test_random_deadlines",
        "transactions with random deadlines on the pool: whole or nothing, no connection lost",
        "transactions",
        middle=3000,
        large=10_000,
    ),
    # ------------------------------------------------------------------------------------------------- simulation
    Row(
        "simulated histories",
        "simulation/test_simulation.py::test_every_invariant_holds_in_every_history",
        "flows, mailer, sweeper and hasher over fakes, with faults and a schedule from a seed",
        "seeds",
        middle=10,
        large=1000,
        each=100,
    ),
)
ALSO: Final = (
    ("e2e/test_image.py", 1),
    ("e2e/test_limits.py", 100),
    ("e2e/test_memory.py", 100),
    ("e2e/test_metrics.py", 1000),
    ("e2e/test_moving_in.py", 100_000),
    ("e2e/test_retention.py", 1000),
    ("e2e/test_schema.py", 1000),
    ("e2e/test_uniformity.py", 500),
    ("house/test_mutations.py", 1),
    ("http/test_wire.py", 5000),
)
"""Tests with a large form that are no faults: what `--large` runs besides, and how often."""

FOUND: Final = {
    "seed 435470604": "the check was wrong: a registration that was over, and not yet swept, was taken for a lost one.",
    "seed 507049661": "a mailer that had stood still through an outage of the database was the first to ask after it, "
    "and took a mail that another one had sent and not yet written down. The database's clock says who may take one.",
    "seed 270717339": "a renewal failed just before an outage, so that the lease lapsed within it, and another mailer, "
    "who had not noticed, took a mail that was sent. A renewal that failed is tried again at once now, and leases are "
    "taken only by somebody who was there all the time.",
    "seed 465744665": "the database was back for half a second between two outages: too short to write down what was "
    "sent, and long enough for another mailer to count the second outage as time in which it could have been. Leases "
    "are taken only by somebody who was there all the time.",
}
"""What long runs found, and what became of it: by a word of the reason that the run gave. All of it is mended, and has
a test. Runs from before the records were kept are not among them."""
