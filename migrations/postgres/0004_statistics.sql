-- Statistics: roll-ups, filled in the transactions that store what they count, and the views on them. What is read most
-- stands first in the keys: the time.

-- Upper bounds of the buckets of histograms: 0.1 ms, and each 1.05 times the one before, up to the first over 10 s. What
-- is slower is in the last bucket. The program makes the same bounds by the same multiplications.
CREATE TABLE webhook_histogram_bounds (
    bucket   integer          NOT NULL PRIMARY KEY,
    lower_ms double precision NOT NULL,
    upper_ms double precision -- none of the last
);
WITH RECURSIVE bounds (bucket, lower_ms, upper_ms) AS (
    SELECT 0, 0::double precision, 0.1::double precision
    UNION ALL
    SELECT bucket + 1, upper_ms, CASE WHEN bucket < 236 THEN upper_ms * 1.05::double precision END
    FROM bounds WHERE bucket < 237
)
INSERT INTO webhook_histogram_bounds SELECT * FROM bounds;

-- Requests by path and minute, as they were answered. The n-th element of `histogram` counts bucket n - 1; what is
-- missing at the end is 0. Rows are written again and again for a minute: with room on the page for new versions.
CREATE TABLE webhook_performance_metrics (
    webhook_source text             COLLATE "C" NOT NULL,
    endpoint_path  text             COLLATE "C" NOT NULL,
    bucket_start   timestamptz      NOT NULL,
    request_count  bigint           NOT NULL,
    success_count  bigint           NOT NULL, -- 2xx
    failure_count  bigint           NOT NULL, -- 5xx
    sum_ms         double precision NOT NULL,
    max_ms         double precision NOT NULL,
    histogram      bigint[]         NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source, endpoint_path)
) WITH (fillfactor = 50);

CREATE FUNCTION add_histograms(one bigint[], two bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(coalesce(sums.one, 0) + coalesce(sums.two, 0) ORDER BY sums.bucket), '{}')
    FROM unnest(one, two) WITH ORDINALITY AS sums (one, two, bucket)
$$;

-- Requests by what statistics of security tell apart, and minute.
CREATE TABLE webhook_security_metrics (
    webhook_source   text        COLLATE "C" NOT NULL,
    bucket_start     timestamptz NOT NULL,
    signature_status text        COLLATE "C" NOT NULL,
    http_status      integer     NOT NULL,
    suspicious       boolean     NOT NULL,
    reason           text        COLLATE "C" NOT NULL, -- empty where there is nothing to say
    request_count    bigint      NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source, signature_status, http_status, suspicious, reason)
) WITH (fillfactor = 70);

-- Refused requests by address and minute.
CREATE TABLE webhook_refused_addresses (
    webhook_source text        COLLATE "C" NOT NULL,
    bucket_start   timestamptz NOT NULL,
    source_ip      text        COLLATE "C" NOT NULL,
    request_count  bigint      NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source, source_ip)
) WITH (fillfactor = 70);

-- Inbound messages by sender and hour: handed out, and parked because the sender was over the limit. Senders without a
-- phone number are counted together, under the empty one.
CREATE TABLE webhook_rate_limits (
    tenant_id      text        COLLATE "C" NOT NULL,
    webhook_source text        COLLATE "C" NOT NULL,
    phone_number   text        COLLATE "C" NOT NULL,
    window_start   timestamptz NOT NULL,
    window_end     timestamptz NOT NULL,
    request_count  bigint      NOT NULL,
    blocked_count  bigint      NOT NULL,
    PRIMARY KEY (window_start, tenant_id, webhook_source, phone_number)
) WITH (fillfactor = 70);

-- Inbound messages by minute that were not handed out as they came: parked because their sender was over the limit, or
-- come again when the gateway had forgotten them.
CREATE TABLE webhook_message_metrics (
    webhook_source  text        COLLATE "C" NOT NULL,
    bucket_start    timestamptz NOT NULL,
    throttled_count bigint      NOT NULL,
    late_count      bigint      NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source)
) WITH (fillfactor = 70);

