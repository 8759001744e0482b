-- What must leave the service.
--
-- Order of locks: whoever needs more than one row takes the address or, for a letter to an account, the account first
-- (lock_claim, lock_account), as everybody does; all others pass over rows that somebody holds. So nobody waits in a
-- circle.
-- A parcel's `attempts` and `leased_at` are its fence: with a lapsed lease no statement here finds its row.

-- name: add(
--     mails, topics, mail_subjects, payloads, lives, trace, events, names, event_subjects, actors, ips, data, channel,
--     origin) -> none
-- `origin` says who notifies, so that a process does not wake itself again.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS observed_at
),

mail AS (
    INSERT INTO outbox (id, kind, topic, subject_id, payload, trace, created_at, not_before, not_after)
    SELECT
        mails.id,
        'mail' AS kind,
        mails.topic,
        mails.subject_id,
        mails.payload,
        $6 AS trace,
        clock.observed_at AS created_at,
        clock.observed_at AS not_before,
        clock.observed_at + mails.life AS not_after
    FROM
        unnest($1::uuid[], $2::text[], $3::uuid[], $4::jsonb[], $5::interval[])
            AS mails (id, topic, subject_id, payload, life)
    CROSS JOIN clock
),

event AS (
    INSERT INTO events (id, at, name, subject_id, actor, ip, data)
    SELECT
        events.id,
        clock.observed_at,
        events.name,
        events.subject_id,
        events.actor,
        events.ip,
        events.data
    FROM
        unnest($7::uuid[], $8::text[], $9::uuid[], $10::uuid[], $11::text[], $12::jsonb[])
            AS events (id, name, subject_id, actor, ip, data)
    CROSS JOIN clock
)

SELECT pg_notify($13, $14)
WHERE cardinality($1::uuid[]) > 0;

-- name: lease(most, lease, topics) -> rows
-- Letters that this version does not know are for the one that wrote them.
-- statement_timestamp() may bound an index scan, clock_timestamp() may not; nothing is waited for, so it is as good.
WITH due AS MATERIALIZED (
    SELECT id
    FROM outbox
    WHERE
        kind = 'mail'
        AND state = 'ready'
        AND not_before <= statement_timestamp()
        AND topic = any($3::text[])
    ORDER BY not_before
    LIMIT $1
    FOR UPDATE SKIP LOCKED
),

taken AS (
    UPDATE outbox SET
        state = 'leased',
        attempts = outbox.attempts + 1,
        leased_at = statement_timestamp(),
        lease_until = statement_timestamp() + $2::interval
    FROM due
    WHERE outbox.id = due.id
    RETURNING
        outbox.id,
        outbox.topic,
        outbox.subject_id,
        outbox.payload,
        outbox.trace,
        outbox.attempts,
        outbox.created_at,
        outbox.leased_at,
        outbox.not_before,
        outbox.not_after
)

SELECT
    id,
    topic,
    subject_id,
    payload,
    trace,
    attempts,
    created_at,
    leased_at,
    not_after
FROM taken
ORDER BY not_before, id;

-- name: reclaim(since, seen, least, most) -> row
-- For nobody who has not been here all the time, by this clock: what was sent through an outage is written down first,
-- and a call that was on its way while all stood still comes as late as that outage was long.
WITH lapsed AS MATERIALIZED (
    SELECT id FROM outbox
    WHERE
        state = 'leased'
        AND lease_until < statement_timestamp()
        AND clock_timestamp() BETWEEN $1::timestamptz + $3::interval AND $2::timestamptz + $4::interval
    FOR UPDATE SKIP LOCKED
),

back AS (
    UPDATE outbox SET state = 'ready', lease_until = NULL
    FROM lapsed
    WHERE outbox.id = lapsed.id
    RETURNING outbox.id
)

SELECT
    clock_timestamp() AS at,
    count(*) AS mails
FROM back;

