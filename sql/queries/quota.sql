-- Buckets of rate limits: the arithmetic of regsvc/domain/quota.py, in whole microseconds since 1970.
-- Each statement locks the buckets of a request in their order, so that no two wait for each other.

-- name: take(buckets, costs, spans) -> rows
-- What a conflict sets is evaluated when the row's lock is held: the clock too, which is read once for each bucket.
-- What one seems to owe beyond its span was said by another clock, or by another policy: it is forgiven.
-- noqa: disable=RF01
WITH clock AS MATERIALIZED (SELECT (extract(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now)

INSERT INTO rate_limits AS held (bucket, whole_at, asked_at, allowed)
SELECT
    asked.bucket,
    clock.now + asked.cost AS whole_at,
    clock.now AS asked_at,
    true AS allowed
FROM unnest($1::text[], $2::bigint[]) AS asked (bucket, cost)
CROSS JOIN clock
ORDER BY asked.bucket
ON CONFLICT (bucket) DO UPDATE
    SET (whole_at, asked_at, allowed) = (
        WITH seen AS MATERIALIZED (
            SELECT
                (extract(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now,
                held.whole_at
        ),

        owed AS (
            SELECT
                seen.now,
                asked.cost,
                asked.span,
                least(greatest(seen.whole_at - seen.now, 0), asked.span) AS debt
            FROM seen
            CROSS JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) AS asked (bucket, cost, span)
            WHERE asked.bucket = excluded.bucket
        )

        SELECT
            now + debt + CASE WHEN debt + cost <= span THEN cost ELSE 0 END AS whole_at,
            now AS asked_at,
            debt + cost <= span AS allowed
        FROM owed
    )
RETURNING held.bucket, held.whole_at - held.asked_at AS debt, held.allowed;
-- noqa: enable=all

-- name: give_back(buckets, costs) -> none
WITH held AS MATERIALIZED (
    SELECT bucket
    FROM rate_limits
    WHERE bucket = any($1::text[])
    ORDER BY bucket
    FOR UPDATE
)

UPDATE rate_limits SET whole_at = rate_limits.whole_at - given.cost
FROM held
INNER JOIN unnest($1::text[], $2::bigint[]) AS given (bucket, cost) ON held.bucket = given.bucket
WHERE rate_limits.bucket = held.bucket;
