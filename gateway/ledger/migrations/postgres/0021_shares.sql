-- Rate limits that the gateways share. Nothing here outlives a crash of the server: what it forgets, gateways tell again.
-- `state` is a limit's account in one line: level, time, recall, and what each gateway holds.
CREATE UNLOGGED TABLE shares (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL DEFAULT ''
);

-- The gateways that share them. A refresh counts only in the session in which its gateway has sent it.
CREATE UNLOGGED TABLE sharers (
    gateway TEXT PRIMARY KEY,
    session BIGINT NOT NULL,
    refreshed_us BIGINT NOT NULL DEFAULT 0,
    is_sole BOOLEAN NOT NULL DEFAULT false
);
