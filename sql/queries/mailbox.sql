-- The development mailbox.

-- name: put_mail(id, sender, recipient, subject, body_text, body_html, raw) -> none
INSERT INTO mailbox (id, at, sender, recipient, subject, body_text, body_html, raw)
VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7);

-- name: count_mails(recipient) -> value
SELECT count(*) FROM mailbox
WHERE $1::text IS NULL OR lower(recipient) = lower($1);

-- name: list_mails(recipient, start, most) -> rows
SELECT
    id,
    at,
    sender,
    recipient,
    subject,
    body_text,
    body_html,
    raw
FROM mailbox
WHERE $1::text IS NULL OR lower(recipient) = lower($1)
ORDER BY id DESC
LIMIT $3 OFFSET $2;

-- name: show_mail(id) -> row
SELECT
    id,
    at,
    sender,
    recipient,
    subject,
    body_text,
    body_html,
    raw
FROM mailbox
WHERE id = $1;

-- name: remove_mail(id) -> row
DELETE FROM mailbox
WHERE id = $1 RETURNING id;

-- name: clear() -> value
WITH gone AS (
    DELETE FROM mailbox RETURNING id
)

SELECT count(*) FROM gone;
