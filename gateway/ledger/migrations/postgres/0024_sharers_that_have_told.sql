-- After a crash of the server nobody is granted anything until all live gateways have told what they hold, or until what
-- they held has lapsed.
ALTER TABLE sharers
    ADD COLUMN entered_us BIGINT NOT NULL DEFAULT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT),
    ADD COLUMN has_told BOOLEAN NOT NULL DEFAULT false;
