-- Sums of records over minutes, hours and days (`length` in seconds), for plots and comparisons; `begins` is in seconds
-- since 1970. Minutes and hours are deleted when they are old, days stay. Column l_N counts the completed requests with
-- a latency of at most 10 ms * 1.75^N that did not fit the bucket before; the last one has all longer ones.
CREATE TABLE spans (
    length INTEGER NOT NULL,
    begins INTEGER NOT NULL,
    project_id TEXT NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    cost_nano_eur INTEGER NOT NULL DEFAULT 0,
    first_tokens INTEGER NOT NULL DEFAULT 0,
    l_0 INTEGER NOT NULL DEFAULT 0,
    l_1 INTEGER NOT NULL DEFAULT 0,
    l_2 INTEGER NOT NULL DEFAULT 0,
    l_3 INTEGER NOT NULL DEFAULT 0,
    l_4 INTEGER NOT NULL DEFAULT 0,
    l_5 INTEGER NOT NULL DEFAULT 0,
    l_6 INTEGER NOT NULL DEFAULT 0,
    l_7 INTEGER NOT NULL DEFAULT 0,
    l_8 INTEGER NOT NULL DEFAULT 0,
    l_9 INTEGER NOT NULL DEFAULT 0,
    l_10 INTEGER NOT NULL DEFAULT 0,
    l_11 INTEGER NOT NULL DEFAULT 0,
    l_12 INTEGER NOT NULL DEFAULT 0,
    l_13 INTEGER NOT NULL DEFAULT 0,
    l_14 INTEGER NOT NULL DEFAULT 0,
    l_15 INTEGER NOT NULL DEFAULT 0,
    l_16 INTEGER NOT NULL DEFAULT 0,
    l_17 INTEGER NOT NULL DEFAULT 0,
    l_18 INTEGER NOT NULL DEFAULT 0,
    l_19 INTEGER NOT NULL DEFAULT 0,
    latency_seconds REAL NOT NULL DEFAULT 0,
    queue_wait_seconds REAL NOT NULL DEFAULT 0,
    first_token_seconds REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (length, begins, project_id, model, upstream, status, reason)
) WITHOUT ROWID;

-- The days so far. Their rollups know no upstream, reason or distribution of latencies.
INSERT INTO spans (length, begins, project_id, model, upstream, status, reason, requests, input_tokens, output_tokens,
        cached_input_tokens, cost_nano_eur, latency_seconds, queue_wait_seconds)
    SELECT 86400, CAST(strftime('%s', day) AS INTEGER), project_id, model, '', status, '',
        sum(CASE WHEN status = 'correction' THEN 0 ELSE requests END), sum(input_tokens), sum(output_tokens),
        sum(cached_input_tokens), sum(cost_nano_eur), sum(latency_seconds), sum(queue_wait_seconds)
    FROM rollups WHERE strftime('%s', day) IS NOT NULL GROUP BY day, project_id, model, status;
