-- Sessions, their refresh tokens, and the accounts they belong to.
--
-- Order of locks: an address, a user, a session. Whoever has a session's row holds all links of its chain; sessions of
-- one user are taken in the order of their ids. A session is opened under its user's lock, refreshed under its own.

-- name: devices(user, now) -> rows
SELECT
    device,
    count(*) FILTER (WHERE ended_at IS NULL AND expires_at > $2) AS alive
FROM sessions
WHERE user_id = $1
GROUP BY device;

-- name: open_session(id, user, device, ip, created_at, last_used_at, expires_at, hash, link_expires_at) -> none
WITH session AS (
    INSERT INTO sessions (id, user_id, device, ip, created_at, last_used_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    RETURNING id, expires_at
)

INSERT INTO refresh_tokens (hash, session_id, expires_at, kept_until)
SELECT
    $8 AS hash,
    id AS session_id,
    $9 AS expires_at,
    expires_at AS kept_until
FROM session;

-- name: lock_session(hash) -> none
-- Of a refresh token; whose link it is never changes, so what this saw before it waited is still right.
SELECT id FROM sessions
WHERE
    id = (
        SELECT link.session_id FROM refresh_tokens AS link
        WHERE link.hash = $1
    )
FOR UPDATE;

-- name: load_family(hash) -> row
-- A statement of its own after the lock: its snapshot and its clock are then later than whatever was waited for.
SELECT
    clock_timestamp() AS observed_at,
    link.hash,
    link.expires_at AS link_expires_at,
    link.used_at,
    successor.hash AS successor_hash,
    successor.expires_at AS successor_expires_at,
    successor.used_at AS successor_used_at,
    sessions.id AS session_id,
    sessions.user_id,
    sessions.device,
    sessions.ip,
    sessions.created_at AS session_created_at,
    sessions.last_used_at,
    sessions.expires_at,
    sessions.ended_at,
    sessions.end_reason,
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
FROM refresh_tokens AS link
INNER JOIN sessions ON link.session_id = sessions.id
INNER JOIN users ON sessions.user_id = users.id
LEFT JOIN refresh_tokens AS successor ON link.hash = successor.parent
WHERE link.hash = $1;

-- name: rotate(used, used_at, hash, expires_at, last_used_at) -> value
-- The successor is made of the row that using its parent brings, so it is inserted after that: at no time does the
-- session have two unused links, which its unique index would refuse. Nothing where the parent was used before.
WITH used AS (
    UPDATE refresh_tokens SET used_at = $2
    WHERE hash = $1 AND used_at IS NULL
    RETURNING hash, session_id, kept_until
),

session AS (
    UPDATE sessions SET last_used_at = $5
    FROM used
    WHERE sessions.id = used.session_id
)

INSERT INTO refresh_tokens (hash, session_id, parent, expires_at, kept_until)
SELECT
    $3 AS hash,
    session_id,
    hash AS parent,
    $4 AS expires_at,
    kept_until
FROM used
RETURNING session_id;

-- name: end_sessions(user, reason, now, only, but) -> rows
WITH alive AS MATERIALIZED (
    SELECT id FROM sessions
    WHERE
        user_id = $1
        AND ended_at IS NULL
        AND expires_at > $3
        AND ($4::uuid IS NULL OR id = $4)
        AND ($5::uuid IS NULL OR id != $5)
    ORDER BY id
    FOR UPDATE
)

UPDATE sessions SET ended_at = $3, end_reason = $2
FROM alive
WHERE sessions.id = alive.id
RETURNING sessions.id;

-- name: end_oldest_sessions(user, reason, now, number) -> rows
-- Under the user's lock, so none is opened meanwhile. What ends by itself while its row is waited for is passed over.
WITH oldest AS MATERIALIZED (
    SELECT id FROM sessions
    WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $3
    ORDER BY created_at, id
    LIMIT $4
),

alive AS MATERIALIZED (
    SELECT sessions.id FROM sessions
    INNER JOIN oldest ON sessions.id = oldest.id
    WHERE sessions.ended_at IS NULL
    ORDER BY sessions.id
    FOR UPDATE OF sessions
)

UPDATE sessions SET ended_at = $3, end_reason = $2
FROM alive
WHERE sessions.id = alive.id
RETURNING sessions.id;

-- name: drop_links(sessions) -> none
-- Of sessions that ended: each link says now what an unknown one says. A statement of its own after the lock, or the
-- link that a refresh made while the lock was waited for would be missed.
DELETE FROM refresh_tokens
WHERE session_id = any($1::uuid[]);

-- name: user_by_email(email_key) -> row
SELECT
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
FROM users
WHERE email_key = $1;

-- name: user_by_username(username_key) -> row
SELECT
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
FROM users
WHERE username_key = $1;

-- name: user_by_id(id) -> row
SELECT
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
FROM users
WHERE id = $1;

-- name: visit(session) -> row
-- Every request that shows an access token asks this: two rows by their primary keys.
SELECT
    clock_timestamp() AS observed_at,
    sessions.id AS session_id,
    sessions.user_id,
    sessions.device,
    sessions.ip,
    sessions.created_at AS session_created_at,
    sessions.last_used_at,
    sessions.expires_at,
    sessions.ended_at,
    sessions.end_reason,
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
FROM sessions
INNER JOIN users ON sessions.user_id = users.id
WHERE sessions.id = $1;

-- name: sessions_alive(user) -> rows
SELECT
    id AS session_id,
    user_id,
    device,
    ip,
    created_at AS session_created_at,
    last_used_at,
    expires_at,
    ended_at,
    end_reason
FROM sessions
WHERE user_id = $1 AND ended_at IS NULL AND expires_at > statement_timestamp()
ORDER BY created_at DESC, id DESC;

-- name: code_alive(subject, purpose, macs) -> value
SELECT exists(
    SELECT FROM codes
    WHERE
        subject_id = $1
        AND purpose = $2
        AND mac = any($3::bytea[])
        AND used_at IS NULL
        AND expires_at > statement_timestamp()
);
