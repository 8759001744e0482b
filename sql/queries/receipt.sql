-- Requests with an Idempotency-Key: who does what one asks, and what was answered.
--
-- Taking, looking and giving back are transactions of their own; keeping is part of the one whose answer it keeps, and
-- comes last in it, so whoever waits for a row here waits for a commit and for nothing else.

-- name: take_slot(slot, body_mac, holder, lease, life) -> value
-- Nothing comes back where an answer is kept, or somebody is at work. The conflict locks the row before its clock is
-- read. A lapsed lease is nobody's: what its holder did not keep by then he never will, for this changes the holder.
INSERT INTO idempotency_keys AS held (slot, body_mac, holder, lease_until, expires_at)
VALUES ($1, $2, $3, clock_timestamp() + $4::interval, clock_timestamp() + $5::interval)
ON CONFLICT (slot) DO UPDATE
    SET
        body_mac = excluded.body_mac,
        holder = excluded.holder,
        lease_until = excluded.lease_until,
        strangers = 0,
        answer = NULL,
        expires_at = excluded.expires_at
    WHERE held.expires_at <= clock_timestamp() OR (held.answer IS NULL AND held.lease_until <= clock_timestamp())
RETURNING held.holder;

-- name: look_slot(slot, body_mac, strangers_max) -> row
-- What came with another body is counted under the row's lock: of many guesses at once, each is. Without the cap,
-- whoever knows somebody's key could try bodies (a password, a code) until one is answered as his was.
UPDATE idempotency_keys
SET
    strangers = CASE
        WHEN body_mac = $2 THEN strangers
        ELSE least(strangers + 1, $3::smallint + 1)
    END
WHERE
    slot = $1
    AND expires_at > clock_timestamp()
    AND (answer IS NOT NULL OR lease_until > clock_timestamp())
RETURNING
    body_mac = $2 AND strangers <= $3 AS same,
    answer;

-- name: give_slot_back(slot, holder) -> value
DELETE FROM idempotency_keys
WHERE slot = $1 AND holder = $2 AND answer IS NULL
RETURNING holder;

-- name: keep_answer(slot, holder, answer) -> value
UPDATE idempotency_keys SET answer = $3
WHERE slot = $1 AND holder = $2 AND answer IS NULL
RETURNING holder;
