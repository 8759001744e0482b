-- Accounts, as their owners and administrators change them: all of it under the user's lock.

-- name: lock_user(id) -> row
-- The row that is locked is the newest one, also where it was waited for; the clock is read outside, after that.
WITH held AS MATERIALIZED (
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
    WHERE id = $1
    FOR UPDATE
)

SELECT
    held.id,
    held.email,
    held.email_key,
    held.username,
    held.username_key,
    held.locale,
    held.password_hash,
    held.role,
    held.disabled_at,
    held.created_at,
    held.activated_at,
    held.updated_at,
    clock_timestamp() AS observed_at
FROM held;

-- name: change_user(
--     id, email, email_key, username, username_key, locale, password_hash, role, disabled_at, updated_at) -> row
-- Nothing where somebody is seen to have the name or the address; who takes it in this very moment is not seen, and
-- meets the unique index behind.
WITH taken AS MATERIALIZED (
    SELECT
        exists(
            SELECT FROM users AS other
            WHERE other.username_key = $5 AND other.id != $1
        ) AS username,
        exists(
            SELECT FROM users AS other
            WHERE other.email_key = $3 AND other.id != $1
        ) AS email
),

changed AS (
    UPDATE users SET
        email = $2,
        email_key = $3,
        username = $4,
        username_key = $5,
        locale = $6,
        password_hash = $7,
        role = $8,
        disabled_at = $9,
        updated_at = $10
    FROM taken
    WHERE users.id = $1 AND NOT taken.username AND NOT taken.email
    RETURNING users.id
)

SELECT
    taken.username AS username_taken,
    taken.email AS email_taken,
    exists(SELECT FROM changed) AS changed
FROM taken;

-- name: remove_user(id) -> none
-- Sessions, their links and a proposed address go by their foreign keys. The mails of the account are waited for: the
-- mailer locks the user before them, as this did. Claims to the address are there only where the account came around
-- them; those are not under our lock, so what somebody holds is passed over, and ends as claims do.
WITH gone AS (
    DELETE FROM users
    WHERE id = $1
    RETURNING id, email_key
),

claims AS MATERIALIZED (
    SELECT registrations.id
    FROM registrations
    INNER JOIN gone ON registrations.email_key = gone.email_key
    FOR UPDATE OF registrations SKIP LOCKED
),

their_codes AS MATERIALIZED (
    SELECT
        codes.subject_id,
        codes.purpose
    FROM codes
    INNER JOIN claims ON codes.subject_id = claims.id
    FOR UPDATE OF codes SKIP LOCKED
),

their_mails AS MATERIALIZED (
    SELECT outbox.id
    FROM outbox
    INNER JOIN claims ON outbox.subject_id = claims.id
    WHERE outbox.state IN ('ready', 'leased')
    FOR UPDATE OF outbox SKIP LOCKED
),

registrations_gone AS (
    DELETE FROM registrations USING claims
    WHERE registrations.id = claims.id
),

codes_gone AS (
    DELETE FROM codes USING their_codes
    WHERE codes.subject_id = their_codes.subject_id AND codes.purpose = their_codes.purpose
),

mails_gone AS (
    DELETE FROM outbox USING their_mails
    WHERE outbox.id = their_mails.id
),

secrets AS (
    DELETE FROM codes
    WHERE subject_id = $1
)

-- Whatever their state: a notice may name an address that was the account's.
DELETE FROM outbox
WHERE subject_id = $1 AND kind = 'mail';

-- name: lock_admins(key) -> none
SELECT pg_advisory_xact_lock($1);

-- name: is_last_admin(id) -> value
-- A statement of its own after the lock: it sees what was committed while that was waited for.
SELECT count(*) = 0 FROM users
WHERE role = 'admin' AND disabled_at IS NULL AND id != $1;

-- name: use_code(subject, purpose, macs, now) -> value
UPDATE codes SET used_at = $4
WHERE subject_id = $1 AND purpose = $2 AND mac = any($3::bytea[]) AND used_at IS NULL AND expires_at > $4
RETURNING subject_id;

-- name: drop_codes(subject, purposes) -> none
DELETE FROM codes
WHERE subject_id = $1 AND purpose = any($2::text[]);

-- name: propose(user, email, email_key, now, expires_at) -> none
WITH old AS (
    DELETE FROM codes
    WHERE subject_id = $1 AND purpose = 'change_email'
)

INSERT INTO email_changes (user_id, email, email_key, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_id) DO UPDATE
    SET
        email = excluded.email,
        email_key = excluded.email_key,
        created_at = excluded.created_at,
        expires_at = excluded.expires_at;

-- name: proposed(user) -> row
SELECT
    email_changes.email,
    email_changes.email_key,
    email_changes.expires_at,
    codes.mac,
    codes.expires_at AS code_expires_at,
    codes.failures
FROM email_changes
LEFT JOIN codes
    ON email_changes.user_id = codes.subject_id AND codes.purpose = 'change_email' AND codes.used_at IS NULL
WHERE email_changes.user_id = $1;

-- name: spend(user, failures) -> none
UPDATE codes SET failures = $2
WHERE subject_id = $1 AND purpose = 'change_email';

-- name: settle(user) -> none
WITH secret AS (
    DELETE FROM codes
    WHERE subject_id = $1 AND purpose = 'change_email'
)

DELETE FROM email_changes
WHERE user_id = $1;
