-- Objectives of requests (first token, whole answer), and how many of them were met; NULL in requests without any.
ALTER TABLE requests ADD COLUMN objectives BIGINT, ADD COLUMN objectives_met BIGINT;
ALTER TABLE rollups ADD COLUMN objectives BIGINT NOT NULL DEFAULT 0, ADD COLUMN objectives_met BIGINT NOT NULL DEFAULT 0;
ALTER TABLE spans ADD COLUMN objectives BIGINT NOT NULL DEFAULT 0, ADD COLUMN objectives_met BIGINT NOT NULL DEFAULT 0;
