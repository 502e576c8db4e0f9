-- False while a gateway cannot reach the store of shared rate limits and slots, and uses a part of each on its own.
ALTER TABLE gateways ADD COLUMN is_coordinated BOOLEAN NOT NULL DEFAULT true;
