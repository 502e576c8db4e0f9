-- The operation that a request asked for: its path. NULL in records of older versions.
ALTER TABLE requests ADD COLUMN operation TEXT;
