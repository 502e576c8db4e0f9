-- Requests that run longer than a moment: if the gateway is killed, the next start makes their records of these.
CREATE TABLE intents (
    id BIGINT PRIMARY KEY,
    owner TEXT NOT NULL,
    line TEXT NOT NULL
);
