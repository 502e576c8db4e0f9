-- What runs and waits at a gateway, as JSON, written with its heartbeat: any gateway answers for all. The row is changed once a
-- second, so its page keeps room for its next version.
ALTER TABLE gateways ADD COLUMN figures TEXT NOT NULL DEFAULT '';
ALTER TABLE gateways SET (fillfactor = 50);
