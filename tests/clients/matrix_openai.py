"""Every cell of the matrix that the `openai` client has.   matrix_openai.py BASE_URL MODEL TOOL_CHOICE

Prints JSON: for each cell the tokens in and out that the client saw, in the order in which it asked.
"""
import base64
import json
import sys

import openai

base_url, model, choice = sys.argv[1:4]
client = openai.OpenAI(base_url=base_url + "/v1", api_key="unused", max_retries=0)
asking = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 12}
parameters = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": parameters}}
calling = {"model": model, "messages": [{"role": "user", "content": "Please get_weather of Paris"}], "max_tokens": 64}
calling["tools"] = [tool]
# A model that only talks is asked all the same.
calls = choice == "auto"
if not calls:
    calling["tool_choice"] = choice
out = {}


def tokens(usage):
    return [usage.prompt_tokens, usage.completion_tokens]


plain = client.chat.completions.create(**asking)
assert plain.choices[0].message.content and plain.choices[0].finish_reason in ("stop", "length"), plain
out["plain"] = tokens(plain.usage)

chunks = list(client.chat.completions.create(**asking, stream=True, stream_options={"include_usage": True}))
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text and [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("stop", "length"), chunks
out["streamed"] = tokens(chunks[-1].usage)

called = client.chat.completions.create(**calling)
if calls:
    call = called.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}, called
    assert called.choices[0].finish_reason == "tool_calls", called
out["tools"] = tokens(called.usage)

arguments, name, finish, usage = "", None, None, None
for chunk in client.chat.completions.create(**calling, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for one in chunk.choices:
        finish = one.finish_reason or finish
        for part in one.delta.tool_calls or []:
            name = part.function.name or name
            arguments += part.function.arguments or ""
if calls:
    assert name == "get_weather" and json.loads(arguments) == {"city": "Paris"} and finish == "tool_calls", (name, arguments)
out["tools streamed"] = tokens(usage)

made = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
answered = client.chat.completions.create(
    model=model,
    max_tokens=8,
    tools=[tool],
    messages=calling["messages"]
    + [{"role": "assistant", "content": None, "tool_calls": [made]}]
    + [{"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}],
)
out["tool's answer"] = tokens(answered.usage)

schema = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": parameters}}
shaped = client.chat.completions.create(**{**asking, "max_tokens": 64}, response_format=schema)
assert json.loads(shaped.choices[0].message.content) == {"city": "Paris"}, shaped
out["JSON schema"] = tokens(shaped.usage)

completion = client.completions.create(model=model, prompt="The sky is", max_tokens=8)
assert completion.choices[0].text, completion
out["completion"] = tokens(completion.usage)

response = client.responses.create(model=model, input="Why is the sky blue?", max_output_tokens=12)
assert response.output_text and response.status in ("completed", "incomplete"), response
out["response"] = [response.usage.input_tokens, response.usage.output_tokens]

text, last = "", None
for event in client.responses.create(model=model, input="Why is the sky blue?", max_output_tokens=12, stream=True):
    last = event
    text += event.delta if event.type == "response.output_text.delta" else ""
assert text and last.type in ("response.completed", "response.incomplete"), last
assert last.response.output_text == text, last
out["response streamed"] = [last.response.usage.input_tokens, last.response.usage.output_tokens]

vectors = client.embeddings.create(model=model, input=["one", "two"])
assert len(vectors.data) == 2 and len(vectors.data[0].embedding) > 1, vectors
floats = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
assert all(abs(a - b) < 1e-5 for a, b in zip(vectors.data[0].embedding, floats.data[0].embedding))
out["embeddings in base64"] = [vectors.usage.prompt_tokens, 0]
out["embeddings as numbers"] = [floats.usage.prompt_tokens, 0]

aborted = client.chat.completions.create(**{**asking, "max_tokens": 400}, stream=True)
next(iter(aborted))
aborted.close()
out["abort"] = None

for wanted, call in (
    (openai.NotFoundError, lambda: client.chat.completions.create(**{**asking, "model": "nowhere"})),
    (openai.BadRequestError, lambda: client.chat.completions.create(**{**asking, "max_tokens": "many"})),
):
    try:
        call()
        raise SystemExit(f"no {wanted.__name__}")
    except wanted as error:
        assert error.body["message"], error
out["error"] = None
print(json.dumps(out))
