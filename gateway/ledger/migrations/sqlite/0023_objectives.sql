-- Objectives of requests (first token, whole answer), and how many of them were met; NULL in requests without any.
ALTER TABLE requests ADD COLUMN objectives INTEGER;
ALTER TABLE requests ADD COLUMN objectives_met INTEGER;
ALTER TABLE rollups ADD COLUMN objectives INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN objectives_met INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spans ADD COLUMN objectives INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spans ADD COLUMN objectives_met INTEGER NOT NULL DEFAULT 0;
