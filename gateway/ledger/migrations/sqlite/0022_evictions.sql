-- Attempts at a request that were aborted for one of a higher priority, and the time for which they had their slots. NULL
-- without any.
ALTER TABLE requests ADD COLUMN evictions INTEGER;
ALTER TABLE requests ADD COLUMN evicted_seconds REAL;
