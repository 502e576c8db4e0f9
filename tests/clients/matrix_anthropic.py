"""Every cell of the matrix that the `anthropic` client has.   matrix_anthropic.py BASE_URL MODEL TOOL_CHOICE

Prints JSON: for each cell the tokens in and out that the client saw, in the order in which it asked.
"""
import json
import sys

import anthropic

base_url, model, choice = sys.argv[1:4]
client = anthropic.Anthropic(base_url=base_url, api_key="unused", max_retries=0)
asking = {"model": model, "max_tokens": 12, "system": "Be kind."}
asking["messages"] = [{"role": "user", "content": [{"type": "text", "text": "Why is the sky blue?"}]}]
tool = {
    "name": "get_weather",
    "description": "Weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
calling = {"model": model, "max_tokens": 64, "tools": [tool]}
calling["messages"] = [{"role": "user", "content": "Please get_weather of Paris"}]
# A model that only talks is asked all the same.
calls = choice == "auto"
if not calls:
    calling["tool_choice"] = {"type": "any"}
out = {}


def tokens(usage):
    return [usage.input_tokens + (usage.cache_read_input_tokens or 0), usage.output_tokens]


plain = client.messages.create(**asking)
assert plain.content[0].text and plain.stop_reason in ("end_turn", "max_tokens"), plain
out["plain"] = tokens(plain.usage)

with client.messages.stream(**asking) as stream:
    text = "".join(stream.text_stream)
    last = stream.get_final_message()
assert text and last.content[0].text == text and last.stop_reason in ("end_turn", "max_tokens"), last
out["streamed"] = tokens(last.usage)

called = client.messages.create(**calling)
if calls:
    call = called.content[-1]
    assert call.type == "tool_use" and call.name == "get_weather" and call.input == {"city": "Paris"}, called
    assert called.stop_reason == "tool_use", called
out["tools"] = tokens(called.usage)

with client.messages.stream(**calling) as stream:
    last = stream.get_final_message()
if calls:
    call = last.content[-1]
    assert call.type == "tool_use" and call.name == "get_weather" and call.input == {"city": "Paris"}, last
    assert last.stop_reason == "tool_use", last
out["tools streamed"] = tokens(last.usage)

made = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny"}
answered = client.messages.create(
    model=model,
    max_tokens=8,
    tools=[tool],
    messages=calling["messages"]
    + [{"role": "assistant", "content": [made]}]
    + [{"role": "user", "content": [result]}],
)
out["tool's answer"] = tokens(answered.usage)

counted = client.messages.count_tokens(model=model, messages=asking["messages"])
assert counted.input_tokens > 0, counted
out["count"] = None

with client.messages.stream(**{**asking, "max_tokens": 400}) as stream:
    next(iter(stream.text_stream))
out["abort"] = None

for wanted, call in (
    (anthropic.NotFoundError, lambda: client.messages.create(**{**asking, "model": "nowhere"})),
    (anthropic.BadRequestError, lambda: client.messages.create(**asking, extra_body={"mcp_servers": [{}]})),
):
    try:
        call()
        raise SystemExit(f"no {wanted.__name__}")
    except wanted as error:
        assert error.body["type"] == "error" and error.body["error"]["message"], error
out["error"] = None
print(json.dumps(out))
