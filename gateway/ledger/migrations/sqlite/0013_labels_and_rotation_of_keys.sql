-- What the operator calls the key.
ALTER TABLE keys ADD COLUMN label TEXT;

-- The secret before the last rotation, and until when it is valid, in milliseconds since 1970.
ALTER TABLE keys ADD COLUMN previous_hash BLOB;
ALTER TABLE keys ADD COLUMN previous_until INTEGER;
