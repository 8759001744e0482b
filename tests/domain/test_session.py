"""Sessions one transition at a time, then histories of refresh tokens against a model of the whole chain."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from regsvc.domain import session
from regsvc.domain.delivery import Letter, Mail, Publish
from regsvc.domain.refusals import Refusal, Refused
from regsvc.domain.session import (
    Ending,
    Family,
    Link,
    Login,
    Opened,
    Person,
    Repeated,
    Reused,
    Rotated,
    Rules,
    Session,
    User,
    device,
)
from regsvc.domain.values import EmailKey
from tests.domain.addresses import NOW, SECOND

RULES = Rules()
ADA = User(UUID(int=1), "Ada@Example.org", EmailKey("ada@example.org"), "hash", NOW, NOW, NOW)
LOGIN = Login(UUID(int=9), b"first", "curl", "192.0.2.1", "hash")
OPENED = Opened(
    Session(LOGIN.session, ADA.id, "curl", "192.0.2.1", NOW, NOW, NOW + RULES.session_max),
    Link(b"first", NOW + RULES.refresh_ttl),
)
FAMILY = Family(ADA, OPENED.session, OPENED.link)
INVALID = Refused(Refusal.INVALID_REFRESH_TOKEN)


@pytest.mark.parametrize("password_hash", ["hash", None], ids=["password", "another proof"])
def test_a_login_opens_a_session_with_its_first_link(password_hash: str | None) -> None:
    assert session.login(Person(ADA), replace(LOGIN, password_hash=password_hash), NOW, RULES) == (OPENED, ())


def test_a_password_that_is_not_the_accounts_any_more_opens_nothing() -> None:
    changed = Person(replace(ADA, password_hash="another hash", disabled_at=NOW))
    assert session.login(changed, LOGIN, NOW, RULES) == (Refused(Refusal.INVALID_CREDENTIALS), ())


def test_a_disabled_account_opens_nothing() -> None:
    for proof in (LOGIN, replace(LOGIN, password_hash=None)):
        outcome = session.login(Person(replace(ADA, disabled_at=NOW)), proof, NOW, RULES)
        assert outcome == (Refused(Refusal.ACCOUNT_DISABLED), ())


def test_no_link_outlives_its_session() -> None:
    short = replace(RULES, session_max=RULES.refresh_ttl / 2)
    opened, _ = session.login(Person(ADA), LOGIN, NOW, short)
    assert isinstance(opened, Opened)
    assert opened.link.expires_at == opened.session.expires_at == NOW + short.session_max


@pytest.mark.parametrize(
    ("known", "told"), [(set(), False), ({"curl"}, False), ({"Firefox"}, True), ({"Firefox", "curl"}, False)]
)
def test_a_device_that_is_new_is_told_and_the_very_first_is_not(known: set[str], *, told: bool) -> None:
    opened, effects = session.login(Person(ADA, dict.fromkeys(known, 0)), LOGIN, NOW, RULES)
    assert opened == OPENED
    assert effects == ((Mail(Letter.NEW_DEVICE, ADA.id, {"device": "curl"}),) if told else ())


@pytest.mark.parametrize(("alive", "surplus"), [(0, 0), (98, 0), (99, 0), (100, 1), (101, 2), (5000, 4901)])
def test_beyond_a_hundred_sessions_the_oldest_end(alive: int, surplus: int) -> None:
    person = Person(ADA, {"curl": alive // 2, "Firefox": alive - alive // 2, "gone": 0})
    opened, effects = session.login(person, LOGIN, NOW, RULES)
    assert opened == replace(OPENED, surplus=surplus)
    assert effects == ()


def test_a_link_is_used_for_the_next() -> None:
    later = NOW + timedelta(days=1)
    assert session.refresh(FAMILY, b"second", later, RULES) == Rotated(
        replace(OPENED.session, last_used_at=later),
        replace(OPENED.link, used_at=later),
        Link(b"second", later + RULES.refresh_ttl),
    )


@pytest.mark.parametrize(
    "family",
    [
        replace(FAMILY, session=replace(OPENED.session, ended_at=NOW, end_reason=Ending.LOGOUT)),
        replace(FAMILY, session=replace(OPENED.session, expires_at=NOW)),
        replace(FAMILY, user=replace(ADA, disabled_at=NOW)),
        replace(FAMILY, link=replace(OPENED.link, expires_at=NOW)),
        replace(
            FAMILY,
            session=replace(OPENED.session, ended_at=NOW, end_reason=Ending.REUSED),
            link=replace(OPENED.link, used_at=NOW),
        ),
    ],
    ids=["ended", "over", "disabled", "old link", "ended and used"],
)
def test_what_is_not_alive_is_refused(family: Family) -> None:
    assert session.refresh(family, b"second", NOW, RULES) == INVALID


def test_the_same_successor_within_the_grace_and_the_end_after_it() -> None:
    second = Link(b"second", NOW + RULES.refresh_ttl)
    used = replace(FAMILY, link=replace(OPENED.link, used_at=NOW), successor=second)
    within = NOW + RULES.refresh_grace - timedelta(microseconds=1)
    assert session.refresh(used, b"third", within, RULES) == Repeated(second)
    after = NOW + RULES.refresh_grace
    ended = Reused(replace(OPENED.session, ended_at=after, end_reason=Ending.REUSED))
    assert session.refresh(used, b"third", after, RULES) == ended
    went_on = replace(used, successor=replace(second, used_at=NOW))
    for family in (went_on, replace(used, successor=None)):
        assert isinstance(session.refresh(family, b"third", NOW, RULES), Reused)


def test_endings_are_written_down_where_there_are_any() -> None:
    assert session.ended(ADA.id, Ending.STAFF, 0) == ()
    data = {"reason": "staff", "sessions": "2"}
    assert session.ended(ADA.id, Ending.STAFF, 2, ip="192.0.2.1") == (
        Publish("sessions.ended", ADA.id, ip="192.0.2.1", data=data),
    )


MOZILLA = "Mozilla/5.0"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (None, "unknown"),
        ("", "unknown"),
        ("\x00\r\n", "unknown"),
        ("curl/8.5.0", "curl"),
        ("python-httpx/0.27", "python-httpx"),
        ("okhttp/4.9 <script>", "okhttp"),
        ("ein ganz eigenes Programm", "ein"),
        (f"{MOZILLA} (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
        (f"{MOZILLA} (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Edg/126.0",
         "Edge on Windows"),
        (f"{MOZILLA} (Windows NT 10.0) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 OPR/112.0", "Opera on Windows"),
        (f"{MOZILLA} (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
         "Chrome on Android"),
        (f"{MOZILLA} (Linux; Android 14) AppleWebKit/537.36 SamsungBrowser/25.0 Chrome/121.0 Mobile Safari/537.36",
         "Samsung Internet on Android"),
        (f"{MOZILLA} (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Safari/604.1",
         "Safari on iPhone"),
        (f"{MOZILLA} (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 CriOS/126.0 Safari/604.1",
         "Chrome on iPad"),
        (f"{MOZILLA} (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 FxiOS/127.0 Safari/605.1.15",
         "Firefox on iPhone"),
        (f"{MOZILLA} (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.5 Safari/605.1.15",
         "Safari on macOS"),
        (f"{MOZILLA} (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
         "Chrome on ChromeOS"),
        (f"{MOZILLA} (compatible; Something/1.0)", "a browser"),
        (f"{MOZILLA} (Windows NT 10.0; Trident/7.0) like Gecko", "a browser on Windows"),
    ],
)  # fmt: skip
def test_a_device_has_a_name(user_agent: str | None, name: str) -> None:
    assert device(user_agent) == name


@given(st.text(max_size=2000) | st.text(max_size=200).map(lambda text: MOZILLA + text))
def test_nothing_that_a_client_says_gets_further_than_a_bare_name(user_agent: str) -> None:
    name = device(user_agent)
    assert 0 < len(name) <= 32
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set("<>&\"'{}%/\\")


class Chain(RuleBasedStateMachine):
    """One session whose tokens are shown in any order, at any pace, by its owner and by thieves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.session = OPENED.session
        self.links = [OPENED.link]  # in the order they were made: each is the successor of the one before it
        self.reused = False

    @rule(seconds=st.sampled_from([0, 1, 5, 9, 10, 11, 3600, 86_400, 6 * 86_400, 7 * 86_400]))
    def time_goes_by(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(back=st.integers(0, 4), grace=st.sampled_from([0, 10]))
    def a_token_is_shown(self, back: int, grace: int) -> None:
        number = max(len(self.links) - 1 - back, 0)
        link = self.links[number]
        successor = self.links[number + 1] if number + 1 < len(self.links) else None
        rules = replace(RULES, refresh_grace=grace * SECOND)
        digest = b"%d" % len(self.links)
        step = session.refresh(Family(ADA, self.session, link, successor), digest, self.now, rules)
        newest = number == len(self.links) - 1
        match step:
            case Rotated(after, used, new):
                assert newest, "only the newest link was never used"
                assert not self.reused
                assert used == replace(link, used_at=self.now)
                assert (new.digest, new.used_at) == (digest, None)
                assert self.now < link.expires_at
                assert self.now < new.expires_at <= min(self.now + rules.refresh_ttl, after.expires_at)
                assert after == replace(self.session, last_used_at=self.now)
                self.session, self.links[number] = after, used
                self.links.append(new)
            case Repeated(again):
                assert again is self.links[-1], "nobody gets anything but the one unused link"
                assert number == len(self.links) - 2
                assert link.used_at is not None
                assert self.now < link.used_at + rules.refresh_grace
            case Reused(after):
                assert not newest
                assert after == replace(self.session, ended_at=self.now, end_reason=Ending.REUSED)
                self.session, self.reused = after, True
            case Refused():
                assert step == INVALID
                assert not self.session.alive(self.now) or (newest and self.now >= link.expires_at)

    @invariant()
    def at_most_one_leaf_lives_and_none_after_reuse(self) -> None:
        unused = [link for link in self.links if link.used_at is None]
        assert unused == [self.links[-1]]
        assert not (self.reused and self.session.alive(self.now))

    @invariant()
    def nothing_outlives_the_session(self) -> None:
        assert self.session.expires_at == NOW + RULES.session_max
        assert all(link.expires_at <= self.session.expires_at for link in self.links)


TestChain = Chain.TestCase
TestChain.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