-- name: next_due(topics) -> value
SELECT greatest(not_before - clock_timestamp(), interval '0') AS wait
FROM outbox
WHERE kind = 'mail' AND state = 'ready' AND topic = any($1::text[])
ORDER BY not_before
LIMIT 1;

-- name: renew(ids, attempts, leased_at, lease) -> none
-- Rows that somebody holds are passed over: they are being settled, or the next renewal finds them.
WITH mine AS MATERIALIZED (
    SELECT outbox.id
    FROM outbox
    INNER JOIN unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS parcel (id, attempts, leased_at)
        ON outbox.id = parcel.id AND outbox.attempts = parcel.attempts AND outbox.leased_at = parcel.leased_at
    WHERE outbox.state = 'leased'
    FOR UPDATE OF outbox SKIP LOCKED
)

UPDATE outbox SET lease_until = clock_timestamp() + $4::interval
FROM mine
WHERE outbox.id = mine.id;

-- name: lock_claim(subject) -> none
-- Lock the address of a registration, as lock_address does; nothing where the registration is gone.
INSERT INTO addresses AS address (email_key)
SELECT email_key FROM registrations
WHERE id = $1
ON CONFLICT (email_key) DO UPDATE
    SET touched_at = CASE
        WHEN address.touched_at < clock_timestamp() - interval '1 hour' THEN clock_timestamp()
        ELSE address.touched_at
    END;

-- name: mint_for_claim(id, attempts, leased_at, macs, lifetimes, purposes) -> row
-- Under the address's lock. A parcel whose registration is gone or over, or after which a newer one of its kind is on
-- the way, is deleted; one whose lease is lost is left alone. No row in all these cases. The first secret is the
-- letter's code, others are beside it. The registration's own code holds the address, no other secret does. Where the
-- address has an account, it goes there.
-- The clock is read once both rows are held: in the locking CTEs it would be read before the wait.
WITH parcel AS MATERIALIZED (
    SELECT
        id,
        subject_id,
        topic,
        created_at
    FROM outbox
    WHERE id = $1 AND state = 'leased' AND attempts = $2 AND leased_at = $3
    FOR UPDATE
),

claim AS MATERIALIZED (
    SELECT
        registrations.id,
        registrations.email,
        registrations.email_key,
        registrations.username,
        registrations.locale,
        registrations.expires_at
    FROM registrations
    INNER JOIN parcel ON registrations.id = parcel.subject_id
    FOR UPDATE OF registrations
),

clock AS MATERIALIZED (
    SELECT
        claim.id,
        clock_timestamp() AS observed_at
    FROM claim
),

good AS MATERIALIZED (
    SELECT
        claim.id,
        claim.email,
        claim.email_key,
        claim.username,
        claim.locale,
        clock.observed_at
    FROM claim
    INNER JOIN clock ON claim.id = clock.id
    WHERE
        claim.expires_at > clock.observed_at
        AND NOT EXISTS (
            SELECT FROM outbox AS newer
            INNER JOIN parcel ON newer.subject_id = parcel.subject_id AND newer.topic = parcel.topic
            WHERE newer.state IN ('ready', 'leased') AND (newer.created_at, newer.id) > (parcel.created_at, parcel.id)
        )
),

code AS (
    INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at)
    SELECT
        good.id AS subject_id,
        secret.purpose,
        secret.mac,
        good.observed_at AS minted_at,
        good.observed_at + secret.lifetime AS expires_at
    FROM good
    CROSS JOIN unnest($4::bytea[], $5::interval[], $6::text[]) AS secret (mac, lifetime, purpose)
    ON CONFLICT (subject_id, purpose) DO UPDATE
        SET
            mac = excluded.mac,
            minted_at = excluded.minted_at,
            expires_at = excluded.expires_at,
            failures = 0,
            used_at = NULL
    RETURNING subject_id, purpose, expires_at
),

