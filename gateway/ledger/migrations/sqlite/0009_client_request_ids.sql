-- What the caller sent as `x-request-id`: kept for search, never a key for anything.
ALTER TABLE requests ADD COLUMN client_request_id TEXT;

CREATE INDEX requests_by_client_request_id ON requests (client_request_id) WHERE client_request_id IS NOT NULL;

-- Requests are looked up by project and id.
CREATE INDEX requests_by_id ON requests (project_id, request_id);

-- Expired answers are found while the gateway runs.
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
