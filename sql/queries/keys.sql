-- Signing keys: a handful of rows.

-- name: list_keys() -> rows
-- One row without a kid where there are none: the clock is told all the same.
SELECT
    clock_timestamp() AS observed_at,
    signing_keys.kid,
    signing_keys.algorithm,
    signing_keys.public,
    signing_keys.sealed_private,
    signing_keys.created_at,
    signing_keys.not_before,
    signing_keys.retired_at
FROM (VALUES (1)) AS always (one)
LEFT JOIN signing_keys ON always.one = 1
ORDER BY signing_keys.not_before DESC, signing_keys.kid ASC;

-- name: lock_keys(key) -> none
-- Of the transaction. Whoever makes a key holds it, so that the next one sees that key.
SELECT pg_advisory_xact_lock($1);

-- name: first_key(kid, algorithm, public, sealed) -> value
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS observed_at
)

INSERT INTO signing_keys (kid, algorithm, public, sealed_private, created_at, not_before)
SELECT
    $1 AS kid,
    $2 AS algorithm,
    $3::jsonb AS public,
    $4 AS sealed_private,
    observed_at AS created_at,
    observed_at AS not_before
FROM clock
WHERE
    NOT EXISTS (
        SELECT FROM signing_keys AS other
        WHERE other.algorithm = $2 AND (other.retired_at IS NULL OR other.retired_at > clock.observed_at)
    )
RETURNING kid;

-- name: rotate_key(kid, algorithm, public, sealed, lead, overlap, channel) -> value
-- A key that retires sooner already goes on to do so.
WITH clock AS MATERIALIZED (
    SELECT clock_timestamp() AS observed_at
),

made AS (
    INSERT INTO signing_keys (kid, algorithm, public, sealed_private, created_at, not_before)
    SELECT
        $1 AS kid,
        $2 AS algorithm,
        $3::jsonb AS public,
        $4 AS sealed_private,
        observed_at AS created_at,
        observed_at + $5::interval AS not_before
    FROM clock
    RETURNING kid, not_before
),

others AS (
    UPDATE signing_keys SET retired_at = least(signing_keys.retired_at, made.not_before + $6::interval)
    FROM made
    WHERE signing_keys.kid != made.kid
)

SELECT
    not_before,
    pg_notify($7, '') AS told
FROM made;

-- name: reseal_key(kid, sealed) -> none
UPDATE signing_keys SET sealed_private = $2
WHERE kid = $1;

-- name: prune_keys() -> value
WITH gone AS (
    DELETE FROM signing_keys
    WHERE retired_at < clock_timestamp() - interval '1 day'
    RETURNING kid
)

SELECT count(*) FROM gone;
