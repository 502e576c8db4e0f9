"""The real `openai` client's Batch API through the gateway.

openai_batch.py BASE_URL MODEL start LINES     uploads a file and starts a batch; prints its id
openai_batch.py BASE_URL MODEL finish BATCH    waits for its end; prints what came out as JSON
openai_batch.py BASE_URL MODEL cancel BATCH    cancels it; prints its status
"""
import io
import json
import sys
import time

import openai

base_url, model, what, argument = sys.argv[1:5]
client = openai.OpenAI(base_url=base_url + "/v1", api_key="unused", max_retries=0)


def line(number):
    body = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 3}
    if number == 7:
        body["model"] = "nowhere"
    return {"custom_id": f"request-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


if what == "start":
    text = "".join(json.dumps(line(number)) + "\n" for number in range(int(argument)))
    uploaded = client.files.create(
        file=("input.jsonl", io.BytesIO(text.encode())),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert uploaded.expires_at == uploaded.created_at + 7200, uploaded
    assert client.files.retrieve(uploaded.id) == uploaded and uploaded.bytes == len(text)
    assert uploaded.id in [file.id for file in client.files.list().data]
    batch = client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"of": "a test"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert batch.id in [one.id for one in client.batches.list().data]
    # The client follows pages by itself.
    for resource in (client.files, client.batches):
        by_ones = [one.id for one in resource.list(limit=1)]
        assert by_ones == [one.id for one in resource.list(limit=100)], by_ones
    print(batch.id)
elif what == "cancel":
    print(client.batches.cancel(argument).status)
else:
    batch = client.batches.retrieve(argument)
    until = time.monotonic() + 120
    while batch.status in ("validating", "in_progress", "cancelling") and time.monotonic() < until:
        time.sleep(0.2)
        batch = client.batches.retrieve(argument)
    rows = []
    for name in (batch.output_file_id, batch.error_file_id):
        if name:
            rows.append([json.loads(row) for row in client.files.content(name).text.splitlines()])
            made = client.files.retrieve(name)
            assert made.expires_at == made.created_at + 3600, made
        else:
            rows.append([])
    output, errors = rows
    assert all(row["response"]["body"]["choices"][0]["message"]["content"] for row in output)
    print(
        json.dumps(
            {
                "status": batch.status,
                "counts": [batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed],
                "output": sorted(row["custom_id"] for row in output),
                "errors": [[row["custom_id"], (row["response"] or {}).get("status_code")] for row in errors],
                "metadata": batch.metadata,
            }
        )
    )
