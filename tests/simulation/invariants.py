"""The invariants of a simulated history, held against the rows that are left, the relay's list, and the ledger.

Each returns what breaks it, in words; nothing, where it holds. The text of I1 to I8 is in the design notes and in
docs/reliability.md; "budget" is the rule that every wrong guess costs a try,
"limits" what a rate limit promises.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from regsvc.domain.account import Rules
from regsvc.domain.delivery import Letter
from regsvc.domain.refusals import Refused
from tests.flows.fakes import Dice
from tests.simulation.base import Base
from tests.simulation.ledger import Conversation, Mint
from tests.simulation.rows import WAITING

LIFE_LEFT: Final = 0.75  # of a code's life, at its 250: 45 s of 60
SOON: Final = timedelta(seconds=30)  # after health, what is on its way has left
PUT_OFF: Final = timedelta(seconds=20)  # later than this after health comes only what the relay itself put off
LAST: Final = timedelta(minutes=6)  # after health, what a relay put off has left too
_DICE: Final = Dice()  # whose MACs can be read, and are the same for everybody

Check = Callable[[Base, Rules], Iterator[str]]


def i1_nothing_acknowledged_is_lost(base: Base, _: Rules) -> Iterator[str]:
    """A registration that was acknowledged is there, or ended as it may; its mail came, or was given up with a word."""
    ledger = base.ledger
    came = {talk.dispatch.id for talk in ledger.conversations if talk.dot is not None}
    dead = {row.id for row in base.outbox.values() if row.state == "dead"}
    mails = defaultdict(list)
    for mail, (subject, letter) in ledger.asked.items():
        if letter is Letter.ACTIVATION:
            mails[subject].append(mail)
    for told in ledger.acknowledged:
        if told.claim not in ledger.committed:
            yield f"{told.claim} was acknowledged and never committed"
            continue
        if not any(told.claim in rows for rows in (base.claims, base.users, ledger.ended)):
            yield f"{told.claim} was acknowledged and is gone"
        given_up = [m for m in mails[told.claim] if m in ledger.discarded or m in dead]
        over = told.claim in ledger.lapsed or told.claim in ledger.ended
        if not over and not came.intersection(mails[told.claim]) and not given_up:
            yield f"the mail of {told.claim} never came"


def i2_no_mail_without_a_registration(base: Base, _: Rules) -> Iterator[str]:
    """Whatever a relay was told is about what was committed before."""
    for talk in base.ledger.conversations:
        since = base.ledger.committed.get(talk.subject)
        if since is None or talk.began < since:
            yield f"mail {talk.dispatch.id} is about nothing that was committed"


def i3_a_code_activates_once(base: Base, _: Rules) -> Iterator[str]:
    """Once, in its life, with the password of its own registration, and only who shows it."""
    ledger = base.ledger
    mints = _by_mac(ledger.mints)
    for claim, times in Counter(done.claim for done in ledger.activations).items():
        if times > 1:
            yield f"{claim} was activated {times} times"
    for done in ledger.activations:
        mint = mints.get((done.claim, done.purpose, done.mac))
        if mint is None or not mint.at <= done.at < mint.expires_at:
            yield f"{done.claim} was activated by a code out of its life"
    made = {(done.claim, done.mac) for done in ledger.activations}
    for told in ledger.activated:
        if (told.claim, _DICE.mac(told.claim, told.purpose, told.code)) not in made:
            yield f"{told.claim} was activated for who showed another code"
        if ledger.passwords.get(told.claim) != f"hashed:{told.password}":
            yield f"{told.claim} was activated with the password of another"


def i4_one_account_an_address(base: Base, _: Rules) -> Iterator[str]:
    """No canonical address, and no name, has two accounts."""
    for key, times in Counter(user.email_key for user in base.users.values()).items():
        if times > 1:
            yield f"{key} has {times} accounts"
    for name, times in Counter(user.username.key for user in base.users.values() if user.username).items():
        if times > 1:
            yield f"{name} is the name of {times} accounts"


def i5_twice_only_where_nobody_knew(base: Base, _: Rules) -> Iterator[str]:
    """A mail comes twice only after an answer that was lost, or from a mailer that was killed or cut off.

    One whose clock jumped is one that was cut off: for others, its leases lapsed meanwhile.
    """
    ledger = base.ledger
    told: dict[UUID, list[Conversation]] = defaultdict(list)
    for talk in ledger.conversations:
        if talk.dot is not None:
            told[talk.dispatch.id].append(talk)
    for mail, talks in told.items():
        for first in talks[:-1]:
            excused = mail in ledger.in_hand | ledger.retried or first.process in ledger.cut_off
            if first.accepted is not None and not excused:
                yield f"mail {mail} came again although its 250 was heard"


def i6_codes_live_on(base: Base, _: Rules) -> Iterator[str]:
    """A code that was delivered has three quarters of its life left at its 250."""
    mints = _by_mac(base.ledger.mints)
    for talk in base.ledger.conversations:
        dispatch, purpose = talk.dispatch, talk.dispatch.letter.purpose
        if talk.accepted is None or dispatch.code is None or purpose != "activate":
            continue
        mint = mints.get((talk.subject, purpose, _DICE.mac(talk.subject, purpose, dispatch.code)))
        if mint is None:
            yield f"mail {dispatch.id} carried a code that was not stored"
        elif mint.expires_at - talk.accepted < (mint.expires_at - mint.at) * LIFE_LEFT:
            yield f"the code of mail {dispatch.id} had {mint.expires_at - talk.accepted} left at its 250"


def i7_rows_are_whole(base: Base, rules: Rules) -> Iterator[str]:
    """What one transaction writes is there altogether."""
    known = base.claims.keys() | base.users.keys()
    owned = {user.email_key for user in base.users.values()}
    named = defaultdict(set)
    for event in base.trail:
        named[event.subject].add(event.name)
    mailed = {subject for subject, letter in base.ledger.asked.values() if letter is Letter.ACTIVATION}
    for claim, held in base.claims.items():
        whole = held.key in base.counters and claim in mailed and "registration.created" in named[claim]
        if not whole:
            yield f"claim {claim} has no address, no mail or no event"
        if not rules.uniform and held.key in owned:
            yield f"claim {claim} is beside an account"
    for user in base.users:
        if not named[user] & {"user.activated", "admin.user_created"}:
            yield f"account {user} has no event"
    # A letter may be asked for nobody, so that nobody learns who is there; but none waits for a claim that ended.
    gone = base.ledger.ended.keys() - known
    waiting = [row for row in base.outbox.values() if row.state in WAITING]
    yield from (f"mail {row.id} is of a claim that is gone" for row in waiting if row.subject in gone)
    yield from (f"a code to {purpose} is nobody's" for subject, purpose in base.codes if subject not in known)
    yield from (f"{place} is still locked" for place, lock in base.locks.items() if lock.locked())


def i8_one_live_leaf(base: Base, _: Rules) -> Iterator[str]:
    """A refresh family has one unused link while its session is not ended, and none afterwards."""
    leaves = Counter(link.session for link in base.chain.values() if link.link.used_at is None)
    for session, login in base.logins.items():
        if leaves[session] != (login.ended_at is None):
            yield f"session {session} has {leaves[session]} live leaves"
        if session in base.ledger.copied and login.ended_at is None:
            yield f"session {session} goes on after a token of it was used twice"
    for link in base.chain.values():
        if link.session not in base.logins:
            yield "a link is of no session"


def budget(base: Base, rules: Rules) -> Iterator[str]:
    """Each wrong code that was told so was counted, and no code was compared more often than it may be."""
    ledger = base.ledger
    for key, times in ledger.missed.items():
        if times > ledger.spent[key]:
            yield f"{key}: {times} wrong codes were answered, {ledger.spent[key]} counted"
    for done in ledger.activations:
        if done.purpose == "activate" and done.failures >= rules.code_attempts:
            yield f"{done.claim} was activated after {done.failures} wrong codes"
    for (subject, _), code in base.codes.items():
        if code.failures > rules.code_attempts:
            yield f"{subject}: {code.failures} tries on one code"


def limits(base: Base, _: Rules) -> Iterator[str]:
    """No bucket allowed more than its limit at once, and one more each interval."""
    for bucket, takes in base.ledger.takes.items():
        for first, (begun, policy) in enumerate(takes):
            for taken, (at, _policy) in enumerate(takes[first:], 1):
                if taken > policy.limit + (at - begun) // policy.interval:
                    yield f"{bucket} allowed {taken} within {(at - begun) / 1e6:.1f} s"


def once(base: Base, _: Rules) -> Iterator[str]:
    """What came with an Idempotency-Key was done once, and whoever was told that it was done was told the same."""
    ledger = base.ledger
    for key, times in ledger.effects.items():
        if times > 1:
            yield f"{key} was done {times} times"
    for key, answers in ledger.answers.items():
        row = base.kept.get(key.encode())
        kept = [] if row is None or row.answer is None else [base.outcomes[row.answer]]
        for answer in answers:
            if answer not in kept and not isinstance(answer, Refused):
                yield f"{key} was answered {answer}, and {kept or 'nothing'} is kept"


CHECKS: Final[Mapping[str, Check]] = {
    "I1": i1_nothing_acknowledged_is_lost,
    "I2": i2_no_mail_without_a_registration,
    "I3": i3_a_code_activates_once,
    "I4": i4_one_account_an_address,
    "I5": i5_twice_only_where_nobody_knew,
    "I6": i6_codes_live_on,
    "I7": i7_rows_are_whole,
    "I8": i8_one_live_leaf,
    "budget": budget,
    "limits": limits,
    "once": once,
}


def broken(base: Base, rules: Rules) -> list[str]:
    """Return every breach, each with the name of its invariant first."""
    found = [f"{name}: {words}" for name, check in CHECKS.items() for words in check(base, rules)]
    return base.ledger.broken + found


def waiting(base: Base) -> bool:
    """Tell whether a mail is on its way."""
    return any(row.state in WAITING for row in base.outbox.values())


def late(base: Base, since: datetime) -> list[str]:
    """Return the mails that should have left by now: health began at `since`."""
    rows = [row for row in base.outbox.values() if row.state in WAITING]
    if base.now < since + LAST:
        rows = [row for row in rows if row.not_before <= since + PUT_OFF]
    return [f"I1: mail {row.id} ({row.state}, {row.error}) has not left" for row in rows]


def _by_mac(mints: list[Mint]) -> dict[tuple[UUID, str, bytes], Mint]:
    return {(mint.subject, mint.purpose, mint.mac): mint for mint in mints}
