"""With many rows a table, what runs for every request and every mail reads by index; `--rounds 100`: with 10^5."""

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from regsvc.store import sql
from regsvc.store.embedded import Cluster
from regsvc.trio_asyncpg import open_connection
from tests.postgres import psql, temporary_database
from tests.store.scenes import new_id

THOUSANDS = 20
FILL = """
    CREATE TEMPORARY TABLE seeds AS
    SELECT gen_random_uuid() AS id, 'p' || n || '@example.com' AS email_key, n,
        clock_timestamp() - n * interval '1 second' AS at
    FROM generate_series(1, 1000 * {thousands}) AS n;
    INSERT INTO addresses (email_key, touched_at) SELECT email_key, clock_timestamp() FROM seeds;
    INSERT INTO addresses (email_key, touched_at) SELECT 'gone' || n, at - interval '2 days' FROM seeds;
    INSERT INTO registrations (id, email, email_key, password_hash, created_at, live_until, expires_at)
    SELECT id, email_key, email_key, 'hash', at, at + interval '60 s', at + interval '3 days' FROM seeds;
    INSERT INTO users (id, email, email_key, password_hash, created_at, activated_at, updated_at)
    SELECT id, email_key, email_key, 'hash', at, at, at FROM seeds;
    INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at)
    SELECT id, 'activate', 'mac', at, at + interval '2 days' FROM seeds;
    INSERT INTO outbox (id, kind, topic, subject_id, state, not_before, not_after, created_at, sent_at, lease_until)
    SELECT gen_random_uuid(), 'mail', 'activation', id,
        CASE WHEN n % 2 = 0 THEN 'sent' WHEN n % 100 = 1 THEN 'leased' ELSE 'ready' END,
        at, at + interval '30 min', at,
        CASE WHEN n % 2 = 0 THEN at END,
        CASE WHEN n % 2 = 1 AND n % 100 = 1 THEN at + interval '3 days' END
    FROM seeds;
    INSERT INTO sessions (id, user_id, device, created_at, last_used_at, expires_at, ended_at, end_reason)
    SELECT id, id, 'curl', at, at, at + interval '30 days',
        CASE WHEN n % 3 = 0 THEN at END, CASE WHEN n % 3 = 0 THEN 'logout' END
    FROM seeds;
    INSERT INTO refresh_tokens (hash, session_id, parent, used_at, expires_at, kept_until)
    SELECT convert_to('l' || link || 'n' || n, 'UTF8'), id,
        CASE WHEN link > 1 THEN convert_to('l' || link - 1 || 'n' || n, 'UTF8') END,
        CASE WHEN link < 3 THEN at END, at + interval '7 days', at + interval '30 days'
    FROM seeds CROSS JOIN generate_series(1, 3) AS link;
    INSERT INTO email_changes (user_id, email, email_key, created_at, expires_at)
    SELECT id, email_key, email_key, at, at + interval '2 days' FROM seeds;
    INSERT INTO idempotency_keys (slot, body_mac, holder, lease_until, expires_at)
    SELECT convert_to('k' || n, 'UTF8'), 'mac', id, at, at + interval '1 day' FROM seeds;
    INSERT INTO rate_limits (bucket, whole_at, asked_at, allowed)
    SELECT 'login:' || n, extract(EPOCH FROM at) * 1000000, 0, TRUE FROM seeds;
    ANALYZE;
"""
HOT: dict[str, dict[str, list[object]]] = {
    "account": {
        "load_address": ["p7@example.com"],
        "username_taken": ["ada"],
        "mail_status": [new_id()],
        "drop_claims": [[new_id()]],
        "activate": ["p7@example.com", new_id(), "hash", b"mac", None, "activate", "hash"],
    },
    "delivery": {
        "lease": [8, timedelta(seconds=30), ["activation"]],
        "reclaim": [*[datetime.fromisoformat("2026-01-01T00:00:00Z")] * 2, timedelta(0), timedelta(days=1)],
        "next_due": [["activation"]],
        "lock_claim": [new_id()],
        "mint_for_claim": [new_id(), 1, None, [b"mac"] * 2, [timedelta(seconds=60)] * 2, ["activate", "link"]],
        "lock_account": [new_id()],
        "mint_for_account": [new_id(), 1, None, b"mac", timedelta(seconds=60), "reset"],
        "address": [new_id(), 1, None],
        "done": [[new_id()], [1], [None], "regsvc_settled"],
        "again": [new_id(), 1, None, timedelta(0), "why", False, timedelta(minutes=10)],
        "bury": [new_id(), 1, None, "why", False, "regsvc_settled"],
        "renew": [[new_id()], [1], [None], timedelta(seconds=30)],
    },
    "desk": {"list_mails": [None, None, 50], "show_mail": [new_id()]},
    "housekeeping": {
        "sweep_registrations": [100],
        "sweep_codes": [100],
        "sweep_addresses": [100, timedelta(days=1), timedelta(hours=1)],
        "sweep_sent": [100],
        "sweep_dead": [100],
        "sweep_links": [100],
        "sweep_sessions": [100],
        "sweep_email_changes": [100],
        "sweep_answers": [100],
        "lag": [timedelta(days=365)],
    },
    "session": {
        "devices": [new_id(), datetime.fromisoformat("2026-01-01T00:00:00Z")],
        "lock_session": [b"l1n7"],
        "load_family": [b"l1n7"],
        "rotate": [b"l3n7", None, b"l4n7", None, None],
        "end_sessions": [new_id(), "logout", datetime.fromisoformat("2026-01-01T00:00:00Z"), None, None],
        "end_oldest_sessions": [new_id(), "superseded", datetime.fromisoformat("2026-01-01T00:00:00Z"), 3],
        "drop_links": [[new_id()]],
        "user_by_email": ["p7@example.com"],
        "user_by_username": ["ada"],
        "user_by_id": [new_id()],
        "visit": [new_id()],
        "sessions_alive": [new_id()],
        "code_alive": [new_id(), "reset", [b"mac"]],
    },
    "quota": {"take": [["login:7", "login:8"], [1, 2], [3, 4]], "give_back": [["login:7", "login:8"], [1, 2]]},
    "profile": {
        "lock_user": [new_id()],
        "change_user": [new_id(), "A@b.example", "a@b.example", None, "ada", None, "hash", "user", None, None],
        "remove_user": [new_id()],
        "is_last_admin": [new_id()],
        "use_code": [new_id(), "reset", [b"mac"], None],
        "drop_codes": [new_id(), ["reset"]],
        "propose": [new_id(), "A@b.example", "a@b.example", None, None],
        "proposed": [new_id()],
        "spend": [new_id(), 1],
        "settle": [new_id()],
    },
}
BIG = {
    *("addresses", "registrations", "users", "codes", "outbox"),
    *("sessions", "refresh_tokens", "email_changes", "idempotency_keys", "rate_limits"),
}


@pytest.fixture(scope="module")
def crowded(postgres: Cluster, template: str, rounds: int | None) -> Iterator[str]:
    """A database with many rows."""
    name = f"crowded_{os.getpid()}"
    with temporary_database(postgres, name, template=template) as dsn:
        psql(postgres, FILL.replace("{thousands}", str(rounds or THOUSANDS)), database=name)
        yield dsn


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in HOT.items() for name in names])
async def test_hot_statements_read_by_index(crowded: str, room: str, name: str) -> None:
    queries = await trio.to_thread.run_sync(sql.read_queries, sql.folder() / "queries")
    (statement,) = (statement for statement in queries[room] if statement.name == name)
    async with open_connection(crowded) as connection:
        plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.text}", *HOT[room][name]))
    assert not (set(scanned(plan[0]["Plan"])) & BIG), json.dumps(plan, indent=1)


def scanned(node: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from end to end."""
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for below in node.get("Plans", ()):
        yield from scanned(below)
