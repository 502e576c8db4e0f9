"""Every cell of the matrix that the `ollama` client has.   matrix_ollama.py BASE_URL MODEL TOOL_CHOICE

Ollama's API has no way to demand a tool's call: with TOOL_CHOICE `required` the model may answer in words.
Prints JSON: for each cell the tokens in and out that the client saw, in the order in which it asked.
"""
import json
import sys

import ollama

base_url, model, choice = sys.argv[1:4]
client = ollama.Client(host=base_url)
asking = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}], "options": {"num_predict": 12}}
parameters = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris"]}},
    "required": ["city"],
}
tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": parameters}}
calling = {"model": model, "messages": [{"role": "user", "content": "Please get_weather of Paris"}], "tools": [tool]}
calling["options"] = {"num_predict": 64, "temperature": 0}
out = {}


def tokens(answer):
    return [answer.prompt_eval_count, answer.eval_count]


def has_called(calls):
    if choice == "auto":
        assert calls[0].function.name == "get_weather" and calls[0].function.arguments == {"city": "Paris"}, calls


plain = client.chat(**asking)
assert plain.message.content and plain.done, plain
out["plain"] = tokens(plain)

parts = list(client.chat(**asking, stream=True))
assert "".join(part.message.content for part in parts) and parts[-1].done, parts
out["streamed"] = tokens(parts[-1])

called = client.chat(**calling)
has_called(called.message.tool_calls)
out["tools"] = tokens(called)

parts = list(client.chat(**calling, stream=True))
has_called([call for part in parts for call in part.message.tool_calls or []])
out["tools streamed"] = tokens(parts[-1])

made = {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]}
answered = client.chat(
    model=model,
    tools=[tool],
    options={"num_predict": 8},
    messages=calling["messages"] + [made, {"role": "tool", "tool_name": "get_weather", "content": "Sunny"}],
)
out["tool's answer"] = tokens(answered)

shaped = client.chat(**{**asking, "options": {"num_predict": 64}}, format=parameters)
assert json.loads(shaped.message.content) == {"city": "Paris"}, shaped
out["JSON schema"] = tokens(shaped)

generated = client.generate(model=model, prompt="Why is the sky blue?", system="Be kind.", options={"num_predict": 8})
assert generated.response, generated
out["generate"] = tokens(generated)

parts = list(client.generate(model=model, prompt="The sky is", raw=True, stream=True, options={"num_predict": 8}))
assert "".join(part.response for part in parts) and parts[-1].done, parts
out["generate streamed"] = tokens(parts[-1])

vectors = client.embed(model=model, input=["one", "two"])
assert len(vectors.embeddings) == 2 and len(vectors.embeddings[0]) > 1, vectors
out["embeddings"] = [vectors.prompt_eval_count, 0]

aborted = client.chat(**{**asking, "options": {"num_predict": 400}}, stream=True)
next(iter(aborted))
aborted.close()
out["abort"] = None

assert client.show(model).details is not None
assert model in [known.model for known in client.list().models]
for status, call in (
    (404, lambda: client.chat(**{**asking, "model": "nowhere"})),
    (403, lambda: client.pull("llama3.1")),
):
    try:
        call()
        raise SystemExit(f"no {status}")
    except ollama.ResponseError as error:
        assert error.status_code == status and error.error, error
out["error"] = None
print(json.dumps(out))
