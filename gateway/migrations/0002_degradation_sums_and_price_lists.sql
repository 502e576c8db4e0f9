-- What gave way for a request, in words; null where nothing did.
ALTER TABLE requests ADD COLUMN degraded TEXT;

-- Sums since a moment are made at a start, for the quotas and budgets of the month.
CREATE INDEX requests_created_at ON requests (created_at);

-- Which configuration a record was priced with: a new version whenever a price or a limit has changed.
CREATE TABLE config_versions (
    version INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    prices TEXT NOT NULL,
    since TEXT NOT NULL
);
