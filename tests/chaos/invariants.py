"""The invariants I1 to I10, each held against what a run left: the HTTP log, the mails, the database, what was said.

A check returns what breaks its invariant, a line each, and each line begins with the invariant's name. `hold` fails
with all of them: nothing is hidden behind the first.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from regsvc.domain.values import Email
from tests.chaos.evidence import Evidence, gather
from tests.chaos.ledger import CODE_SECONDS, Ledger, Refused
from tests.service import Service
from tests.smtp_sink import Received

SHOWN: Final = 5  # of each invariant's violations in a failure
PROBLEM: Final = "application/problem+json"
MEMBERS: Final = {"type": str, "title": str, "status": int, "detail": str}  # RFC 9457, 3.1
UNAVAILABLE: Final = 503

Check = Callable[[Evidence], Iterator[str]]


def acknowledged_is_there(seen: Evidence) -> Iterator[str]:
    """I1: what was acknowledged exists after recovery, and its mail was delivered."""
    mailed = {copy.to for copy in seen.copies}
    for claim, email in seen.ledger.acknowledged.items():
        if claim not in seen.rows.known:
            yield f"{email} was acknowledged and is gone"
        elif email not in mailed:
            yield f"{email} was acknowledged and never mailed"


def no_mail_without_a_registration(seen: Evidence) -> Iterator[str]:
    """I2: whoever was mailed has a committed registration."""
    known = set(seen.rows.known.values())
    for email in sorted({copy.to for copy in seen.copies} - known):
        yield f"{email} was mailed and has no registration"


def a_code_activates_once(seen: Evidence) -> Iterator[str]:
    """I3: at most once, only with its own registration's password, only in its life."""
    for claim, times in (seen.ledger.activated + Counter()).items():
        if times > 1:
            yield f"{claim} was activated {times} times"
        if claim not in seen.rows.users:
            yield f"{claim} was told that it is active, and is no account"
    for user, times in seen.rows.activations.items():
        if times > 1:
            yield f"{user} became an account {times} times"
    for email in seen.ledger.intruders:
        yield f"{email} was activated with another's password"
    for subject, code in seen.rows.codes.items():
        if code.used_at is not None and not code.minted_at <= code.used_at < code.expires_at:
            yield f"the code of {subject} was used at {code.used_at}, and lived {code.minted_at} to {code.expires_at}"


def one_account_an_address(seen: Evidence) -> Iterator[str]:
    """I4: one account per canonical address, which is the one that the address has."""
    held: Counter[str] = Counter()
    for email, key in seen.rows.users.values():
        read = Email.parse(email)
        if not isinstance(read, Email) or read.key != key:
            yield f"{email} is stored as {key}"
        held[key if not isinstance(read, Email) else read.key] += 1
    for key, accounts in held.items():
        if accounts > 1:
            yield f"{key} has {accounts} accounts"
    for email in seen.ledger.twins:
        yield f"{email} was registered while it was held"


def few_duplicates(seen: Evidence) -> Iterator[str]:
    """I5: no more than mailer kills and conversations that ended without an answer."""
    if seen.duplicates > seen.interruptions:
        yield f"{seen.duplicates} duplicates, {seen.interruptions} interruptions"


def a_delivered_code_lives(seen: Evidence) -> Iterator[str]:
    """I6: at least 45 s after its 250, by the database's clock and by what clients met."""
    for told in seen.ledger.refused_codes:
        yield f"a code did not work in its life: {told}"
    last = {copy.to: copy.at for copy in seen.copies if copy.has_code}
    for subject, email in seen.rows.known.items():
        code = seen.rows.codes.get(subject)
        if code is not None and email in last and (lived := code.expires_at.timestamp() - last[email]) < CODE_SECONDS:
            yield f"the code of {email} had {lived:.1f} s when it came"


def all_or_nothing(seen: Evidence) -> Iterator[str]:
    """I7: no partial row sets."""
    for what, count in seen.rows.partial.items():
        if count:
            yield f"{count} {what}"


def families_have_one_leaf(seen: Evidence) -> Iterator[str]:
    """I8: at most one live leaf, none after reuse."""
    for what, count in seen.rows.families.items():
        if count:
            yield f"{count} {what}"


