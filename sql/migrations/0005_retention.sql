-- The audit trail by months, and whose turn it is to sweep.

CREATE TABLE turns (
    name text PRIMARY KEY,
    taken_at timestamptz NOT NULL
);
COMMENT ON TABLE turns IS 'When somebody last did what one process at a time should do.';

-- Which time each partition of the trail is for. A partition's name says nothing here: it may have been made by hand.
CREATE VIEW events_partitions AS
WITH bounds AS (
    SELECT
        pg_class.oid::regclass::text AS partition,
        pg_get_expr(pg_class.relpartbound, pg_class.oid) AS words
    FROM pg_inherits
    INNER JOIN pg_class ON pg_inherits.inhrelid = pg_class.oid
    WHERE pg_inherits.inhparent = 'events'::regclass
)

SELECT
    partition,
    coalesce(substring(words FROM 'FROM \(''([^'']+)''\)')::timestamptz, '-infinity') AS begins_at,
    coalesce(substring(words FROM 'TO \(''([^'']+)''\)')::timestamptz, 'infinity') AS ends_at
FROM bounds
WHERE words <> 'DEFAULT';
COMMENT ON VIEW events_partitions IS 'The partitions of the audit trail, but for the default one, and their times.';

-- What has fallen into the default partition goes along, so that it is empty but for what nobody made room for in time.
-- Attaching takes no lock that a writer of the trail waits for, unless it writes into the default partition; creating
-- the table as a partition at once would lock the whole trail. Months are those of UTC, whatever the session's zone.
CREATE FUNCTION make_events_partition(month timestamptz, most integer) RETURNS bigint
LANGUAGE plpgsql
SET timezone = 'UTC'
SET lock_timeout = '100ms'
AS $$
DECLARE
    next_month CONSTANT timestamptz := month + interval '1 month';
    name CONSTANT text := 'events_' || to_char(month, 'YYYY_MM');
    fallen bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('regsvc events', 0)) THEN
        RETURN NULL; -- somebody else is at it
    END IF;
    IF to_regclass(quote_ident(name)) IS NOT NULL OR EXISTS (
        SELECT FROM events_partitions WHERE begins_at < next_month AND ends_at > month
    ) THEN
        RETURN NULL;
    END IF;
    SELECT count(*) INTO fallen
    FROM (SELECT FROM events_default WHERE at >= month AND at < next_month LIMIT most + 1) AS those;
    IF fallen > most THEN
        RETURN NULL; -- moving so many would keep writers waiting
    END IF;
    LOCK TABLE events_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', name);
    EXECUTE format(
        'WITH fallen AS (DELETE FROM events_default WHERE at >= $1 AND at < $2 RETURNING *)'
        ' INSERT INTO %I SELECT * FROM fallen', name
    ) USING month, next_month;
    GET DIAGNOSTICS fallen = ROW_COUNT;
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, month, next_month);
    RETURN fallen;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN NULL; -- tried again at the next sweep
END
$$;
COMMENT ON FUNCTION make_events_partition IS 'Make it unless it is there; how many rows went along, null: not made.';

-- DETACH CONCURRENTLY would wait for nobody, but neither works within a transaction, which a function always is, nor
-- beside a default partition. So this locks the whole trail, for some milliseconds, once it got the lock: it gives up
-- before that keeps writers waiting for longer than they notice.
CREATE FUNCTION drop_events_partition(which text, kept interval) RETURNS boolean
LANGUAGE plpgsql
SET timezone = 'UTC'
SET lock_timeout = '100ms'
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('regsvc events', 0)) THEN
        RETURN FALSE;
    END IF;
    IF NOT EXISTS (
        SELECT FROM events_partitions WHERE partition = which AND ends_at <= statement_timestamp() - kept
    ) THEN
        RETURN FALSE;
    END IF;
    EXECUTE 'DROP TABLE ' || which;
    RETURN TRUE;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN FALSE;
END
$$;
COMMENT ON FUNCTION drop_events_partition IS 'Drop it if all of it is older than that; whether it was dropped.';

-- What the trail has so far becomes one partition, as it is: no row is copied. It is read once under the lock, which
-- takes about 0.1 s for a million rows. From next month on each month has its own.
DO $$
DECLARE
    next_month CONSTANT timestamp := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 month';
    last_at timestamptz;
    name CONSTANT text := 'events_until_' || to_char(next_month, 'YYYY_MM');
    index_name text;
BEGIN
    LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
    SELECT max(at) INTO last_at FROM events_default;
    IF last_at IS NULL OR last_at >= next_month AT TIME ZONE 'UTC' THEN
        RETURN; -- nothing, or a clock was wrong once: the sweeper finds room for it
    END IF;
    ALTER TABLE events DETACH PARTITION events_default;
    FOR index_name IN
        SELECT indexes.relname FROM pg_index INNER JOIN pg_class AS indexes ON pg_index.indexrelid = indexes.oid
        WHERE pg_index.indrelid = 'events_default'::regclass
    LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', index_name, replace(index_name, 'events_default', name));
    END LOOP;
    EXECUTE format('ALTER TABLE events_default RENAME TO %I', name);
    EXECUTE format(
        'ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
        name, next_month AT TIME ZONE 'UTC'
    );
    CREATE TABLE events_default PARTITION OF events DEFAULT;
END
$$;

WITH months AS (
    SELECT date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') + n * interval '1 month' AS month
    FROM generate_series(0, 2) AS n
)

SELECT make_events_partition(month AT TIME ZONE 'UTC', 20000)
FROM months;
