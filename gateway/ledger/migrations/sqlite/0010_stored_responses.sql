-- Responses that clients asked to keep, so that a later request can go on from one. Each has its own input and what the
-- model answered; what came before is found by `previous_id`. Times are seconds since 1970.
CREATE TABLE responses (
    id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    previous_id TEXT,
    input TEXT NOT NULL,
    response TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (id, project_id)
);

CREATE INDEX responses_by_expiry ON responses (expires_at);

-- The size of all that a project keeps.
CREATE INDEX responses_by_project ON responses (project_id, bytes);

-- Of a background response: what it goes on from, and its own input if its response is to be kept.
ALTER TABLE jobs ADD COLUMN previous_response_id TEXT;
ALTER TABLE jobs ADD COLUMN kept_input TEXT;
