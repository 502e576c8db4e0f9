-- Sums of records over minutes, hours and days (`length` in seconds), for plots and comparisons; `begins` is in seconds
-- since 1970. Minutes and hours are deleted when they are old, days stay. Column l_N counts the completed requests with
-- a latency of at most 10 ms * 1.75^N that did not fit the bucket before; the last one has all longer ones.
CREATE TABLE spans (
    length BIGINT NOT NULL,
    begins BIGINT NOT NULL,
    project_id TEXT NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    requests BIGINT NOT NULL DEFAULT 0,
    input_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    cost_nano_eur BIGINT NOT NULL DEFAULT 0,
    first_tokens BIGINT NOT NULL DEFAULT 0,
    l_0 BIGINT NOT NULL DEFAULT 0,
    l_1 BIGINT NOT NULL DEFAULT 0,
    l_2 BIGINT NOT NULL DEFAULT 0,
    l_3 BIGINT NOT NULL DEFAULT 0,
    l_4 BIGINT NOT NULL DEFAULT 0,
    l_5 BIGINT NOT NULL DEFAULT 0,
    l_6 BIGINT NOT NULL DEFAULT 0,
    l_7 BIGINT NOT NULL DEFAULT 0,
    l_8 BIGINT NOT NULL DEFAULT 0,
    l_9 BIGINT NOT NULL DEFAULT 0,
    l_10 BIGINT NOT NULL DEFAULT 0,
    l_11 BIGINT NOT NULL DEFAULT 0,
    l_12 BIGINT NOT NULL DEFAULT 0,
    l_13 BIGINT NOT NULL DEFAULT 0,
    l_14 BIGINT NOT NULL DEFAULT 0,
    l_15 BIGINT NOT NULL DEFAULT 0,
    l_16 BIGINT NOT NULL DEFAULT 0,
    l_17 BIGINT NOT NULL DEFAULT 0,
    l_18 BIGINT NOT NULL DEFAULT 0,
    l_19 BIGINT NOT NULL DEFAULT 0,
    latency_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    queue_wait_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    first_token_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    PRIMARY KEY (length, begins, project_id, model, upstream, status, reason)
);

-- The days so far. Their rollups know no upstream, reason or distribution of latencies.
INSERT INTO spans (length, begins, project_id, model, upstream, status, reason, requests, input_tokens, output_tokens,
        cached_input_tokens, cost_nano_eur, latency_seconds, queue_wait_seconds)
    SELECT 86400, CAST(extract(epoch FROM CAST(day AS date)) AS BIGINT), project_id, model, '', status, '',
        sum(CASE WHEN status = 'correction' THEN 0 ELSE requests END), sum(input_tokens), sum(output_tokens),
        sum(cached_input_tokens), sum(cost_nano_eur), sum(latency_seconds), sum(queue_wait_seconds)
    FROM rollups WHERE day ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' GROUP BY day, project_id, model, status;
