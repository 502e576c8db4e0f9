-- A gateway that takes a job or a batch over raises its epoch; results of an earlier epoch are not written any more.
ALTER TABLE jobs ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;

-- The epoch in which a job was last forwarded to a server.
ALTER TABLE jobs ADD COLUMN forwarded_in BIGINT NOT NULL DEFAULT -1;

-- 1 if a job is to be cancelled by the gateway that has it.
ALTER TABLE jobs ADD COLUMN cancelled BIGINT NOT NULL DEFAULT 0;

CREATE INDEX batches_unfinished ON batches (created_at) WHERE finished_at IS NULL;
