-- What gave way for a request, in words; null where nothing did.
ALTER TABLE requests ADD COLUMN degraded TEXT;

-- Which configuration a record was priced with: a new version whenever a price or a limit has changed.
CREATE TABLE config_versions (
    version BIGINT PRIMARY KEY,
    digest TEXT NOT NULL,
    prices TEXT NOT NULL,
    since TEXT NOT NULL
);
