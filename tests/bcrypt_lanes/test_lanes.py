"""The lanes beside the package: the same digests, whatever is hashed and however many at once."""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regsvc.bcrypt_lanes import Engine, Lanes, Package, Salt, check_many, hash_many, new_salt, open_engine
from regsvc.bcrypt_lanes.engine import VECTORS, decoded, encoded, self_test

LONGEST = 72


def packaged(password: bytes, salt: Salt) -> bytes:
    return bcrypt.hashpw(password, bytes(salt))


def batches(rounds: int, lanes: int, costs: tuple[int, ...], seed: int = 4) -> Iterator[tuple[list[bytes], list[Salt]]]:
    """Yield `rounds` passwords and salts in batches of every size, lengths mixed."""
    source, left = random.Random(seed), rounds
    while left > 0:
        size, cost = source.randint(1, lanes), source.choice(costs)
        left -= size
        yield (
            [source.randbytes(source.randint(0, LONGEST)) for _ in range(size)],
            [Salt(source.choice((b"2a", b"2b", b"2y")), cost, source.randbytes(16)) for _ in range(size)],
        )


@pytest.mark.timeout(180)
def test_random_ones_are_the_package_s(lanes: Lanes, rounds: int | None) -> None:
    """`--rounds 100000` is the large form, `--rounds 1000000` the largest, at cost 4."""
    compared, asked = 0, rounds or 300
    for passwords, salts in batches(asked, lanes.lanes, (4, 4, 4, 5, 6) if asked <= 100_000 else (4,)):
        assert hash_many(lanes, passwords, salts) == [packaged(*one) for one in zip(passwords, salts, strict=True)]
        compared += len(passwords)
    print(f"{compared} digests compared")  # noqa: T201 - `pytest -s`


@given(password=st.binary(max_size=LONGEST), salt=st.binary(min_size=16, max_size=16), width=st.integers(1, 6))
@settings(max_examples=100)
def test_each_lane_computes_the_same(password: bytes, salt: bytes, width: int, lanes: Lanes) -> None:
    digests = lanes.digest(4, [password] * width, [salt] * width)
    assert set(digests) == {lanes.digest(4, [password], [salt])[0]}
    assert digests[0] == Package().digest(4, [password], [salt])[0]


@pytest.mark.timeout(180)
def test_every_cost(lanes: Lanes, rounds: int | None) -> None:
    for cost in range(4, 15 if rounds else 11):
        salts = [new_salt(cost) for _ in range(lanes.lanes)]
        passwords = [bytes([cost]) * (7 * n) for n in range(lanes.lanes)]
        found = hash_many(lanes, passwords, salts)
        assert found[0] == packaged(passwords[0], salts[0])
        assert found[-1] == packaged(passwords[-1], salts[-1])


@pytest.mark.parametrize("size", [1, 55, 56, 57, 71, 72])
@pytest.mark.parametrize("octet", [b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff"])
def test_signs_and_ends_count_as_in_the_package(engine: Engine, octet: bytes, size: int) -> None:
    salt = new_salt(4)
    assert hash_many(engine, [octet * size], [salt]) == [packaged(octet * size, salt)]


def test_the_published_vectors(engine: Engine) -> None:
    assert self_test(engine) == ""
    for password, cost, salt, rest in VECTORS:
        whole = b"$2a$%02d$%s%s" % (cost, salt, rest)
        assert check_many(engine, [password, password + b"x"], [whole, whole]) == [True, False]
        assert bcrypt.checkpw(password, whole)


def test_the_package_does_what_the_lanes_do() -> None:
    salts = [new_salt(4) for _ in range(3)]
    passwords = [b"", b"a", b"b" * LONGEST]
    assert hash_many(Package(), passwords, salts) == [packaged(*one) for one in zip(passwords, salts, strict=True)]


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
def test_what_one_makes_the_other_verifies(engine: Engine, prefix: bytes) -> None:
    made = bcrypt.hashpw(b"a word", b"$%s$04$%s" % (prefix, encoded(bytes(range(16)))))
    assert check_many(engine, [b"a word", b"another"], [made, made]) == [True, False]
    [ours] = hash_many(engine, [b"a word"], [Salt(prefix, 4, bytes(16))])
    assert ours.startswith(b"$%s$04$" % prefix)
    assert bcrypt.checkpw(b"a word", ours)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"$2b$04$",
        b"$2x$04$CCCCCCCCCCCCCCCCCCCCC.",
        b"$2b$4$CCCCCCCCCCCCCCCCCCCCC.",
        b"$2b$03$CCCCCCCCCCCCCCCCCCCCC.",
        b"$2b$32$CCCCCCCCCCCCCCCCCCCCC.",
        b"$2b$04$CCCCCCCCCCCCCCCCCCCCCC",
        b"$2b$04$CCCCCCCCCCCCCCCCCCCC!.",
        b"$2b$04$CCCCCCCCCCCCCCCCCCCCC.x",
        b"$2b$04$CCCCCCCCCCCCCCCCCCCCC.\n",
    ],
)
def test_what_is_no_salt_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a salt"):
        Salt.parse(text)


