"""How much there is of what operators watch."""

from datetime import timedelta

import pytest

from regsvc.ports import OutboxCounts
from regsvc.store import census
from regsvc.store.store import Store
from regsvc.trio_asyncpg import Connection

ROWS = """
    INSERT INTO outbox (id, kind, topic, subject_id, state, not_before, not_after, created_at, lease_until, sent_at)
    SELECT gen_random_uuid(), kind, 'activation', gen_random_uuid(), state, now(), now(), now() - age,
        CASE WHEN state = 'leased' THEN now() END, CASE WHEN state = 'sent' THEN now() END
    FROM (VALUES
        ('mail', 'ready', interval '1 minute'), ('event', 'ready', interval '2 minutes'),
        ('mail', 'leased', interval '3 minutes'), ('mail', 'dead', interval '1 hour'),
        ('mail', 'dead', interval '2 hours'), ('mail', 'dead', interval '3 hours'), ('mail', 'sent', interval '1 day')
    ) AS parcel (kind, state, age)
"""


async def test_an_empty_outbox_has_no_oldest(store: Store) -> None:
    assert await store.census.outbox() == OutboxCounts(0, 0, 0, None)


async def test_the_outbox_is_counted_by_state(store: Store, raw: Connection) -> None:
    await raw.execute(ROWS)
    found = await store.census.outbox()
    assert (found.ready, found.leased, found.dead) == (2, 1, 3)
    assert found.oldest is not None
    assert timedelta(minutes=3) <= found.oldest < timedelta(minutes=4)


async def test_no_more_are_counted_than_is_worth_it(
    store: Store, raw: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await raw.execute(ROWS)
    monkeypatch.setattr(census, "MOST", 2)
    found = await store.census.outbox()
    assert (found.ready, found.leased, found.dead) == (2, 1, 2)
