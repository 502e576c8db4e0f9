-- Sums of records, kept as records are written: reports and a start read these, never all records. They stay when
-- old records are deleted. `day` is the UTC day on which requests began.
CREATE TABLE rollups (
    day TEXT NOT NULL,
    project_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    backend TEXT NOT NULL,
    status TEXT NOT NULL,
    decision TEXT NOT NULL,
    requests BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cost_nano_eur BIGINT NOT NULL,
    latency_seconds DOUBLE PRECISION NOT NULL,
    queue_wait_seconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (day, project_id, user_id, key_id, model, backend, status, decision)
);

-- How many completed requests took how long: bucket n holds latencies from 1.05^n microseconds.
CREATE TABLE latencies (
    day TEXT NOT NULL,
    bucket BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    PRIMARY KEY (day, bucket)
);

INSERT INTO rollups
    SELECT substr(created_at, 1, 10), project_id, user_id, coalesce(key_id, ''), model, backend, status, decision,
        count(*), sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), sum(cost_nano_eur),
        sum(latency_seconds), sum(queue_wait_seconds)
    FROM requests GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;

-- What the summary of /metrics/summary counts from, after a reset.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
