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
-- who waits for a row that this deletes makes it anew.
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
        AND NOT EXISTS (
            SELECT FROM registrations
            WHERE registrations.email_key = address.email_key
        )
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
