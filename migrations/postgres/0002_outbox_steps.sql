-- The two steps of the outbox publisher, each in one call: between webhook and event every round trip counts.

-- Moves the head of the feed over at most `at_most` events; returns over how many, or null if `own_fence` is not the
-- newest. Each statement sees what was committed before it, so what is read after the lock is as it is now.
CREATE FUNCTION sequence_outbox(own_fence bigint, at_most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    old_head bigint;
    new_head bigint;
    moved bigint;
BEGIN
    SELECT sequencer.fence INTO newest FROM sequencer;
    IF newest <> own_fence THEN
        RETURN NULL;
    END IF;
    -- Nearly always nobody is waiting or everybody is: no lock for a look.
    IF NOT EXISTS (SELECT FROM outbox WHERE position > (SELECT head FROM feed)) THEN
        RETURN 0;
    END IF;
    SELECT sequencer.fence, feed.head INTO newest, old_head
        FROM feed, sequencer FOR UPDATE OF feed FOR SHARE OF sequencer;
    IF newest <> own_fence THEN
        RETURN NULL;
    END IF;
    SELECT max(next.position), count(*) INTO new_head, moved
        FROM (SELECT position FROM outbox WHERE position > old_head ORDER BY position LIMIT at_most) AS next;
    IF moved > 0 THEN
        UPDATE feed SET head = new_head;
    END IF;
    RETURN moved;
END $$;

-- Claims at most `at_most` sequenced events of at most `page_bytes` for `own_owner`, and returns them in order. Only the
-- first `front` rows are looked at. Its commit is not waited for: a claim that a crash forgets is made again, and the bus
-- drops what is published twice.
CREATE FUNCTION claim_outbox(own_owner uuid, at_most bigint, lease interval, front bigint, page_bytes bigint)
RETURNS TABLE (
    "position" bigint, tenant text, key bytea, event_type text, occurred_at timestamptz, number text, conversation uuid,
    partition smallint, revision integer, data bytea
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    claimed bigint[];
    received timestamptz[];
    clock timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(8239742002), set_config('synchronous_commit', 'off', true);
    clock := clock_timestamp();
    WITH looked_at AS MATERIALIZED (
        SELECT o.position, o.partition, o.bytes, o.owner, o.until FROM outbox AS o
        WHERE o.position <= (SELECT head FROM feed) ORDER BY o.position LIMIT front
    ), held AS (
        SELECT DISTINCT l.partition FROM looked_at AS l WHERE l.owner <> own_owner AND l.until > clock
    ), free AS (
        SELECT l.position, l.bytes FROM looked_at AS l
        WHERE (l.owner IS NULL OR l.until <= clock)
            AND NOT EXISTS (SELECT FROM held WHERE held.partition = l.partition)
        ORDER BY l.position LIMIT at_most
    ), page AS (
        SELECT f.position, sum(f.bytes) OVER (ORDER BY f.position) - f.bytes AS before FROM free AS f
    ), taken AS (
        UPDATE outbox SET owner = own_owner, until = clock + lease
        FROM page WHERE outbox.position = page.position AND page.before < page_bytes
        RETURNING outbox.position, outbox.received_at
    )
    SELECT array_agg(t.position), array_agg(t.received_at) INTO claimed, received FROM taken AS t;
    -- One event at a time, each in the one partition where it lies.
    RETURN QUERY
        SELECT e.position, e.tenant, e.key, e.event_type, e.occurred_at, e.number, e.conversation, e.partition,
            e.revision, e.data
        FROM unnest(claimed, received) AS c (position, received_at)
        CROSS JOIN LATERAL (
            SELECT * FROM events WHERE events.position = c.position AND events.received_at = c.received_at LIMIT 1
        ) AS e
        ORDER BY e.position;
END $$;
