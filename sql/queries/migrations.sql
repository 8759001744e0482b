-- Which migrations were applied.

-- name: try_lock(key) -> value
-- Of the transaction, so that it works behind a pooler too, and never waited for: a lock that is waited for holds a
-- snapshot, and CREATE INDEX CONCURRENTLY waits for that.
SELECT pg_try_advisory_xact_lock($1);

-- name: limit_lock_waits(longest) -> none
-- Of the transaction: whoever waits for a table makes all others wait behind.
SELECT set_config('lock_timeout', (extract(EPOCH FROM $1::interval) * 1000)::integer::text, TRUE);

-- name: exists() -> value
SELECT to_regclass('migrations') IS NOT NULL;

-- name: create() -> none
CREATE TABLE IF NOT EXISTS migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    checksum bytea NOT NULL,
    applied_at timestamptz NOT NULL
);

-- name: applied() -> rows
SELECT
    version,
    name,
    checksum
FROM migrations
ORDER BY version;

-- name: record(version, name, checksum) -> none
INSERT INTO migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, clock_timestamp());

-- name: fallen() -> value
SELECT exists(SELECT FROM events_default);
