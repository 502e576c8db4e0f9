-- Quotas and budgets that the gateways share. `escrow` has what all have used of an account, `leases` what each has drawn
-- in advance since its start and what of its use is recorded: both change in the transaction that writes the records.
-- `period` is a day such as 2026-11-25, or a month such as 2026-11.
CREATE TABLE escrow (
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    period TEXT NOT NULL,
    tokens BIGINT NOT NULL DEFAULT 0,
    requests BIGINT NOT NULL DEFAULT 0,
    cost_nano_eur BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, id, period)
);

CREATE TABLE leases (
    scope TEXT NOT NULL,
    id TEXT NOT NULL,
    period TEXT NOT NULL,
    gateway TEXT NOT NULL,
    drawn_tokens BIGINT NOT NULL DEFAULT 0,
    drawn_requests BIGINT NOT NULL DEFAULT 0,
    drawn_cost BIGINT NOT NULL DEFAULT 0,
    settled_tokens BIGINT NOT NULL DEFAULT 0,
    settled_requests BIGINT NOT NULL DEFAULT 0,
    settled_cost BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, id, period, gateway)
);
CREATE INDEX leases_gateway ON leases (gateway);

-- A draw or return counts only in the session in which its gateway has sent it: one that arrives late changes nothing.
CREATE SEQUENCE gateway_sessions;
ALTER TABLE gateways ADD COLUMN session BIGINT NOT NULL DEFAULT 0;

INSERT INTO escrow
    SELECT scope, id, period, sum(tokens), sum(requests), sum(cost)
    FROM (
        SELECT day, 'project' AS scope, project_id AS id, input_tokens + output_tokens AS tokens, cost_nano_eur AS cost,
            CASE WHEN decision IN ('rejected', 'correction') THEN 0 ELSE requests END AS requests FROM rollups
        UNION ALL
        SELECT day, 'user', user_id, input_tokens + output_tokens, cost_nano_eur,
            CASE WHEN decision IN ('rejected', 'correction') THEN 0 ELSE requests END FROM rollups
        UNION ALL
        SELECT day, 'key', key_id, input_tokens + output_tokens, cost_nano_eur,
            CASE WHEN decision IN ('rejected', 'correction') THEN 0 ELSE requests END FROM rollups
    ) AS used CROSS JOIN LATERAL (VALUES (day), (substr(day, 1, 7))) AS periods (period)
    WHERE day >= to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM') AND id <> ''
    GROUP BY scope, id, period;
