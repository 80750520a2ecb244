-- Statistics: roll-ups, filled in the transactions that store what they count, and the views on them. What is read most
-- stands first in the keys: the time.

CREATE INDEX messages_created_at ON messages (created_at);

-- Upper bounds of the buckets of histograms: 0.1 ms, and each 1.05 times the one before, up to the first over 10 s. What
-- is slower is in the last bucket. The program makes the same bounds by the same multiplications.
CREATE TABLE webhook_histogram_bounds (
    bucket   INTEGER PRIMARY KEY,
    lower_ms REAL    NOT NULL,
    upper_ms REAL    -- none of the last
) STRICT;
WITH RECURSIVE bounds (bucket, lower_ms, upper_ms) AS (
    SELECT 0, 0.0, 0.1
    UNION ALL
    SELECT bucket + 1, upper_ms, CASE WHEN bucket < 236 THEN upper_ms * 1.05 END FROM bounds WHERE bucket < 237
)
INSERT INTO webhook_histogram_bounds SELECT * FROM bounds;

-- Requests by path and minute, as they were answered. `histogram` is a JSON array with a count for each bucket; what is
-- missing at the end is 0.
CREATE TABLE webhook_performance_metrics (
    webhook_source TEXT    NOT NULL,
    endpoint_path  TEXT    NOT NULL,
    bucket_start   INTEGER NOT NULL,
    request_count  INTEGER NOT NULL,
    success_count  INTEGER NOT NULL, -- 2xx
    failure_count  INTEGER NOT NULL, -- 5xx
    sum_ms         REAL    NOT NULL,
    max_ms         REAL    NOT NULL,
    histogram      TEXT    NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source, endpoint_path)
) STRICT, WITHOUT ROWID;

-- Requests by what statistics of security tell apart, and minute.
CREATE TABLE webhook_security_metrics (
    webhook_source   TEXT    NOT NULL,
    bucket_start     INTEGER NOT NULL,
    signature_status TEXT    NOT NULL,
    http_status      INTEGER NOT NULL,
    suspicious       INTEGER NOT NULL,
    reason           TEXT    NOT NULL, -- empty where there is nothing to say
    request_count    INTEGER NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source, signature_status, http_status, suspicious, reason)
) STRICT, WITHOUT ROWID;

-- Refused requests by address and minute.
CREATE TABLE webhook_refused_addresses (
    webhook_source TEXT    NOT NULL,
    bucket_start   INTEGER NOT NULL,
    source_ip      TEXT    NOT NULL,
    request_count  INTEGER NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source, source_ip)
) STRICT, WITHOUT ROWID;

-- Inbound messages by sender and hour: handed out, and parked because the sender was over the limit. Senders without a
-- phone number are counted together, under the empty one.
CREATE TABLE webhook_rate_limits (
    tenant_id      TEXT    NOT NULL,
    webhook_source TEXT    NOT NULL,
    phone_number   TEXT    NOT NULL,
    window_start   INTEGER NOT NULL,
    window_end     INTEGER NOT NULL,
    request_count  INTEGER NOT NULL,
    blocked_count  INTEGER NOT NULL,
    PRIMARY KEY (window_start, tenant_id, webhook_source, phone_number)
) STRICT, WITHOUT ROWID;

-- Inbound messages by minute that were not handed out as they came: parked because their sender was over the limit, or
-- come again when the gateway had forgotten them.
CREATE TABLE webhook_message_metrics (
    webhook_source  TEXT    NOT NULL,
    bucket_start    INTEGER NOT NULL,
    throttled_count INTEGER NOT NULL,
    late_count      INTEGER NOT NULL,
    PRIMARY KEY (bucket_start, webhook_source)
) STRICT, WITHOUT ROWID;

-- The windows that reach into the last 24 hours.
CREATE VIEW webhook_rate_limit_stats AS
SELECT webhook_source, phone_number, sum(request_count + blocked_count) AS total_requests,
       sum(blocked_count) AS times_blocked
FROM webhook_rate_limits
WHERE window_start > (strftime('%s', 'now') - 25 * 3600) * 1000
      AND window_end > (strftime('%s', 'now') - 24 * 3600) * 1000 AND phone_number <> ''
GROUP BY webhook_source, phone_number;

-- A percentile lies in the first bucket up to which there are enough requests, and is interpolated within it.
CREATE VIEW webhook_performance_stats AS
WITH hours AS (
    SELECT webhook_source, endpoint_path, strftime('%Y-%m-%d %H:00:00', bucket_start / 1000, 'unixepoch') AS hour,
           sum(request_count) AS request_count, sum(success_count) AS success_count,
           sum(failure_count) AS failure_count, sum(sum_ms) AS sum_ms, max(max_ms) AS max_ms
    FROM webhook_performance_metrics GROUP BY 1, 2, 3
), buckets AS (
    SELECT webhook_source, endpoint_path, strftime('%Y-%m-%d %H:00:00', bucket_start / 1000, 'unixepoch') AS hour,
           counted.key AS bucket, sum(counted.value) AS requests
    FROM webhook_performance_metrics CROSS JOIN json_each(histogram) AS counted
    WHERE counted.value > 0 GROUP BY 1, 2, 3, 4
), running AS (
    SELECT webhook_source, endpoint_path, hour, bucket, requests,
           sum(requests) OVER (PARTITION BY webhook_source, endpoint_path, hour ORDER BY bucket) AS up_to,
           sum(requests) OVER (PARTITION BY webhook_source, endpoint_path, hour) AS total
    FROM buckets
), ends AS (
    SELECT running.*, bounds.lower_ms, min(coalesce(bounds.upper_ms, hours.max_ms), hours.max_ms) AS upper_ms
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
       coalesce(100.0 * success_count / nullif(success_count + failure_count, 0), 100.0) AS success_rate
FROM hours LEFT JOIN percentiles USING (webhook_source, endpoint_path, hour);

CREATE VIEW webhook_security_stats AS
SELECT webhook_source, strftime('%Y-%m-%d %H:00:00', bucket_start / 1000, 'unixepoch') AS hour,
       sum(request_count) AS total_requests,
       sum(CASE WHEN signature_status = 'valid' THEN request_count ELSE 0 END) AS valid_signatures,
       sum(CASE WHEN signature_status NOT IN ('valid', 'skipped') THEN request_count ELSE 0 END) AS invalid_signatures,
       sum(CASE WHEN suspicious THEN request_count ELSE 0 END) AS suspicious_requests
FROM webhook_security_metrics GROUP BY 1, 2;
