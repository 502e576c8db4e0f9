-- `owner` is the gateway that keeps it, of several that share a database.
-- Requests that wait or run without a client at a connection, and their answers. Times are milliseconds since 1970.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    user_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    key_id TEXT,
    request_type TEXT NOT NULL,
    priority TEXT NOT NULL,
    body BYTEA NOT NULL,
    attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    answer TEXT
);

CREATE INDEX jobs_unfinished ON jobs (created_at) WHERE finished_at IS NULL;
