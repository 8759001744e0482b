"""Every kind of type goes to the server and back as asyncpg documents it."""

import datetime as dt
import ipaddress
import json
import uuid
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from regsvc import trio_asyncpg
from regsvc.trio_asyncpg import Connection, Pool

UTC = dt.UTC
SCALARS: list[tuple[str, Any]] = [
    ("bool", True),
    ("int2", -(2**15)),
    ("int4", 2**31 - 1),
    ("int8", -(2**63)),
    ("float4", 0.5),
    ("float8", 1e308),
    ("numeric", Decimal("123456789012345678901234567890.0000000001")),
    ("numeric", Decimal("-0.5")),
    ("text", "z\u00df\u6c34\U0001f34c"),
    ("varchar(4)", "abcd"),
    ("bytea", bytes(range(256))),
    ("uuid", uuid.UUID("12345678-1234-5678-1234-567812345678")),
    ("date", dt.date(2024, 2, 29)),
    ("time", dt.time(23, 59, 59, 999999)),
    ("timetz", dt.time(1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    ("timestamp", dt.datetime(2024, 2, 29, 12, 0, 0, 1)),  # noqa: DTZ001  # a timestamp without a zone is the point
    ("timestamptz", dt.datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC)),
    ("interval", dt.timedelta(days=3, seconds=5, microseconds=7)),
    ("inet", ipaddress.ip_interface("10.1.2.3/8")),
    ("inet", ipaddress.ip_address("::1")),
    ("cidr", ipaddress.ip_network("10.0.0.0/8")),
    ("macaddr", "08:00:2b:01:02:03"),
    ("bit(3)", asyncpg.BitString.frombytes(b"\xa0", 3)),
    ("point", asyncpg.Point(1.0, 2.0)),
    ("box", asyncpg.Box(asyncpg.Point(3.0, 4.0), asyncpg.Point(1.0, 2.0))),
    ("circle", asyncpg.Circle(asyncpg.Point(1.0, 2.0), 3.0)),
    ("path", asyncpg.Path(asyncpg.Point(0.0, 0.0), asyncpg.Point(1.0, 1.0), is_closed=True)),
    ("json", '{"a": [1, null]}'),
    ("jsonb", '{"a": [1, null]}'),
    ("jsonpath", '$."a"[*]'),
    ("int4[]", [1, None, 3]),
    ("int4[]", [[1, 2], [3, 4]]),
    ("text[]", []),
    ("uuid[]", [uuid.UUID(int=7)]),
    ("timestamptz[]", [dt.datetime(2000, 1, 1, tzinfo=UTC)]),
    ("int4range", asyncpg.Range(1, 10)),
    ("int4range", asyncpg.Range(empty=True)),
    ("int8range", asyncpg.Range(None, 5)),
    ("numrange", asyncpg.Range(Decimal("1.5"), None, lower_inc=False)),
    ("daterange", asyncpg.Range(dt.date(2024, 1, 1), dt.date(2024, 2, 1))),
    ("tstzrange", asyncpg.Range(dt.datetime(2024, 1, 1, tzinfo=UTC), None)),
    ("int4multirange", [asyncpg.Range(1, 3), asyncpg.Range(5, 7)]),
    ("tsvector", "'fat' 'rat'"),
    ("oid", 2**32 - 1),
    ("xid8", 2**40),
]


@pytest.mark.parametrize(("kind", "value"), SCALARS, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(SCALARS)])
async def test_a_value_comes_back_as_it_went(connection: Connection, kind: str, value: Any) -> None:
    found = await connection.fetchval(f"SELECT $1::{kind}", value)
    assert found == value
    assert isinstance(found, type(value))
    assert await connection.fetchval(f"SELECT $1::{kind}", None) is None


async def test_an_enum_a_composite_a_domain_and_their_arrays(pool: Pool) -> None:
    await pool.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'wild');"
        "CREATE TYPE person AS (name text, mood mood, born date);"
        "CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0)"
    )
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 'calm'::mood") == "calm"
        row = await connection.fetchval("SELECT ('Ann', 'wild', '2000-01-01')::person")
        assert tuple(row) == ("Ann", "wild", dt.date(2000, 1, 1))
        assert row["mood"] == "wild"
        people = await connection.fetchval("SELECT $1::person[]", [("Ann", "calm", None)])
        assert people[0]["name"] == "Ann"
        assert await connection.fetchval("SELECT $1::mood[]", ["calm", "wild"]) == ["calm", "wild"]
        assert await connection.fetchval("SELECT $1::even", 4) == 4
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.fetchval("SELECT $1::even", 3)


async def test_a_codec_of_ones_own_for_json(connection: Connection) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        assert await connection.fetchval(f"SELECT $1::{kind}", {"a": [1, None]}) == {"a": [1, None]}
    await connection.reset_type_codec("json", schema="pg_catalog")
    assert await connection.fetchval("SELECT '[1]'::json") == "[1]"


async def test_a_codec_of_ones_own_is_set_by_the_init_of_a_pool(database: str) -> None:
    async def init(connection: Connection) -> None:
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async with trio_asyncpg.open_pool(database, init=init) as pool:
        assert await pool.fetchval("SELECT $1::jsonb", {"n": 1}) == {"n": 1}


async def test_a_record_is_read_by_name_and_by_place(connection: Connection) -> None:
    row = await connection.fetchrow("SELECT 1 AS one, 'two' AS two")
    assert row is not None
    assert (row["one"], row[1], dict(row), len(row)) == (1, "two", {"one": 1, "two": "two"}, 2)
    with pytest.raises(KeyError):
        row["three"]


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("SELECT $1::int4", 2**31),
        ("SELECT $1::int8", 2**63),
        ("SELECT $1::int4", "1"),
        ("SELECT $1::text", 1),
        ("SELECT $1::text", "\ud800"),
        ("SELECT $1::timestamptz", "today"),
        ("SELECT $1::int4[]", 1),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_here_and_harms_nothing(
    connection: Connection, query: str, value: Any
) -> None:
    with pytest.raises((asyncpg.DataError, UnicodeEncodeError)):
        await connection.fetchval(query, value)
    assert await connection.fetchval("SELECT 1") == 1


async def test_a_nul_in_text_is_refused_by_the_server(connection: Connection) -> None:
    with pytest.raises(asyncpg.CharacterNotInRepertoireError):
        await connection.fetchval("SELECT $1::text", "a\0b")
