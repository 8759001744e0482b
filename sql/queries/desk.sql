-- The outbox as an operator works on it.

-- name: list_mails(state, before, most) -> rows
SELECT
    id,
    topic,
    state,
    subject_id,
    attempts,
    created_at,
    not_before,
    not_after,
    sent_at,
    last_error,
    trace
FROM outbox
WHERE kind = 'mail' AND ($1::text IS NULL OR state = $1) AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC
LIMIT $3;

-- name: show_mail(id) -> row
SELECT
    id,
    topic,
    state,
    subject_id,
    attempts,
    created_at,
    not_before,
    not_after,
    sent_at,
    last_error,
    trace
FROM outbox
WHERE kind = 'mail' AND id = $1;

-- name: retry_mail(id, topics, lives, channel) -> row
-- A registration holds its address again when the code is minted, if it is still there by then.
WITH back AS (
    UPDATE outbox SET
        state = 'ready',
        attempts = 0,
        not_before = clock_timestamp(),
        not_after = clock_timestamp() + letter.life
    FROM unnest($2::text[], $3::interval[]) AS letter (topic, life)
    WHERE outbox.kind = 'mail' AND outbox.id = $1 AND outbox.state = 'dead' AND outbox.topic = letter.topic
    RETURNING outbox.id
)

SELECT pg_notify($4, '') FROM back;

-- name: discard_mail(id) -> row
DELETE FROM outbox
WHERE kind = 'mail' AND id = $1 AND state = 'dead' RETURNING id;
