"""Each address of the table gets the key that it says, or is refused as it says."""

from collections import Counter

import pytest

from regsvc.domain.values import EMAIL_MAX, Email, Flaw
from tests.domain.decisions import DECISIONS, Decision


@pytest.mark.parametrize("decision", DECISIONS, ids=str)
def test_an_address_is_decided_as_the_table_says(decision: Decision) -> None:
    found = Email.parse(decision.typed)
    if isinstance(found, Flaw):
        assert (found.code, None) == (decision.code, decision.key)
        assert found.message.isprintable()
        assert found.message.endswith(".")
        return
    assert (found.key, None) == (decision.key, decision.code)
    assert found.address == decision.typed.strip().removesuffix("."), "mail goes exactly there"
    again = Email.parse(found.key)
    assert isinstance(again, Email)
    assert again.key == found.key, "the key of a key is itself"


def test_the_table_is_large_without_repeating_itself_and_says_why() -> None:
    assert len(DECISIONS) >= 300
    assert [typed for typed, times in Counter(d.typed for d in DECISIONS).items() if times > 1] == []
    assert all(decision.why.startswith(("RFC ", "UTS ", "Unicode", "NFKC", "house")) for decision in DECISIONS)
    assert {decision.code for decision in DECISIONS} == {None, "invalid_email", "too_long"}
    groups = Counter(decision.group for decision in DECISIONS)
    assert len(groups) >= 15
    assert min(groups.values()) >= 5


def test_nothing_that_is_taken_could_end_a_line_or_name_two() -> None:
    """Whatever the table says: these stand in headers and envelopes, one to a line."""
    for decision in DECISIONS:
        found = Email.parse(decision.typed)
        if isinstance(found, Email):
            assert len(found.address.splitlines()) == 1
            assert found.address.count("@") == 1
            assert not set(found.address) & set(' ,;:<>()[]"\\\x00\r\n')
            assert len(found.address.encode()) <= EMAIL_MAX