registration AS (
    UPDATE registrations SET live_until = code.expires_at
    FROM code
    WHERE registrations.id = code.subject_id AND code.purpose = 'activate'
),

refused AS (
    DELETE FROM outbox USING parcel
    WHERE outbox.id = parcel.id AND NOT EXISTS (SELECT FROM good)
)

SELECT
    code.expires_at,
    users.id IS NOT NULL AS owned,
    coalesce(users.email, good.email) AS email,
    CASE WHEN users.id IS NULL THEN good.username ELSE users.username END AS username,
    CASE WHEN users.id IS NULL THEN good.locale ELSE users.locale END AS locale
FROM good
INNER JOIN code ON good.id = code.subject_id AND code.purpose = ($6::text[])[1]
LEFT JOIN users ON good.email_key = users.email_key;

-- name: lock_account(subject) -> none
SELECT FROM users
WHERE id = $1
FOR NO KEY UPDATE;

-- name: mint_for_account(id, attempts, leased_at, mac, lifetime, purpose) -> row
-- Under the account's lock. A parcel whose account is gone or disabled, or after which a newer one of its kind is on
-- the way, is deleted; one whose lease is lost is left alone. No row in all these cases. A code for a change of address
-- goes there, and is not sent when the change would not last as long as the code.
-- The clock is read once the parcel is held.
WITH parcel AS MATERIALIZED (
    SELECT
        id,
        subject_id,
        topic,
        created_at
    FROM outbox
    WHERE id = $1 AND state = 'leased' AND attempts = $2 AND leased_at = $3
    FOR UPDATE
),

clock AS MATERIALIZED (
    SELECT
        id,
        clock_timestamp() AS observed_at
    FROM parcel
),

good AS MATERIALIZED (
    SELECT
        users.id,
        CASE WHEN $6 = 'change_email' THEN email_changes.email ELSE users.email END AS email,
        users.username,
        users.locale,
        clock.observed_at
    FROM parcel
    INNER JOIN clock ON parcel.id = clock.id
    INNER JOIN users ON parcel.subject_id = users.id
    LEFT JOIN email_changes ON users.id = email_changes.user_id
    WHERE
        users.disabled_at IS NULL
        AND ($6 != 'change_email' OR email_changes.expires_at >= clock.observed_at + $5::interval)
        AND NOT EXISTS (
            SELECT FROM outbox AS newer
            WHERE
                newer.subject_id = parcel.subject_id
                AND newer.topic = parcel.topic
                AND newer.state IN ('ready', 'leased')
                AND (newer.created_at, newer.id) > (parcel.created_at, parcel.id)
        )
),

code AS (
    INSERT INTO codes (subject_id, purpose, mac, minted_at, expires_at)
    SELECT
        id AS subject_id,
        $6 AS purpose,
        $4::bytea AS mac,
        observed_at AS minted_at,
        observed_at + $5::interval AS expires_at
    FROM good
    ON CONFLICT (subject_id, purpose) DO UPDATE
        SET
            mac = excluded.mac,
            minted_at = excluded.minted_at,
            expires_at = excluded.expires_at,
            failures = 0,
            used_at = NULL
    RETURNING subject_id, expires_at
),

refused AS (
    DELETE FROM outbox USING parcel
    WHERE outbox.id = parcel.id AND NOT EXISTS (SELECT FROM good)
)

SELECT
    good.email,
    good.username,
    good.locale,
    code.expires_at,
    FALSE AS owned
FROM good
INNER JOIN code ON good.id = code.subject_id;

-- name: address(id, attempts, leased_at) -> row
-- Whom a notice is for. Where the account is gone its parcel is deleted; nothing else is written, so nothing but the
-- parcel is held.
WITH parcel AS MATERIALIZED (
    SELECT
        id,
        subject_id
    FROM outbox
    WHERE id = $1 AND state = 'leased' AND attempts = $2 AND leased_at = $3
),

