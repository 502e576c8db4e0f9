-- When a file is deleted, in seconds since 1970; null: never.
ALTER TABLE files ADD COLUMN expires_at BIGINT;

CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at IS NOT NULL;

-- How long a batch's output and error files are kept after they were made, in seconds; null: as other files.
ALTER TABLE batches ADD COLUMN output_expires_seconds BIGINT;

CREATE INDEX batches_finished ON batches (finished_at) WHERE finished_at IS NOT NULL;
