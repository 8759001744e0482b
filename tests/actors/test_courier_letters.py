"""What the mailer puts into each letter, and how long that lives."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from regsvc.actors.tally import Carried, Pace
from regsvc.domain.delivery import Accepted, Deferred, Letter, Outcome
from regsvc.domain.profile import PROPOSAL_TTL
from regsvc.domain.values import LinkToken, Secret
from regsvc.ports import Dispatch
from tests.actors.office import PACE, Office
from tests.fakes import START, Post, Relay, Row, now
from tests.lines import Lines

NOTICES = [letter for letter in Letter if letter.notice]
CODES = [letter for letter in Letter if not letter.notice]


async def carried(office: Office, letter: Letter, **data: str) -> tuple[Row, Dispatch]:
    """What was delivered of a letter, and its row."""
    row = office.post.post("ada@example.org", letter, data=data)
    async with office.open():
        await office.until(office.post.settled)
    [(_, dispatch)] = office.relay.delivered
    assert (dispatch.id, dispatch.letter, dispatch.to) == (row.id, letter, "ada@example.org")
    assert (dispatch.created_at, dispatch.data) == (START, data)
    return row, dispatch


@pytest.mark.parametrize(
    ("letter", "purpose", "digits"),
    [(Letter.ACTIVATION, "activate", 4), (Letter.VERIFY, "verify", 8), (Letter.CHANGE_EMAIL, "change_email", 8)],
)
async def test_a_code_has_the_digits_the_purpose_and_the_life_of_its_letter(
    letter: Letter, purpose: str, digits: int, autojump_clock: MockClock, log: Lines
) -> None:
    office = Office(pace=replace(PACE, code_digits=4, verify_digits=8))
    row, dispatch = await carried(office, letter)
    assert dispatch.code is not None
    shown = dispatch.code.reveal()
    assert (len(shown), shown.isdigit()) == (max(digits, 6), True)  # the dice have no shorter codes
    mac, expires_at = office.post.codes[row.subject]
    assert mac == office.dice.mac(row.subject, purpose, dispatch.code)
    assert dispatch.lifetime == {Letter.ACTIVATION: PACE.code_lifetime}.get(letter, PACE.verify_lifetime)
    assert START + dispatch.lifetime <= expires_at <= now() + dispatch.lifetime
    assert len(log.of("code_minted")) == 1


async def test_a_reset_carries_a_token_that_says_whose_it_is(autojump_clock: MockClock, log: Lines) -> None:
    office = Office()
    row, dispatch = await carried(office, Letter.RESET)
    assert dispatch.code is not None
    token = LinkToken.parse(dispatch.code.reveal())
    assert token is not None
    assert token.subject == row.subject
    assert office.post.codes[row.subject][0] == office.dice.mac(row.subject, "reset", token.secret)
    assert dispatch.lifetime == PACE.reset_lifetime
    assert [line["letter"] for line in log.of("code_minted")] == ["reset"]
    said = log.getvalue().decode()
    assert dispatch.code.reveal() not in said
    assert token.secret.reveal() not in said


async def test_an_address_that_has_an_account_is_told_so_and_gets_no_code(
    autojump_clock: MockClock, log: Lines
) -> None:
    office = Office()
    row = office.post.post("ada@example.org", Letter.ACTIVATION)
    office.post.owned.add(row.subject)
    async with office.open():
        await office.until(office.post.settled)
    [(_, dispatch)] = office.relay.delivered
    assert (dispatch.id, dispatch.letter, dispatch.to) == (row.id, Letter.REGISTERED_AGAIN, "ada@example.org")
    assert (dispatch.code, dispatch.lifetime) == (None, None)
    assert row.subject in office.post.codes, "to whoever registered, the code lives and dies as any other"


async def test_an_activation_carries_a_link_beside_its_code(autojump_clock: MockClock, log: Lines) -> None:
    office = Office(pace=replace(PACE, code_lifetime=timedelta(seconds=30), link_lifetime=timedelta(minutes=7)))
    row, dispatch = await carried(office, Letter.ACTIVATION)
    assert dispatch.link is not None
    token = LinkToken.parse(dispatch.link.reveal())
    assert token is not None
    assert token.subject == row.subject
    mac, expires_at = office.post.links[row.subject]
    assert mac == office.dice.mac(row.subject, "link", token.secret)
    assert dispatch.link_lifetime == timedelta(minutes=7)
    assert START + dispatch.link_lifetime <= expires_at <= now() + dispatch.link_lifetime
    assert dispatch.secrets == (dispatch.code, dispatch.link)
    assert len(log.of("code_minted")) == 1
    said = log.getvalue().decode()
    assert dispatch.link.reveal() not in said
    assert token.secret.reveal() not in said


@pytest.mark.parametrize("letter", [letter for letter in Letter if letter is not Letter.ACTIVATION])
async def test_no_other_letter_has_a_link_beside_what_it_carries(letter: Letter, autojump_clock: MockClock) -> None:
    office = Office()
    _, dispatch = await carried(office, letter)
    assert (dispatch.link, dispatch.link_lifetime) == (None, None)
    assert not office.post.links


async def test_what_a_claim_beside_an_account_would_be_mailed_has_no_link_either(autojump_clock: MockClock) -> None:
    office = Office()
    row = office.post.post("ada@example.org")
    office.post.owned.add(row.subject)
    async with office.open():
        await office.until(office.post.settled)
    [(_, dispatch)] = office.relay.delivered
    assert (dispatch.letter, dispatch.secrets) == (Letter.REGISTERED_AGAIN, ())
    assert (dispatch.lifetime, dispatch.link_lifetime) == (None, None)
    assert row.subject in office.post.links, "the same is stored for it as for any other"


async def test_a_token_with_a_number_like_a_code_is_thrown_away(autojump_clock: MockClock) -> None:
    office = Office()
    row = office.post.post("ada@example.org")
    # The second half of a text is the secret's alone, whosever it is.
    numbered = [LinkToken.parse("A" * 22 + digits + "A" * 17) for digits in ("1234", "0000")]
    secrets = [token.secret for token in numbered if token is not None]
    assert len(secrets) == 2
    office.dice.next_tokens = [*secrets, Secret("0" * 31 + "1")]
    async with office.open():
        await office.until(office.post.settled)
    [(_, dispatch)] = office.relay.delivered
    assert dispatch.link is not None
    assert dispatch.link == LinkToken(row.subject, Secret("0" * 31 + "1")).text()
    assert not re.search(r"\d{4}", dispatch.link.reveal())


@pytest.mark.parametrize("letter", NOTICES)
async def test_a_notice_is_sent_without_a_code(letter: Letter, autojump_clock: MockClock, log: Lines) -> None:
    office = Office()
    _, dispatch = await carried(office, letter, device="Firefox on Windows")
    assert (dispatch.code, dispatch.lifetime) == (None, None)
    assert not office.post.codes
    assert "code_minted" not in log.events
    assert [line["letter"] for line in log.of("mail_sent")] == [letter.value]


@pytest.mark.parametrize("letter", Letter)
async def test_a_letter_to_nobody_is_dropped(letter: Letter, autojump_clock: MockClock, log: Lines) -> None:
    office = Office()
    row = office.post.post("ada@example.org", letter)
    del office.post.people[row.subject]
    async with office.open():
        await office.until(lambda: not office.post.rows)
    assert not office.relay.delivered
    assert [line["letter"] for line in log.of("mail_dropped")] == [letter.value]
    assert "code_minted" not in log.events


@pytest.mark.parametrize("letter", Letter)
async def test_what_a_relay_quotes_of_a_letter_is_not_kept(letter: Letter, autojump_clock: MockClock) -> None:
    async def behave(dispatch: Dispatch) -> Outcome:
        await trio.lowlevel.checkpoint()
        carried = " and ".join(secret.reveal() for secret in dispatch.secrets) or "nothing"
        return Deferred(f"450 {dispatch.to} got {carried}")

    office = Office(Post(), Relay(behave))
    row = office.post.post("ada@example.org", letter)
    async with office.open():
        await office.until(office.post.settled)
    carried = "nothing" if letter.notice else "… and …" if letter is Letter.ACTIVATION else "…"
    assert row.error == f"given up after 8 tries: 450 …@… got {carried}"


# ------------------------------------------------------------------------------------------------- how long it lives


def test_every_letter_carries_what_its_purpose_is_for() -> None:
    assert {letter for letter in Letter if PACE.carried(letter) is None} == set(NOTICES)
    assert {letter.purpose for letter in CODES} == {"activate", "verify", "reset", "change_email"}
    assert PACE.carried(Letter.RESET) == Carried(None, timedelta(minutes=10))


@pytest.mark.parametrize("letter", CODES)
async def test_a_code_lives_45_seconds_after_its_250(letter: Letter, autojump_clock: MockClock) -> None:
    minute = timedelta(minutes=1)
    waits = iter([14.9, 15.1, 5.0])

    async def behave(_: Dispatch) -> Outcome:
        await trio.sleep(next(waits))
        return Accepted()

    pace = Pace(concurrency=1, timeout=minute, verify_lifetime=minute, reset_lifetime=minute)
    office = Office(relay=Relay(behave), pace=pace)
    lives: list[float] = []
    async with office.open():
        for n in range(2):
            row = office.post.post(f"p{n}@example.org", letter)
            office.ring()
            await office.until(lambda row=row: row.state == "sent")  # type: ignore[misc]  # a lambda's default
            at, _ = office.relay.delivered[-1]
            lives.append((office.post.codes[row.subject][1] - at).total_seconds())
    assert office.relay.tries["p1@example.org"] == 2
    assert min(lives) >= 45


def test_a_short_life_shortens_the_hand_over_of_its_letter_only() -> None:
    short = Pace(timeout=timedelta(seconds=60), code_lifetime=timedelta(seconds=20))
    assert short.hand_over(Letter.ACTIVATION) == timedelta(seconds=5)
    assert {short.hand_over(letter) for letter in Letter if letter is not Letter.ACTIVATION} == {timedelta(seconds=62)}
    assert Pace(timeout=timedelta(seconds=3)).hand_over(Letter.ACTIVATION) == timedelta(seconds=5)
    assert Pace(timeout=timedelta(seconds=60)).hand_over(Letter.ACTIVATION) == timedelta(seconds=15)
    link = Pace(timeout=timedelta(seconds=60), code_lifetime=timedelta(days=1), link_lifetime=timedelta(seconds=60))
    assert link.hand_over(Letter.ACTIVATION) == timedelta(seconds=15)


def test_a_proposed_address_waits_for_its_code_to_the_end_however_late_that_leaves() -> None:
    carried = Pace(verify_lifetime=timedelta(days=1)).carried(Letter.CHANGE_EMAIL)
    assert carried is not None
    assert Letter.CHANGE_EMAIL.not_after + carried.lifetime <= PROPOSAL_TTL
