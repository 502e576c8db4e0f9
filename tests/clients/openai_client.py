"""The real `openai` client through the gateway.   openai_client.py BASE_URL MODEL [KEY]

Plain, streamed, aborted, wrong. Prints one JSON object: the usage that the client saw.
"""
import json
import sys

import openai

base_url, model = sys.argv[1:3]
key = sys.argv[3] if len(sys.argv) > 3 else "unused"
client = openai.OpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0)
messages = [{"role": "user", "content": "Why is the sky blue?"}]
out = {}

plain = client.chat.completions.create(model=model, messages=messages, max_tokens=12)
assert plain.choices[0].message.content, plain
out["plain"] = [plain.usage.prompt_tokens, plain.usage.completion_tokens]

stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=12, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text, chunks
usage = chunks[-1].usage
assert usage is not None, chunks[-1]
out["streamed"] = [usage.prompt_tokens, usage.completion_tokens]

unasked = list(client.chat.completions.create(model=model, messages=messages, max_tokens=12, stream=True))
assert all(c.choices for c in unasked), "the usage that the gateway asked for was not taken out"
assert all(getattr(c, "usage", None) is None for c in unasked)

completion = client.completions.create(model=model, prompt="The sky is", max_tokens=8)
assert completion.choices[0].text
out["completion"] = [completion.usage.prompt_tokens, completion.usage.completion_tokens]

vectors = client.embeddings.create(model=model, input=["one", "two"])
assert len(vectors.data) == 2 and len(vectors.data[0].embedding) > 1
out["embeddings"] = [vectors.usage.prompt_tokens, 0]

aborted = client.chat.completions.create(model=model, messages=messages, max_tokens=200, stream=True)
next(iter(aborted))
aborted.close()

assert model in [m.id for m in client.models.list().data]
for wanted, call in (
    (openai.NotFoundError, lambda: client.chat.completions.create(model="nowhere", messages=messages)),
    (openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=messages, max_tokens="many")),
):
    try:
        call()
        raise SystemExit(f"no {wanted.__name__}")
    except wanted as error:
        assert error.body["message"], error
print(json.dumps(out))
