-- How much there is of what operators watch.

-- name: count_outbox(most) -> row
-- Each state by its own index, and no further than `most` rows: a backlog must not make looking at it slow.
WITH ready AS MATERIALIZED (
    SELECT created_at FROM outbox
    WHERE state = 'ready'
    ORDER BY kind, not_before
    LIMIT $1
),

leased AS MATERIALIZED (
    SELECT created_at FROM outbox
    WHERE state = 'leased'
    ORDER BY lease_until
    LIMIT $1
),

dead AS MATERIALIZED (
    SELECT created_at FROM outbox
    WHERE state = 'dead'
    ORDER BY created_at
    LIMIT $1
)

SELECT
    (SELECT count(*) FROM ready) AS ready,
    (SELECT count(*) FROM leased) AS leased,
    (SELECT count(*) FROM dead) AS dead,
    clock_timestamp() - least(
        (SELECT min(created_at) FROM ready),
        (SELECT min(created_at) FROM leased)
    ) AS oldest;
