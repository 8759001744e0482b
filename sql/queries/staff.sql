-- What administrators look for, and the accounts that they make.
--
-- The lists are read in pages by key: what is added meanwhile is never on a page twice, and pushes nothing off one.
-- A condition whose parameter is null is folded away when PostgreSQL plans for the parameters at hand, which it goes on
-- doing here: a plan for all of them would cost more than each of these.

-- name: list_users(pattern, disabled, admins, before, most) -> rows
SELECT
    id,
    email,
    username,
    locale,
    role,
    created_at,
    activated_at,
    disabled_at
FROM users
WHERE
    ($1::text IS NULL OR email_key LIKE $1 OR username_key LIKE $1)
    AND ($2::boolean IS NULL OR (disabled_at IS NOT NULL) = $2)
    AND (NOT $3::boolean OR role = 'admin')
    AND ($4::uuid IS NULL OR id < $4)
ORDER BY id DESC
LIMIT $5;

-- name: list_registrations(pattern, before, most) -> rows
-- Those that expired are gone, whether or not they were swept.
SELECT
    id,
    email,
    username,
    locale,
    'user' AS role,
    created_at,
    NULL::timestamptz AS activated_at,
    NULL::timestamptz AS disabled_at
FROM registrations
WHERE
    ($1::text IS NULL OR email_key LIKE $1 OR username_key LIKE $1)
    AND ($2::uuid IS NULL OR id < $2)
    AND expires_at > statement_timestamp()
ORDER BY id DESC
LIMIT $3;

-- name: show(id) -> row
-- A registration becomes the account of the same id in one transaction, so this never finds both.
SELECT
    id,
    email,
    username,
    locale,
    role,
    created_at,
    activated_at,
    disabled_at
FROM users
WHERE id = $1
UNION ALL
SELECT
    id,
    email,
    username,
    locale,
    'user' AS role,
    created_at,
    NULL AS activated_at,
    NULL AS disabled_at
FROM registrations
WHERE id = $1 AND expires_at > statement_timestamp();

-- name: list_events(subject, name, before_at, before_id, most) -> rows
-- The time once more by itself: by a comparison of rows PostgreSQL does not tell which months need not be looked at.
SELECT
    id,
    at,
    name,
    actor,
    subject_id,
    ip,
    data
FROM events
WHERE
    ($1::uuid IS NULL OR subject_id = $1)
    AND ($2::text IS NULL OR name = $2)
    AND ($3::timestamptz IS NULL OR (at <= $3 AND (at, id) < ($3, $4::uuid)))
ORDER BY at DESC, id DESC
LIMIT $5;

-- name: insert_user(
--     id, email, email_key, username, username_key, locale, password_hash, role, created_at, activated_at,
--     updated_at) -> value
INSERT INTO users (
    id, email, email_key, username, username_key, locale, password_hash, role, created_at, activated_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: username_taken(username_key) -> value
SELECT exists(
    SELECT FROM users
    WHERE username_key = $1
);