def no_secret_anywhere(seen: Evidence) -> Iterator[str]:
    """I9: none in any log, metric, error or row."""
    errors = b"\n".join(refused.body for refused in seen.ledger.refused)
    places = {"the log": seen.said.encode(), "the metrics": seen.metrics.encode(), "an error": errors}
    for place, text in (places | {"a row": seen.rows.dump}).items():
        for found in seen.secrets.found(text):
            yield f"a {found.canary.kind} in {place}, around {found.around[-200:]!r}"


def answers_as_promised(seen: Evidence) -> Iterator[str]:
    """I10: it never ends or refuses unless told; every answer of 400 or more is a problem; no unexpected 5xx."""
    for refused in seen.ledger.refused:
        if (wrong := no_problem(refused)) is not None:
            yield f"{refused.verb}: {refused.status} {wrong}: {refused.body[:200]!r}"
    starts = events(seen.said, "worker_started")
    if len(starts) > seen.told + 1:
        yield f"{len(starts)} workers were started, {seen.told} were told to end"
    if seen.ledger.cut_off and not seen.told:
        yield f"{seen.ledger.cut_off} connections were refused or cut, and nobody had told it to end"
    for name in ("http_bug", "actor_crashed", "worker_gave_up"):
        for line in events(seen.said, name):
            yield f"{name}: {line[:300]}"


def no_problem(refused: Refused) -> str | None:
    """Say why this is no answer that may be given; None: it is one."""
    if refused.status >= 500 and refused.status != UNAVAILABLE:
        return "is unexpected"
    if refused.media != PROBLEM:
        return f"is {refused.media or 'nothing'}"
    if refused.status == UNAVAILABLE and not refused.retry_after.isdigit():
        return "does not say when to come again"
    return _no_document(refused)


def _no_document(refused: Refused) -> str | None:
    try:
        told = json.loads(refused.body)
    except ValueError:
        return "is no JSON"
    if not isinstance(told, dict) or any(not isinstance(told.get(name), kind) for name, kind in MEMBERS.items()):
        return "is no problem document"
    return None if told["status"] == refused.status else f"says it is {told['status']}"


def events(said: str, name: str) -> list[str]:
    """Return the lines of one event."""
    return [line for line in said.splitlines() if f'"event":"{name}"' in line]


CHECKS: Final[Mapping[str, Check]] = {
    "I1": acknowledged_is_there,
    "I2": no_mail_without_a_registration,
    "I3": a_code_activates_once,
    "I4": one_account_an_address,
    "I5": few_duplicates,
    "I6": a_delivered_code_lives,
    "I7": all_or_nothing,
    "I8": families_have_one_leaf,
    "I9": no_secret_anywhere,
    "I10": answers_as_promised,
}


def violations(seen: Evidence) -> list[str]:
    """Return everything that breaks an invariant; each line begins with its name."""
    return [f"{name}: {what}" for name, check in CHECKS.items() for what in check(seen)]


def assert_held(seen: Evidence) -> None:
    """Fail with what breaks them."""
    found = violations(seen)
    counted = Counter(line.partition(":")[0] for line in found)
    shown = [line for name in counted for line in [one for one in found if one.startswith(f"{name}:")][:SHOWN]]
    assert not found, "\n".join([*shown, f"in all: {dict(counted)}"])


async def hold(
    ledger: Ledger,
    mails: Sequence[Received],
    where: str,
    service: Service,
    *,
    interruptions: int = 0,
    told: int = 0,
) -> dict[str, int]:
    """Hold a run's record against what it left, while the service still runs; return the counts worth publishing.

    `interruptions`: how many conversations with the relay may have ended without an answer; `told`: how often the
    service was ended from outside.
    """
    seen = await gather(ledger, mails, where, service, interruptions=interruptions, told=told)
    assert_held(seen)
    return {
        "acknowledged": len(ledger.acknowledged),
        "activated": len(ledger.activated),
        "mails": len(seen.copies),
        "duplicates": seen.duplicates,
        "dead": seen.rows.dead,
        "answers lost": ledger.lost_answers,
        "refused with 503": ledger.unavailable,
        "codes too late to try": len(ledger.late_codes),
        "slowest answer ms": round(1000 * ledger.slowest),
    }