account AS MATERIALIZED (
    SELECT
        users.email,
        users.username,
        users.locale
    FROM parcel
    INNER JOIN users ON parcel.subject_id = users.id
),

refused AS (
    DELETE FROM outbox USING parcel
    WHERE outbox.id = parcel.id AND NOT EXISTS (SELECT FROM account)
)

SELECT
    email,
    username,
    locale
FROM account;

-- name: done(ids, attempts, leased_at, channel) -> none
-- Waits for rows that somebody holds: whoever does waits for no other, and nobody else has the fences of these.
WITH sent AS (
    UPDATE outbox SET state = 'sent', sent_at = clock_timestamp(), lease_until = NULL
    FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS parcel (id, attempts, leased_at)
    WHERE
        outbox.id = parcel.id
        AND outbox.state = 'leased'
        AND outbox.attempts = parcel.attempts
        AND outbox.leased_at = parcel.leased_at
    RETURNING outbox.subject_id
)

SELECT pg_notify($4, subject_id::text) FROM sent;

-- name: again(id, attempts, leased_at, wait, reason, refund, on_the_way) -> none
-- Under the address's lock where it is a registration's own mail. Minting let that live as long as the code; the mail
-- is on the way again, so it lives as long as that allows.
WITH back AS (
    UPDATE outbox SET
        state = 'ready',
        attempts = attempts - $6::boolean::integer,
        not_before = clock_timestamp() + $4::interval,
        lease_until = NULL,
        last_error = $5
    WHERE id = $1 AND state = 'leased' AND attempts = $2 AND leased_at = $3
    RETURNING topic, subject_id, least(not_after, created_at + $7::interval) AS live_until
)

UPDATE registrations SET live_until = greatest(registrations.live_until, back.live_until)
FROM back
WHERE registrations.id = back.subject_id AND back.topic = 'activation';

-- name: bury(id, attempts, leased_at, reason, refund, channel) -> none
-- Under the address's lock where it is a registration's own mail: that no longer holds the address, but for a code
-- that may be in somebody's hands, or another such mail on the way.
WITH buried AS (
    UPDATE outbox SET state = 'dead', attempts = attempts - $5::boolean::integer, lease_until = NULL, last_error = $4
    WHERE id = $1 AND state = 'leased' AND attempts = $2 AND leased_at = $3
    RETURNING id, topic, subject_id
),

others AS (
    SELECT outbox.id FROM outbox
    INNER JOIN buried
        ON outbox.subject_id = buried.subject_id AND outbox.topic = buried.topic AND outbox.id != buried.id
    WHERE outbox.state IN ('ready', 'leased')
),

ended AS (
    UPDATE registrations SET
        live_until = least(
            live_until,
            greatest(
                clock_timestamp(),
                (
                    SELECT codes.expires_at FROM codes
                    WHERE codes.subject_id = registrations.id AND codes.purpose = 'activate' AND codes.used_at IS NULL
                )
            )
        )
    FROM buried
    WHERE
        registrations.id = buried.subject_id AND buried.topic = 'activation' AND NOT EXISTS (SELECT FROM others)
)

SELECT pg_notify($6, subject_id::text) FROM buried;

-- name: counts() -> rows
-- One row.
SELECT
    (
        SELECT count(*) FROM outbox
        WHERE kind = 'mail' AND state = 'ready'
    ) AS ready,
    (
        SELECT count(*) FROM outbox
        WHERE kind = 'mail' AND state = 'leased'
    ) AS leased,
    (
        SELECT count(*) FROM outbox
        WHERE kind = 'mail' AND state = 'dead'
    ) AS dead,
    clock_timestamp() - least(
        (
            SELECT min(created_at) FROM outbox
            WHERE kind = 'mail' AND state = 'ready'
        ),
        (
            SELECT min(created_at) FROM outbox
            WHERE kind = 'mail' AND state = 'leased'
        )
    ) AS oldest;