@given(st.binary(max_size=40))
def test_the_base_64_of_bcrypt_goes_both_ways(octets: bytes) -> None:
    assert decoded(encoded(octets)) == octets


def test_more_than_there_are_lanes_are_hashed_in_turns(engine: Engine) -> None:
    count = engine.lanes * 2 + 1
    salts = [new_salt(4) for _ in range(count)]
    passwords = [b"%d" % n for n in range(count)]
    assert hash_many(engine, passwords, salts) == [packaged(*one) for one in zip(passwords, salts, strict=True)]
    assert hash_many(engine, [], []) == []


def test_one_cost_at_a_time_and_a_salt_for_each(engine: Engine) -> None:
    with pytest.raises(ValueError, match="one cost"):
        hash_many(engine, [b"a", b"b"], [new_salt(4), new_salt(5)])
    with pytest.raises(ValueError, match="one salt for each"):
        hash_many(engine, [b"a"], [])


@pytest.mark.parametrize("cost", [-1, 0, 3, 32, 1000])
def test_costs_that_bcrypt_has_not(engine: Engine, cost: int) -> None:
    with pytest.raises(ValueError, match="cost"):
        engine.digest(cost, [b"a"], [bytes(16)])


def test_a_password_that_is_too_long_is_an_error(engine: Engine) -> None:
    with pytest.raises(ValueError, match="72"):
        engine.digest(4, [b"a", b"a" * 73][-engine.lanes :], [bytes(16)] * min(2, engine.lanes))


@pytest.mark.parametrize("salt", [b"", bytes(15), bytes(17)])
def test_a_salt_has_sixteen_octets(engine: Engine, salt: bytes) -> None:
    with pytest.raises(ValueError, match="16 octets"):
        engine.digest(4, [b"a"], [salt])


def test_the_compiled_part_takes_nothing_odd(lanes: Lanes) -> None:
    many = lanes.module.LANES_MAX + 1
    salt = bytes(16)
    sizes: list[Any] = [(4, (), ()), (4, (b"",) * many, (salt,) * many), (4, (b"",), (salt,) * 2)]
    for arguments in sizes:
        with pytest.raises(ValueError, match="passwords and as many salts"):
            lanes.module.digest_many(*arguments)
    kinds: list[Any] = [(4, [b""], (salt,)), (4, ("a",), (salt,)), (4, (b"a",), ("a" * 16,)), ("4", (), ()), ()]
    for arguments in kinds:
        with pytest.raises(TypeError):
            lanes.module.digest_many(*arguments)
    with pytest.raises(OverflowError):
        lanes.module.digest_many(2**40, (b"",), (bytes(16),))


def test_others_run_meanwhile(lanes: Lanes) -> None:
    ticks, over = [], threading.Event()

    def hashing() -> None:
        lanes.digest(11, [b"a"] * lanes.lanes, [bytes(16)] * lanes.lanes)
        over.set()

    thread = threading.Thread(target=hashing, name="hashing")
    thread.start()
    while not over.is_set():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    thread.join()
    assert len(ticks) > 3, "the lanes kept the interpreter to themselves"


def test_threads_do_not_meet(lanes: Lanes) -> None:
    found: dict[int, list[bytes]] = {}
    given_ = {n: list(batches(30, lanes.lanes, (4,), seed=n)) for n in range(4)}

    def hashing(n: int) -> None:
        found[n] = [one for passwords, salts in given_[n] for one in hash_many(lanes, passwords, salts)]

    threads = [threading.Thread(target=hashing, args=(n,), name=f"hashing {n}") for n in given_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, some in given_.items():
        assert found[n] == [packaged(*one) for passwords, salts in some for one in zip(passwords, salts, strict=True)]


def test_fewer_lanes_on_demand(lanes: Lanes) -> None:
    assert open_engine(2)[0].lanes == 2
    assert open_engine(1000)[0].lanes == lanes.module.LANES_MAX
    engine, why = open_engine(0)
    assert (engine, why) == (Package(), "it was asked for")
