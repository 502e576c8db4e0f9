"""The real `ollama` client through the gateway.   ollama_client.py BASE_URL MODEL

Plain, streamed, aborted, wrong. Prints one JSON object: the usage that the client saw.
"""
import json
import sys

import ollama

base_url, model = sys.argv[1:3]
client = ollama.Client(host=base_url)
messages = [{"role": "user", "content": "Why is the sky blue?"}]
out = {}

plain = client.chat(model=model, messages=messages, options={"num_predict": 12})
assert plain.message.content, plain
out["plain"] = [plain.prompt_eval_count, plain.eval_count]

parts = list(client.chat(model=model, messages=messages, stream=True, options={"num_predict": 12}))
assert "".join(p.message.content for p in parts), parts
assert parts[-1].done
out["streamed"] = [parts[-1].prompt_eval_count, parts[-1].eval_count]

generated = client.generate(model=model, prompt="The sky is", options={"num_predict": 8})
assert generated.response
out["generate"] = [generated.prompt_eval_count, generated.eval_count]

vectors = client.embed(model=model, input=["one", "two"])
assert len(vectors.embeddings) == 2
out["embed"] = [vectors.prompt_eval_count, 0]

aborted = client.chat(model=model, messages=messages, stream=True, options={"num_predict": 200})
next(iter(aborted))
aborted.close()

assert model in [m.model for m in client.list().models]
assert client.show(model).details is not None
client.ps()
for status, call in (
    (404, lambda: client.chat(model="nowhere", messages=messages)),
    (403, lambda: client.pull("llama3.1")),
):
    try:
        call()
        raise SystemExit(f"no {status}")
    except ollama.ResponseError as error:
        assert error.status_code == status and error.error, error
print(json.dumps(out))
