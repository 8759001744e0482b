-- Accounts by the thousand: into the service, and out of it.

-- name: take_turn(key) -> none
-- One batch of one import at a time: two that bring the same usernames in another order would wait in a circle.
SELECT pg_advisory_xact_lock($1);

-- name: lock_addresses(email_keys) -> none
-- As lock_address does it for one, in one order for all.
INSERT INTO addresses AS address (email_key)
SELECT wanted.email_key FROM unnest($1::text[]) AS wanted (email_key)
ORDER BY wanted.email_key COLLATE "C"
ON CONFLICT (email_key) DO UPDATE
    SET touched_at = CASE
        WHEN address.touched_at < clock_timestamp() - interval '1 hour' THEN clock_timestamp()
        ELSE address.touched_at
    END;

-- name: lock_owners(email_keys) -> none
-- After the addresses, before anything is written: whoever holds an account waits for nothing that is held here yet.
SELECT users.id FROM users
WHERE users.email_key = any($1::text[])
ORDER BY users.id
FOR NO KEY UPDATE;

-- name: clock() -> value
SELECT clock_timestamp();

-- name: owners(email_keys) -> rows
SELECT
    users.id,
    users.email,
    users.email_key,
    users.username,
    users.username_key,
    users.locale,
    users.password_hash,
    users.role,
    users.disabled_at,
    users.created_at,
    users.activated_at,
    users.updated_at
FROM users
WHERE users.email_key = any($1::text[]);

-- name: ids_taken(ids) -> rows
-- Claims have ids too, and become accounts of the same id.
SELECT
    users.id,
    users.email_key
FROM users
WHERE users.id = any($1::uuid[])
UNION ALL
SELECT
    registrations.id,
    registrations.email_key
FROM registrations
WHERE registrations.id = any($1::uuid[]);

-- name: usernames_taken(username_keys) -> rows
SELECT users.username_key FROM users
WHERE users.username_key = any($1::text[]);

-- name: insert_users(
--     ids, emails, email_keys, usernames, username_keys, locales, password_hashes, roles, disabled_ats, created_ats,
--     activated_ats, updated_at) -> rows
-- Who is not among the rows had his username or his id taken since they were looked at.
INSERT INTO users (
    id,
    email,
    email_key,
    username,
    username_key,
    locale,
    password_hash,
    role,
    disabled_at,
    created_at,
    activated_at,
    updated_at
)
SELECT
    brought.id,
    brought.email,
    brought.email_key,
    brought.username,
    brought.username_key,
    brought.locale,
    brought.password_hash,
    brought.role,
    brought.disabled_at,
    brought.created_at,
    brought.activated_at,
    $12 AS updated_at
FROM
    unnest(
        $1::uuid[],
        $2::text[],
        $3::text[],
        $4::text[],
        $5::text[],
        $6::text[],
        $7::text[],
        $8::text[],
        $9::timestamptz[],
        $10::timestamptz[],
        $11::timestamptz[]
    )
        AS brought (
            id,
            email,
            email_key,
            username,
            username_key,
            locale,
            password_hash,
            role,
            disabled_at,
            created_at,
            activated_at
        )
ON CONFLICT DO NOTHING
RETURNING users.id;

-- name: drop_claims(email_keys) -> none
-- An account that came another way voids them, with their codes and with what was still to be mailed for them.
WITH claims AS (
    DELETE FROM registrations
    WHERE email_key = any($1::text[])
    RETURNING id
),

secrets AS (
    DELETE FROM codes USING claims
    WHERE codes.subject_id = claims.id
)

DELETE FROM outbox USING claims
WHERE outbox.subject_id = claims.id AND outbox.state IN ('ready', 'leased');

-- name: update_users(ids, password_hashes, locales, roles, disabled_ats, updated_at) -> none
UPDATE users SET
    password_hash = brought.password_hash,
    locale = brought.locale,
    role = brought.role,
    disabled_at = brought.disabled_at,
    updated_at = $6
FROM
    unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
        AS brought (id, password_hash, locale, role, disabled_at)
WHERE users.id = brought.id;

-- name: lock_admins(key) -> none
SELECT pg_advisory_xact_lock($1);

-- name: others_administer(email_keys) -> value
-- A statement of its own after the lock: it sees what was committed while that was waited for.
SELECT exists(
    SELECT FROM users
    WHERE role = 'admin' AND disabled_at IS NULL AND email_key != all($1::text[])
);

-- name: end_sessions(ids, reason, ended_at) -> rows
WITH gone AS (
    UPDATE sessions SET
        ended_at = $3,
        end_reason = $2
    WHERE user_id = any($1::uuid[]) AND ended_at IS NULL AND expires_at > $3
    RETURNING user_id
)

SELECT
    user_id,
    count(*) AS sessions
FROM gone
GROUP BY user_id;

-- name: drop_reset_codes(ids) -> none
DELETE FROM codes
WHERE subject_id = any($1::uuid[]) AND purpose = 'reset';

-- name: count_users(disabled) -> value
SELECT count(*) FROM users
WHERE $1::boolean IS NULL OR (users.disabled_at IS NOT NULL) = $1;

-- name: page(disabled, after, most) -> rows
SELECT
    users.id,
    users.email,
    users.email_key,
    users.username,
    users.username_key,
    users.locale,
    users.password_hash,
    users.role,
    users.disabled_at,
    users.created_at,
    users.activated_at,
    users.updated_at
FROM users
WHERE
    ($1::boolean IS NULL OR (users.disabled_at IS NOT NULL) = $1)
    AND ($2::uuid IS NULL OR users.id > $2)
ORDER BY users.id
LIMIT $3;
