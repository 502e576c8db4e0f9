-- Beside /generate, requests of /v1/responses with `background: true` go on without their client.
ALTER TABLE jobs ADD COLUMN endpoint TEXT NOT NULL DEFAULT '/generate';
