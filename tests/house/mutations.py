"""Deliberate faults: what the service would be if a line of it were wrong, and which check has to see that.

A mutation is an exact text of a file and what stands there instead. Where that text has moved or changed, the test of
it fails and shows the text: write the mutation anew then.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Invariant:
    """A check by simulation: one of `seeds` histories from the first on breaks the invariant."""

    name: str
    seeds: int = 100


@dataclass(frozen=True)
class Test:
    """A check by a test, by its id."""

    id: str

    __test__ = False  # it is no class of tests


@dataclass(frozen=True)
class Mutation:
    """A fault; `quick`: it is tried in the small form of the test too."""

    name: str
    file: str
    before: str
    after: str
    check: Invariant | Test
    quick: bool = False

    def apply(self, folder: Path) -> None:
        """Put it into a copy of the service. Raises LookupError where its text is not there, or not once."""
        path = folder / self.file
        text = path.read_text("utf-8")
        if (times := text.count(self.before)) != 1:
            raise LookupError(f"{self.file} has these lines {times} times, not once:\n{self.before}")
        path.write_text(text.replace(self.before, self.after), "utf-8")


_KEPT_IN_THE_TRANSACTION = """\
            await unit.accounts.save(key, before, step.state)
            await unit.outgoing.add(step.effects, trace=observe.trace())
            answer = told(step.outcome, step.state, now)
            await errand.keep(unit, answer, changed=step.state != before)
"""
_SHOWN = """\
    if not shown:
        return Step(state, Refused(Refusal.ACTIVATION_CODE_EXPIRED))
    failures = state.failures.within(DAY, now)
"""
_ANSWER_KEPT = """\
            await errand.keep(unit, answer, changed=step.state != before)
"""
_COMPARED_FIRST = f"""{_SHOWN}\
    for claim, code in shown:
        if _same(code, event.macs.get(claim.id, ())):
            return _activated(state, claim, Way.CODE, now)
"""
_GIVEN_BACK = """\
    async def __aexit__(self, *_: object) -> None:
        self._pool._give_back(self._connection)  # noqa: SLF001  # the same room
"""
_WRITTEN = """\
                except Unavailable as away:
                    observe.database_away(away.why)
                await trio.sleep(wait)
"""

MUTATIONS: Final = (
    Mutation(
        "the outbox row is written after the commit",
        "regsvc/flows/account.py",
        _KEPT_IN_THE_TRANSACTION,
        _KEPT_IN_THE_TRANSACTION.replace(
            "            await unit.outgoing.add(step.effects, trace=observe.trace())\n", ""
        )
        + """\
        async with transaction(self.begin, self.patience) as unit:
            await unit.outgoing.add(step.effects, trace=observe.trace())
""",
        Invariant("I7"),
        quick=True,
    ),
    Mutation(
        "the answer to an Idempotency-Key is kept after the commit",
        "regsvc/flows/account.py",
        _ANSWER_KEPT,
        """\
        async with transaction(self.begin, self.patience) as unit:
"""
        + _ANSWER_KEPT,
        Invariant("once"),
    ),
    Mutation(
        "the code is compared before the budget is looked at",
        "regsvc/domain/account.py",
        _SHOWN,
        _COMPARED_FIRST,
        Test("tests/domain/test_account.py::test_a_code_is_dead_after_its_tries_even_for_the_right_guess"),
        quick=True,
    ),
    Mutation(
        "the code is compared before the budget is looked at, in a history",
        "regsvc/domain/account.py",
        _SHOWN,
        _COMPARED_FIRST,
        Invariant("budget", seeds=400),
    ),
    Mutation(
        "a pool's connection is not given back by who is cancelled",
        "regsvc/trio_asyncpg/pool.py",
        _GIVEN_BACK,
        """\
    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not trio.Cancelled:
            self._pool._give_back(self._connection)  # noqa: SLF001  # the same room
""",
        Test("tests/trio_asyncpg/test_cancellation.py::test_hang_up_everywhere"),
        quick=True,
    ),
    Mutation(
        "a wrong code is answered before its try is saved",
        "regsvc/flows/account.py",
        "            await unit.accounts.save(key, before, step.state)\n",
        "            if not isinstance(step.outcome, Refused):\n"
        "                await unit.accounts.save(key, before, step.state)\n",
        Invariant("budget"),
    ),
    Mutation(
        "what was sent is forgotten when the database is away",
        "regsvc/actors/courier.py",
        _WRITTEN,
        _WRITTEN.replace("                await trio.sleep(wait)\n", "                return\n"),
        Invariant("I5"),
    ),
    Mutation(
        "a mailer takes what another one could not write down",
        "regsvc/actors/courier.py",
        "GAP: Final = timedelta(seconds=3)",
        "GAP: Final = timedelta(days=1)",
        Test(
            "tests/actors/test_courier_outages.py::"
            "test_a_mailer_that_stood_still_through_an_outage_takes_nothing_that_was_sent"
        ),
    ),
    Mutation(
        "a mailer takes what another one could not write down as the database came and went",
        "regsvc/actors/courier.py",
        "                    self._since = None\n",
        "                    pass\n",
        Test("tests/actors/test_courier_outages.py::test_who_hears_that_the_database_comes_and_goes_takes_nothing"),
    ),
    Mutation(
        "a refresh token that was copied does not end its session",
        "regsvc/domain/session.py",
        "    return Reused(replace(session, ended_at=now, end_reason=Ending.REUSED))\n",
        "    return Refused(Refusal.INVALID_REFRESH_TOKEN)\n",
        Invariant("I8"),
    ),
    Mutation(
        "whatever password somebody shows is that of every claim",
        "regsvc/flows/account.py",
        "        opened = {s.id: s.password_hash for s, ok in zip(subjects, right, strict=False) if ok}\n",
        "        opened = {s.id: s.password_hash for s, _ in zip(subjects, right, strict=False)}\n",
        Invariant("I3"),
    ),
    Mutation(
        "a lapsed lease still writes",
        "sql/queries/delivery.sql",
        "        AND outbox.attempts = parcel.attempts\n        AND outbox.leased_at = parcel.leased_at\n",
        "        AND (parcel.attempts, parcel.leased_at) IS NOT NULL\n",
        Test("tests/store/test_delivery.py::test_who_lost_the_lease_changes_nothing"),
    ),
    Mutation(
        "a limit is read before its row is locked",
        "sql/queries/quota.sql",
        "                held.whole_at\n        ),\n",
        "                coalesce((SELECT seen_before.whole_at FROM rate_limits AS seen_before\n"
        "                WHERE seen_before.bucket = held.bucket), 0) AS whole_at\n        ),\n",
        Test("tests/store/test_quota.py::test_of_takes_at_once_exactly_the_limit_is_allowed"),
    ),
    Mutation(
        "a code's life is read before its address is locked",
        "regsvc/store/account.py",
        '        await self.sql.none("lock_address", self.session, email_key=key)\n'
        "        return await _read(self.sql, self.session, key)\n",
        "        found = await _read(self.sql, self.session, key)\n"
        '        await self.sql.none("lock_address", self.session, email_key=key)\n'
        "        return found\n",
        Test("tests/store/test_races.py::test_of_fifty_activations_at_once_one_wins"),
    ),
)
