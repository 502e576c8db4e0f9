"""Fills a ledger of SQLite with many records over 90 days up to now, and their sums, for measurements.
    fill_ledger.py DATABASE RECORDS
"""
import sqlite3
import sys
import time

database, records = sys.argv[1], int(sys.argv[2])
ledger = sqlite3.connect(database)
ledger.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;")
end = int(time.time())
step = 90 * 86400 * 1_000_000 // records
first = end * 1_000_000 - step * records
indexes = ledger.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'requests' AND sql IS NOT NULL").fetchall()
for name, _ in indexes:
    ledger.execute(f"DROP INDEX {name}")
# One of 20 requests fails, one of 50 is refused; latencies have twelve values, each 1.75 times the one before.
ledger.execute(f"""
    INSERT INTO requests (id, request_id, user_id, project_id, key_id, requested_model, model, backend, upstream,
        client_protocol, operation, request_type, priority, streamed, status, decision, reason, http_status,
        degradation_level, input_tokens, output_tokens, cached_input_tokens, input_tokens_estimated,
        output_tokens_reserved, usage_source, estimated_cost_nano_eur, cost_nano_eur, latency_seconds,
        queue_wait_seconds, first_token_seconds, config_version, created_at, updated_at)
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {records} - 1)
    SELECT ({first} + i * {step}) * 1024, printf('req_%032x', (i * 7919 + 13) % 1000000007 * 1000000 + i), 'user-' || (i % 200),
        'project-' || (i % 20), 'key-' || (i % 200), 'model-' || (i % 5), 'model-' || (i % 5), 'openai',
        '10.0.0.' || (i % 8) || ':8000', 'openai', '/v1/chat/completions', 'interactive', 'normal', 1,
        CASE WHEN i % 20 = 7 THEN 'failed' WHEN i % 50 = 3 THEN 'rejected' ELSE 'completed' END, 'accepted',
        CASE WHEN i % 20 = 7 THEN 'upstream_error' WHEN i % 50 = 3 THEN 'rate_limited' END,
        CASE WHEN i % 20 = 7 THEN 502 WHEN i % 50 = 3 THEN 429 ELSE 200 END, 'normal', 400 + i % 300, 100 + i % 200, 200,
        500, 512, 'upstream', 900000, 600000, 0.009 * pow(1.75, i % 12), 0, 0.008, 1,
        strftime('%Y-%m-%dT%H:%M:%S', ({first} + i * {step}) / 1000000, 'unixepoch') || '.000000Z',
        strftime('%Y-%m-%dT%H:%M:%S', ({first} + i * {step}) / 1000000, 'unixepoch') || '.500000Z'
    FROM n""")
for _, sql in indexes:
    ledger.execute(sql)
buckets = ", ".join(f"l_{number}" for number in range(20))
counts = ", ".join(f"sum(status = 'completed' AND (id / 1024 - {first}) / {step} % 12 = {number})" for number in range(20))
for length, kept in [(60, 86400), (3600, 8 * 86400), (86400, 91 * 86400)]:
    ledger.execute(f"""
        INSERT INTO spans (length, begins, project_id, model, upstream, status, reason, requests, input_tokens,
            output_tokens, cached_input_tokens, cost_nano_eur, first_tokens, {buckets}, latency_seconds,
            queue_wait_seconds, first_token_seconds)
        SELECT {length}, id / 1024000000 / {length} * {length}, project_id, model, upstream, status, coalesce(reason, ''), count(*),
            sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), sum(cost_nano_eur), count(*), {counts},
            sum(latency_seconds), 0, sum(first_token_seconds)
        FROM requests WHERE id >= {(end - kept) * 1_024_000_000} GROUP BY 2, 3, 4, 5, 6, 7""")
ledger.execute("""
    INSERT INTO rollups (day, project_id, user_id, key_id, model, backend, status, decision, requests, input_tokens,
        output_tokens, cached_input_tokens, cost_nano_eur, latency_seconds, queue_wait_seconds)
    SELECT substr(created_at, 1, 10), project_id, user_id, key_id, model, backend, status, decision, count(*),
        sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), sum(cost_nano_eur), sum(latency_seconds), 0
    FROM requests GROUP BY 1, 2, 3, 4, 5, 6, 7, 8""")
ledger.commit()
print(ledger.execute("SELECT request_id FROM requests ORDER BY id LIMIT 1").fetchone()[0])
