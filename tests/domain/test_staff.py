"""What administrators do to accounts, decided purely."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain import staff
from regsvc.domain.account import NO_PASSWORD
from regsvc.domain.session import Role, User
from regsvc.domain.staff import Actor, By, Changed, Deed, Newcomer, State, Wish
from regsvc.domain.values import Email, EmailKey, Locale, Username

NOW = datetime(2026, 11, 20, 11, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ADA = User(UUID(int=7), "Ada@Example.org", EmailKey("ada@example.org"), "hash", NOW, NOW, NOW, Username("Ada", "ada"))
ID = UUID(int=9)


def test_a_wish_does_what_it_says_and_nothing_twice() -> None:
    disabled = staff.change(ADA, Wish(disabled=True), LATER)
    assert disabled == Changed(replace(ADA, disabled_at=LATER, updated_at=LATER), (Deed.DISABLED,))
    assert staff.change(disabled.user, Wish(disabled=True), NOW) == Changed(disabled.user)
    enabled = staff.change(disabled.user, Wish(disabled=False), LATER)
    assert enabled == Changed(replace(ADA, updated_at=LATER), (Deed.ENABLED,))
    promoted = staff.change(ADA, Wish(role=Role.ADMIN), LATER)
    assert promoted == Changed(replace(ADA, role=Role.ADMIN, updated_at=LATER), (Deed.PROMOTED,))
    demoted = staff.change(promoted.user, Wish(disabled=True, role=Role.USER), LATER)
    assert demoted.deeds == (Deed.DISABLED, Deed.DEMOTED)
    assert staff.change(ADA, Wish(), LATER) == Changed(ADA)


WISHES = st.builds(Wish, st.sampled_from([None, True, False]), st.sampled_from([None, *Role]))


@given(st.sampled_from(Role), st.sampled_from([None, NOW]), WISHES)
def test_a_change_comes_out_as_wished_with_a_deed_for_each_difference(
    role: Role, disabled_at: datetime | None, wish: Wish
) -> None:
    before = replace(ADA, role=role, disabled_at=disabled_at)
    changed = staff.change(before, wish, LATER)
    after, was = changed.user, disabled_at is not None
    assert after.role is (wish.role or role)
    assert (after.disabled_at is not None) is (was if wish.disabled is None else wish.disabled)
    assert len(changed.deeds) == (after.role is not role) + ((after.disabled_at is None) is was)
    assert (after == before) is not bool(changed.deeds)
    assert staff.change(after, wish, LATER) == Changed(after)


def test_only_an_administrator_who_is_not_disabled_administers() -> None:
    admin = replace(ADA, role=Role.ADMIN)
    assert staff.administers(admin)
    assert not staff.administers(replace(admin, disabled_at=NOW))
    assert not staff.administers(ADA)


def test_the_trail_says_who_it_was_or_how_he_came() -> None:
    event = staff.publish(Deed.DISABLED, ADA.id, Actor(By.ACCOUNT, ID, "192.0.2.7"), sessions="3")
    assert (event.name, event.subject, event.actor, event.ip) == ("admin.user_disabled", ADA.id, ID, "192.0.2.7")
    assert event.data == {"sessions": "3"}
    event = staff.publish(Deed.DELETED, ADA.id, Actor(By.ADMIN_TOKEN))
    assert (event.actor, event.ip, event.data) == (None, None, {"by": "admin_token"})
    assert Actor(By.COMMAND_LINE).name == "command_line"
    assert Actor(By.ACCOUNT, ID).name == str(ID)


def test_an_entry_shows_an_account_without_its_hash() -> None:
    entry = staff.entry(replace(ADA, locale=Locale("de-AT"), role=Role.ADMIN))
    assert (entry.email, entry.username, entry.locale) == ("Ada@Example.org", "Ada", "de-AT")
    assert (entry.role, entry.state) == (Role.ADMIN, State.ACTIVE)
    assert "hash" not in repr(entry)
    bare = staff.entry(replace(ADA, username=None, disabled_at=LATER))
    assert (bare.username, bare.locale, bare.state) == (None, None, State.DISABLED)
    assert replace(bare, activated_at=None).state is State.PENDING


def test_a_newcomer_is_active_at_once() -> None:
    email = Email.parse("Ada@Example.org")
    assert isinstance(email, Email)
    made = staff.newcomer(ID, Newcomer(email, Username("Ada", "ada"), role=Role.ADMIN), "hash", NOW)
    assert made == replace(ADA, id=ID, role=Role.ADMIN)
    assert staff.newcomer(ID, Newcomer(email), None, NOW).password_hash == NO_PASSWORD


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        (" Ada@Example.ORG ", "ada@example.org%"),
        ("Ada@EXAM", "ada@exam%"),
        ("ＡＤＡ", "ada%"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example%"),
        ("50%_off\\", "50\\%\\_off\\\\%"),
        ("a_b@example.org", "a\\_b@example.org%"),
        ("", "%"),
        ("\ud800", "\ud800%"),
    ],
)
def test_what_is_sought_is_made_canonical_where_it_can_be(query: str, pattern: str) -> None:
    assert staff.beginning(query) == pattern


@given(st.text())
def test_nothing_that_is_sought_is_a_wildcard(query: str) -> None:
    pattern = staff.beginning(query)
    assert re.fullmatch(r"(?:[^\\%_]|\\[\\%_])*%", pattern, re.DOTALL)
