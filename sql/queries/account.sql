-- Addresses, their claims, and the accounts that come of them.

-- name: lock_address(email_key) -> none
-- Its row lock serialises all that is decided about an address. The row is made if it is new, so that there is always
-- one to hold; where the sweeper is just deleting it, this waits for that and inserts it anew.
-- `touched_at` moves once an hour at most: a lock that changes no indexed column stays a heap-only update.
INSERT INTO addresses AS address (email_key) VALUES ($1)
ON CONFLICT (email_key) DO UPDATE
    SET touched_at = CASE
        WHEN address.touched_at < clock_timestamp() - interval '1 hour' THEN clock_timestamp()
        ELSE address.touched_at
    END;

-- name: load_address(email_key) -> rows
-- One row for each claim, newest first, or a single one without. A statement of its own after the lock: its snapshot
-- and its clock are then later than whatever was waited for.
SELECT
    clock_timestamp() AS observed_at,
    addresses.failures,
    addresses.failures_since,
    addresses.verify_failures,
    addresses.verify_failures_since,
    addresses.mails,
    addresses.mails_since,
    addresses.mailed_at,
    addresses.asked,
    addresses.asked_since,
    addresses.asked_at,
    users.id AS owner_id,
    users.email AS owner_email,
    users.password_hash AS owner_password_hash,
    users.activated_at,
    registrations.id,
    registrations.email,
    registrations.username,
    registrations.username_key,
    registrations.locale,
    registrations.password_hash,
    registrations.client,
    registrations.created_at,
    registrations.live_until,
    registrations.expires_at,
    codes.mac,
    codes.expires_at AS code_expires_at,
    codes.failures AS code_failures,
    links.mac AS link_mac,
    links.expires_at AS link_expires_at,
    verifying.mac AS verify_mac,
    verifying.expires_at AS verify_expires_at,
    verifying.failures AS verify_code_failures
FROM (VALUES ($1::text)) AS asked (email_key)
LEFT JOIN addresses ON asked.email_key = addresses.email_key
LEFT JOIN users ON asked.email_key = users.email_key
LEFT JOIN registrations ON asked.email_key = registrations.email_key
LEFT JOIN codes ON registrations.id = codes.subject_id AND codes.purpose = 'activate' AND codes.used_at IS NULL
LEFT JOIN codes AS links
    ON registrations.id = links.subject_id AND links.purpose = 'link' AND links.used_at IS NULL
LEFT JOIN codes AS verifying
    ON registrations.id = verifying.subject_id AND verifying.purpose = 'verify' AND verifying.used_at IS NULL
ORDER BY registrations.created_at DESC, registrations.id DESC;

-- name: insert_claim(
--     email_key, failures, failures_since, verify_failures, verify_failures_since, mails, mails_since, mailed_at,
--     asked, asked_since, asked_at, id, email, username, username_key, locale, password_hash, client, created_at,
--     live_until, expires_at) -> none
WITH address AS (
    UPDATE addresses SET
        failures = $2,
        failures_since = $3,
        verify_failures = $4,
        verify_failures_since = $5,
        mails = $6,
        mails_since = $7,
        mailed_at = $8,
        asked = $9,
        asked_since = $10,
        asked_at = $11
    WHERE email_key = $1
)

INSERT INTO registrations (
    email_key, id, email, username, username_key, locale, password_hash, client, created_at, live_until, expires_at
)
VALUES ($1, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21);

-- name: save_address(
--     email_key, failures, failures_since, verify_failures, verify_failures_since, mails, mails_since, mailed_at,
--     asked, asked_since, asked_at, claims, live_until, expires_at, spent, purposes, code_failures) -> none
-- The counters, the times of the claims, and the tries spent on the codes of the claims `spent`.
WITH address AS (
    UPDATE addresses SET
        failures = $2,
        failures_since = $3,
        verify_failures = $4,
        verify_failures_since = $5,
        mails = $6,
        mails_since = $7,
        mailed_at = $8,
        asked = $9,
        asked_since = $10,
        asked_at = $11
    WHERE email_key = $1
),

claim AS (
    UPDATE registrations SET live_until = changed.live_until, expires_at = changed.expires_at
    FROM unnest($12::uuid[], $13::timestamptz[], $14::timestamptz[]) AS changed (id, live_until, expires_at)
    WHERE registrations.id = changed.id
)

UPDATE codes SET failures = spent.failures
FROM unnest($15::uuid[], $16::text[], $17::integer[]) AS spent (subject_id, purpose, failures)
WHERE codes.subject_id = spent.subject_id AND codes.purpose = spent.purpose;

-- name: drop_claims(ids) -> none
-- With their codes and with what was still to be mailed for them.
WITH claims AS (
    DELETE FROM registrations
    WHERE id = any($1::uuid[])
),

secrets AS (
    DELETE FROM codes
    WHERE subject_id = any($1::uuid[])
)

DELETE FROM outbox
WHERE subject_id = any($1::uuid[]) AND state IN ('ready', 'leased');

-- name: activate(email_key, id, password_hash, mac, activated_at, purpose, owner_password_hash) -> row
-- The code is used, the claim becomes the account, and every other claim of the address goes, or nothing happens.
-- `password_hash` is the claim's, `owner_password_hash` what the account begins with. `activated_at` is the clock that
-- the decision was made by, read under the lock. The used code stays, as a trace.
WITH used AS (
    UPDATE codes SET used_at = $5
    WHERE subject_id = $2 AND purpose = $6 AND mac = $4 AND used_at IS NULL AND expires_at > $5
    RETURNING subject_id
),

claims AS (
    DELETE FROM registrations
    WHERE
        email_key = $1
        AND EXISTS (
            SELECT FROM used INNER JOIN registrations AS mine ON used.subject_id = mine.id
            WHERE mine.email_key = $1 AND mine.password_hash = $3
        )
    RETURNING id, email, email_key, username, username_key, locale, created_at
),

secrets AS (
    DELETE FROM codes USING claims
    WHERE codes.subject_id = claims.id AND (codes.subject_id, codes.purpose) != ($2, $6)
),

mails AS (
    DELETE FROM outbox USING claims
    WHERE outbox.subject_id = claims.id AND outbox.state IN ('ready', 'leased')
),

account AS (
    INSERT INTO users (
        id, email, email_key, username, username_key, locale, password_hash, created_at, activated_at, updated_at
    )
    SELECT
        id,
        email,
        email_key,
        username,
        username_key,
        locale,
        $7 AS password_hash,
        created_at,
        $5 AS activated_at,
        $5 AS updated_at
    FROM claims
    WHERE id = $2
    ON CONFLICT DO NOTHING
    RETURNING id
)

SELECT
    exists(
        SELECT FROM claims
        WHERE id = $2
    ) AS proved,
    exists(SELECT FROM account) AS made;

-- name: insert_unnamed_user(id, email, email_key, locale, password_hash, created_at, activated_at) -> value
-- For an account whose username was taken since it was asked for.
INSERT INTO users (id, email, email_key, locale, password_hash, created_at, activated_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: username_taken(username_key) -> value
SELECT exists(
    SELECT FROM users
    WHERE username_key = $1
);

-- name: mail_status(registration) -> row
-- The newest mail with a registration's own code; no row where there is none.
SELECT
    outbox.state,
    codes.expires_at
FROM outbox
LEFT JOIN codes ON outbox.subject_id = codes.subject_id AND codes.purpose = 'activate' AND codes.used_at IS NULL
WHERE outbox.subject_id = $1 AND outbox.kind = 'mail' AND outbox.topic = 'activation'
ORDER BY outbox.created_at DESC, outbox.id DESC
LIMIT 1;
