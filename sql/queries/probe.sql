-- Whether the database is there.

-- name: ping() -> value
SELECT 1;