-- The windows that reach into the last 24 hours.
CREATE VIEW webhook_rate_limit_stats AS
SELECT webhook_source, phone_number, sum(request_count + blocked_count)::bigint AS total_requests,
       sum(blocked_count)::bigint AS times_blocked
FROM webhook_rate_limits
WHERE window_start > now() - interval '25 hours' AND window_end > now() - interval '24 hours' AND phone_number <> ''
GROUP BY webhook_source, phone_number;

-- A percentile lies in the first bucket up to which there are enough requests, and is interpolated within it.
CREATE VIEW webhook_performance_stats AS
WITH hours AS (
    SELECT webhook_source, endpoint_path, date_trunc('hour', bucket_start AT TIME ZONE 'UTC') AS hour,
           sum(request_count)::bigint AS request_count, sum(success_count)::double precision AS success_count,
           sum(failure_count)::double precision AS failure_count, sum(sum_ms) AS sum_ms, max(max_ms) AS max_ms
    FROM webhook_performance_metrics GROUP BY 1, 2, 3
), buckets AS (
    SELECT webhook_source, endpoint_path, date_trunc('hour', bucket_start AT TIME ZONE 'UTC') AS hour,
           counted.bucket - 1 AS bucket, sum(counted.requests)::double precision AS requests
    FROM webhook_performance_metrics
    CROSS JOIN LATERAL unnest(histogram) WITH ORDINALITY AS counted (requests, bucket)
    WHERE counted.requests > 0 GROUP BY 1, 2, 3, 4
), running AS (
    SELECT webhook_source, endpoint_path, hour, bucket, requests,
           sum(requests) OVER (PARTITION BY webhook_source, endpoint_path, hour ORDER BY bucket) AS up_to,
           sum(requests) OVER (PARTITION BY webhook_source, endpoint_path, hour) AS total
    FROM buckets
), ends AS (
    SELECT running.*, hours.max_ms, bounds.lower_ms, least(bounds.upper_ms, hours.max_ms) AS upper_ms
    FROM running JOIN hours USING (webhook_source, endpoint_path, hour)
    JOIN webhook_histogram_bounds AS bounds USING (bucket)
), percentiles AS (
    SELECT webhook_source, endpoint_path, hour,
           max(lower_ms + (upper_ms - lower_ms) * (0.95 * total - up_to + requests) / requests)
               FILTER (WHERE up_to >= 0.95 * total AND up_to - requests < 0.95 * total) AS p95,
           max(lower_ms + (upper_ms - lower_ms) * (0.99 * total - up_to + requests) / requests)
               FILTER (WHERE up_to >= 0.99 * total AND up_to - requests < 0.99 * total) AS p99
    FROM ends GROUP BY 1, 2, 3
)
SELECT webhook_source, endpoint_path, hour, request_count, sum_ms / nullif(request_count, 0) AS avg_response_time_ms,
       p95 AS p95_response_time_ms, p99 AS p99_response_time_ms,
       coalesce(100 * success_count / nullif(success_count + failure_count, 0), 100) AS success_rate
FROM hours LEFT JOIN percentiles USING (webhook_source, endpoint_path, hour);

CREATE VIEW webhook_security_stats AS
SELECT webhook_source, date_trunc('hour', bucket_start AT TIME ZONE 'UTC') AS hour,
       sum(request_count)::bigint AS total_requests,
       coalesce(sum(request_count) FILTER (WHERE signature_status = 'valid'), 0)::bigint AS valid_signatures,
       coalesce(sum(request_count) FILTER (WHERE signature_status NOT IN ('valid', 'skipped')), 0)::bigint
           AS invalid_signatures,
       coalesce(sum(request_count) FILTER (WHERE suspicious), 0)::bigint AS suspicious_requests
FROM webhook_security_metrics GROUP BY 1, 2;
