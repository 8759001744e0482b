"""Which statements are known to leave a session as it was; when in doubt, none."""

import pytest

from regsvc.trio_asyncpg.cleanliness import leaves_session_clean


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "\n  with x as (select 1) select * from x",
        "INSERT INTO settings VALUES ('; SELECT')",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "ROLLBACK TO a; RELEASE a",
        "SET LOCAL lock_timeout = 1",
        "SELECT pg_advisory_xact_lock(1)",
        "NOTIFY bell",
        "CREATE TABLE t (a int)",
        "",
    ],
)
def test_clean(query: str) -> None:
    assert leaves_session_clean(query)


@pytest.mark.parametrize(
    "query",
    [
        "SET lock_timeout = 1",
        "RESET ALL",
        "SELECT 1; SET lock_timeout = 1",
        "SELECT set_config('a.b', 'c', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "LISTEN bell",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP TABLE t (a int)",
        "CREATE GLOBAL TEMPORARY TABLE t (a int)",
        "SELECT 1 INTO LOCAL TEMP t",
        "DO $$ BEGIN END $$",
        "CALL anything()",
        "PREPARE p AS SELECT 1",
        "LOAD 'auto_explain'",
        "/* a comment */ SET lock_timeout = 1",
        "SETTLE",
    ],
)
def test_in_doubt(query: str) -> None:
    assert not leaves_session_clean(query)
