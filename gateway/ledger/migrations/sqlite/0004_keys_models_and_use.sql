-- Which models a key may ask for, with commas between; null: all.
ALTER TABLE keys ADD COLUMN models TEXT;

-- When it was last used, in milliseconds since 1970, within some seconds.
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
