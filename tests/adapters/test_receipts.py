"""What is stored of a request with an Idempotency-Key says nothing without the request."""

import re
from itertools import combinations
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.crypto import Keys, Seals
from regsvc.domain.values import Secret
from regsvc.ports import Slot

KEYS: Final = Keys.derive(Secret("one secret of all the tests of receipts"))
OTHER: Final = Keys.derive(Secret("another secret of the tests of receipts"))
SEALS: Final = Seals(KEYS)
REQUEST: Final[dict[str, Any]] = {
    "route": "login",
    "credentials": b"Basic YTpi",
    "key": "a key",
    "content": b'{}\n{"password": "correct horse"}',
}
ANSWER: Final = b'{"access_token": "of somebody"}'


def slot(seals: Seals = SEALS, **parts: Any) -> Slot:
    return seals.slots(**{**REQUEST, **parts})[0]


def test_what_was_sealed_is_opened_by_the_same_request() -> None:
    sealed = SEALS.close(slot(), ANSWER)
    assert SEALS.open([slot()], sealed) == ANSWER
    assert ANSWER not in sealed
    assert SEALS.close(slot(), ANSWER) != sealed


@pytest.mark.parametrize("part", REQUEST)
def test_every_part_of_a_request_makes_another_one_of_it(part: str) -> None:
    value = REQUEST[part]
    changed = slot(**{part: value + ("x" if isinstance(value, str) else b"x")})
    assert (changed.place == slot().place) == (part == "content")
    assert changed.content != slot().content
    with pytest.raises(ValueError, match="sealed"):
        SEALS.open([changed], SEALS.close(slot(), ANSWER))


@given(st.lists(st.binary(max_size=3), min_size=2, max_size=2, unique=True), st.binary(max_size=3))
def test_no_part_runs_over_into_the_next(credentials: list[bytes], content: bytes) -> None:
    one, other = (slot(credentials=shown, content=content) for shown in credentials)
    assert one.place != other.place
    assert one.content != other.content
    moved = slot(credentials=credentials[0] + content, content=b"")
    assert (moved.content == one.content) == (content == b"")


def test_digests_and_key_are_not_each_other() -> None:
    found = slot()
    for one, other in combinations((found.place, found.content, found.key), 2):
        assert one != other
    assert {len(found.place), len(found.content), len(found.key)} == {32}


def test_another_secret_makes_another_request_of_it() -> None:
    ours, theirs = slot(), slot(Seals(OTHER))
    assert {ours.place, ours.content, ours.key}.isdisjoint({theirs.place, theirs.content, theirs.key})


def test_what_the_previous_secret_sealed_is_opened() -> None:
    before = Seals(OTHER)
    sealed = before.close(slot(before), ANSWER)
    now = Seals(KEYS, OTHER)
    slots = now.slots(**REQUEST)
    assert list(slots) == [slot(), slot(before)]
    assert now.open(slots, sealed) == ANSWER
    assert now.open(slots, now.close(slots[0], ANSWER)) == ANSWER


@pytest.mark.parametrize("sealed", [b"", b"\0" * 12, b"\0" * 64])
def test_what_nobody_sealed_is_not_opened(sealed: bytes) -> None:
    with pytest.raises(ValueError, match="sealed"):
        SEALS.open([slot()], sealed)


def test_a_changed_answer_is_not_opened() -> None:
    sealed = bytearray(SEALS.close(slot(), ANSWER))
    sealed[-1] ^= 1
    with pytest.raises(ValueError, match="sealed"):
        SEALS.open([slot()], bytes(sealed))


def test_a_slot_does_not_show_its_key() -> None:
    found = slot()
    assert repr(found.key) not in repr(found)
    assert not re.search(r"\bkey=", repr(found))
