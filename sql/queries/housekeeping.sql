-- What the sweeper removes. Nothing is ever correct because it ran.
-- No statement here waits for a row: what somebody holds is passed over and found the next time.

-- name: sweep_registrations(most) -> value
-- With their codes and with what was still to be mailed for them. A minute late, so that a decision made under the
-- address's lock just before the end still finds its row.
WITH expired AS MATERIALIZED (
    SELECT id
    FROM registrations
    WHERE expires_at < statement_timestamp() - interval '1 minute'
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

old_codes AS MATERIALIZED (
    SELECT
        codes.subject_id,
        codes.purpose
    FROM codes
    INNER JOIN expired ON codes.subject_id = expired.id
    FOR UPDATE OF codes SKIP LOCKED
),

old_mails AS MATERIALIZED (
    SELECT outbox.id
    FROM outbox
    INNER JOIN expired ON outbox.subject_id = expired.id
    WHERE outbox.state IN ('ready', 'leased')
    FOR UPDATE OF outbox SKIP LOCKED
),

secrets AS (
    DELETE FROM codes USING old_codes
    WHERE codes.subject_id = old_codes.subject_id AND codes.purpose = old_codes.purpose
),

mails AS (
    DELETE FROM outbox USING old_mails
    WHERE outbox.id = old_mails.id
),

gone AS (
    DELETE FROM registrations USING expired
    WHERE registrations.id = expired.id RETURNING registrations.id
)

SELECT count(*) FROM gone;

-- name: sweep_codes(most) -> value
-- An hour late: an expired code tells its owner that it has expired.
WITH expired AS MATERIALIZED (
    SELECT
        subject_id,
        purpose
    FROM codes
    WHERE expires_at < statement_timestamp() - interval '1 hour'
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM codes USING expired
    WHERE codes.subject_id = expired.subject_id AND codes.purpose = expired.purpose
    RETURNING codes.subject_id
)

SELECT count(*) FROM gone;

-- name: sweep_addresses(most, failures_window, mails_window) -> value
-- Whoever locks an untouched address touches it first, so one that was locked since this began is no longer found; one
-- who waits for a row that this deletes makes it anew. Claims are counted address by address: NOT EXISTS would become a
-- join that reads both tables from end to end for each batch.
WITH idle AS MATERIALIZED (
    SELECT address.email_key
    FROM addresses AS address
    WHERE
        address.touched_at < statement_timestamp() - interval '24 hours'
        AND (address.failures_since IS NULL OR address.failures_since < statement_timestamp() - $2::interval)
        AND (
            address.verify_failures_since IS NULL
            OR address.verify_failures_since < statement_timestamp() - $2::interval
        )
        AND (address.mails_since IS NULL OR address.mails_since < statement_timestamp() - $3::interval)
        AND (address.asked_since IS NULL OR address.asked_since < statement_timestamp() - $3::interval)
        AND (
            SELECT count(*) FROM registrations
            WHERE registrations.email_key = address.email_key
        ) = 0
    ORDER BY address.touched_at
    LIMIT $1
    FOR UPDATE OF address SKIP LOCKED
),

gone AS (
    DELETE FROM addresses USING idle
    WHERE addresses.email_key = idle.email_key RETURNING addresses.email_key
)

SELECT count(*) FROM gone;

-- name: sweep_sent(most) -> value
WITH old AS MATERIALIZED (
    SELECT id
    FROM outbox
    WHERE state = 'sent' AND sent_at < statement_timestamp() - interval '1 day'
    ORDER BY sent_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM outbox USING old
    WHERE outbox.id = old.id RETURNING outbox.id
)

SELECT count(*) FROM gone;

-- name: sweep_dead(most) -> value
WITH old AS MATERIALIZED (
    SELECT id
    FROM outbox
    WHERE state = 'dead' AND created_at < statement_timestamp() - interval '30 days'
    ORDER BY created_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM outbox USING old
    WHERE outbox.id = old.id RETURNING outbox.id
)

SELECT count(*) FROM gone;

-- name: sweep_mailbox(most, kept) -> value
-- The newest one too many is found first, without locks: those above it are not ours to hold.
WITH old AS MATERIALIZED (
    SELECT id
    FROM mailbox
    WHERE
        id <= (
            SELECT newer.id FROM mailbox AS newer
            ORDER BY newer.id DESC LIMIT 1 OFFSET $2
        )
    ORDER BY id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM mailbox USING old
    WHERE mailbox.id = old.id RETURNING mailbox.id
)

SELECT count(*) FROM gone;

-- name: sweep_links(most) -> value
-- The chain is kept whole as long as its session lives: who was away finds his token used by a thief, perhaps weeks
-- ago, and showing it is what ends the thief's session. Once that is over, each link says what an unknown one says.
-- (Those of a session that was ended went with that.)
WITH old AS MATERIALIZED (
    SELECT hash
    FROM refresh_tokens
    WHERE kept_until < statement_timestamp() - interval '1 minute'
    ORDER BY kept_until
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM refresh_tokens USING old
    WHERE refresh_tokens.hash = old.hash RETURNING refresh_tokens.hash
)

SELECT count(*) FROM gone;

-- name: sweep_sessions(most) -> value
-- A month after it was over: until then a login from its device is none from a new one. Its links went before it.
WITH old AS MATERIALIZED (
    SELECT id
    FROM sessions
    WHERE least(ended_at, expires_at) < statement_timestamp() - interval '30 days'
    ORDER BY least(ended_at, expires_at)
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM sessions USING old
    WHERE sessions.id = old.id RETURNING sessions.id
)

SELECT count(*) FROM gone;

-- name: sweep_email_changes(most) -> value
WITH expired AS MATERIALIZED (
    SELECT user_id
    FROM email_changes
    WHERE expires_at < statement_timestamp() - interval '1 minute'
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM email_changes USING expired
    WHERE email_changes.user_id = expired.user_id RETURNING email_changes.user_id
)

SELECT count(*) FROM gone;

-- name: sweep_limits(most) -> value
-- Read from end to end, and in no order: an index on what each take rewrites would cost all of them more than this.
WITH whole AS MATERIALIZED (
    SELECT bucket
    FROM rate_limits
    WHERE whole_at < extract(EPOCH FROM statement_timestamp()) * 1000000
    LIMIT $1 -- noqa: AM09
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM rate_limits USING whole
    WHERE rate_limits.bucket = whole.bucket RETURNING rate_limits.bucket
)

SELECT count(*) FROM gone;

-- name: sweep_answers(most) -> value
WITH expired AS MATERIALIZED (
    SELECT slot
    FROM idempotency_keys
    WHERE expires_at < statement_timestamp()
    ORDER BY expires_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM idempotency_keys USING expired
    WHERE idempotency_keys.slot = expired.slot RETURNING idempotency_keys.slot
)

SELECT count(*) FROM gone;

-- name: turn(name, idle) -> value
-- One of all sweepers gets it, and again only when nobody took it for so long. No lock of a session, so that it works
-- behind a pooler too, and who dies in the middle keeps it from the others for a moment only.
INSERT INTO turns AS turn (name, taken_at)
VALUES ($1, statement_timestamp())
ON CONFLICT (name) DO UPDATE
    SET taken_at = excluded.taken_at
    WHERE turn.taken_at <= excluded.taken_at - $2::interval
RETURNING TRUE;

-- name: lag(kept) -> value
-- For how many seconds the oldest of what could be swept has waited for it, where an index tells: not so of addresses,
-- limits and the mailbox.
WITH due AS (
    (
        SELECT expires_at + interval '1 minute' AS at
        FROM registrations
        ORDER BY expires_at
        LIMIT 1
    )
    UNION ALL
    (
        SELECT expires_at + interval '1 hour' AS at
        FROM codes
        ORDER BY expires_at
        LIMIT 1
    )
    UNION ALL
    (
        SELECT sent_at + interval '1 day' AS at
        FROM outbox
        WHERE state = 'sent'
        ORDER BY sent_at
        LIMIT 1
    )
    UNION ALL
    (
        SELECT created_at + interval '30 days' AS at
        FROM outbox
        WHERE state = 'dead'
        ORDER BY created_at
        LIMIT 1
    )
    UNION ALL
    (
        SELECT kept_until + interval '1 minute' AS at
        FROM refresh_tokens
        ORDER BY kept_until
        LIMIT 1
    )
    UNION ALL
    (
        SELECT least(ended_at, expires_at) + interval '30 days' AS at
        FROM sessions
        ORDER BY least(ended_at, expires_at)
        LIMIT 1
    )
    UNION ALL
    (
        SELECT expires_at + interval '1 minute' AS at
        FROM email_changes
        ORDER BY expires_at
        LIMIT 1
    )
    UNION ALL
    (
        SELECT expires_at AS at
        FROM idempotency_keys
        ORDER BY expires_at
        LIMIT 1
    )
    UNION ALL
    (
        SELECT ends_at + $1::interval AS at
        FROM events_partitions
        WHERE ends_at < 'infinity'
        ORDER BY ends_at
        LIMIT 1
    )
)

SELECT greatest(0, extract(EPOCH FROM statement_timestamp() - min(at)))::float FROM due;

-- name: sweep_events(most, kept) -> value
-- What the default partition has of months that are kept no longer: those with a partition of their own go with that.
WITH old AS MATERIALIZED (
    SELECT
        at,
        id
    FROM events_default
    WHERE at < date_trunc('month', statement_timestamp() - $2::interval, 'UTC')
    ORDER BY at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

gone AS (
    DELETE FROM events_default USING old
    WHERE events_default.at = old.at AND events_default.id = old.id RETURNING events_default.id
)

SELECT count(*) FROM gone;

-- name: months_lacking(ahead, kept) -> rows
-- This month and so many after it, and those of what fell into the default partition, as far as they have none of their
-- own. Months are counted in UTC, as times without a zone: with one, a month would be what it is where the session is.
-- Who does not own the trail can make nothing of it.
WITH RECURSIVE fallen AS (
    SELECT date_trunc('month', min(at) AT TIME ZONE 'UTC') AS month FROM events_default
    UNION ALL
    SELECT (
        SELECT date_trunc('month', min(events_default.at) AT TIME ZONE 'UTC')
        FROM events_default
        WHERE events_default.at >= (fallen.month + interval '1 month') AT TIME ZONE 'UTC'
    ) AS month
    FROM fallen
    WHERE fallen.month IS NOT NULL
),

wanted AS (
    SELECT month FROM fallen
    UNION
    SELECT date_trunc('month', statement_timestamp() AT TIME ZONE 'UTC') + n * interval '1 month' AS month
    FROM generate_series(0, $1::integer) AS n
)

SELECT wanted.month AT TIME ZONE 'UTC' AS month
FROM wanted
INNER JOIN pg_class ON pg_class.oid = 'events'::regclass AND pg_has_role(pg_class.relowner, 'MEMBER')
WHERE
    (wanted.month + interval '1 month') AT TIME ZONE 'UTC' > statement_timestamp() - $2::interval
    AND NOT EXISTS (
        SELECT FROM events_partitions
        WHERE
            events_partitions.begins_at < (wanted.month + interval '1 month') AT TIME ZONE 'UTC'
            AND events_partitions.ends_at > wanted.month AT TIME ZONE 'UTC'
    )
ORDER BY wanted.month;

-- name: make_partition(month, most) -> value
SELECT make_events_partition($1, $2);

-- name: partitions_over(kept) -> rows
SELECT events_partitions.partition
FROM events_partitions
INNER JOIN pg_class ON pg_class.oid = 'events'::regclass AND pg_has_role(pg_class.relowner, 'MEMBER')
WHERE events_partitions.ends_at <= statement_timestamp() - $1::interval
ORDER BY events_partitions.ends_at;

-- name: drop_partition(partition, kept) -> value
SELECT drop_events_partition($1, $2);
