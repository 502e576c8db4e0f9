"""The real `openai` client over stored responses.   openai_responses.py BASE_URL MODEL

Two turns by `previous_response_id`, one of them streamed; what is stored is read, listed page by page, replayed and
deleted. Prints the two ids, the first of which is deleted.
"""
import json
import sys

import openai

base_url, model = sys.argv[1:3]
client = openai.OpenAI(base_url=base_url + "/v1", api_key="unused", max_retries=0)

first = client.responses.create(model=model, input="tell me a joke", store=True, max_output_tokens=12)
assert first.store is True and first.previous_response_id is None and first.output_text, first
assert client.responses.retrieve(first.id) == first

question = {"role": "user", "content": "explain why this is funny"}
events = list(
    client.responses.create(
        model=model, previous_response_id=first.id, input=[question], store=True, max_output_tokens=12, stream=True
    )
)
second = events[-1].response
assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == second.output_text
assert second.previous_response_id == first.id and second.store is True, second
assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens, (first.usage, second.usage)
assert client.responses.retrieve(second.id).output_text == second.output_text

items = list(client.responses.input_items.list(second.id, order="asc", limit=1))
assert [item.role for item in items] == ["user", "assistant", "user"], items
assert items[0].content[0].text == "tell me a joke" and items[1].content[0].text == first.output_text, items
newest = client.responses.input_items.list(second.id, limit=1)
assert newest.data[0].content[0].text == "explain why this is funny" and newest.has_more, newest
assert len({item.id for item in items}) == 3, items

replayed = list(client.responses.retrieve(second.id, stream=True))
assert replayed[-1].type == "response.completed" or replayed[-1].type == "response.incomplete", replayed
assert replayed[-1].response.output_text == second.output_text
later = list(client.responses.retrieve(second.id, stream=True, starting_after=replayed[-2].sequence_number))
assert [event.sequence_number for event in later] == [replayed[-1].sequence_number], later

plain = client.responses.create(model=model, input="not to be kept", max_output_tokens=4)
assert plain.store is False
client.responses.delete(first.id)
for call, wanted in (
    (lambda: client.responses.retrieve(plain.id), openai.NotFoundError),
    (lambda: client.responses.retrieve(first.id), openai.NotFoundError),
    (lambda: client.responses.input_items.list(first.id), openai.NotFoundError),
    (lambda: client.responses.delete(first.id), openai.NotFoundError),
    (lambda: client.responses.create(model=model, input="on", previous_response_id=plain.id), openai.BadRequestError),
    (lambda: client.responses.create(model=model, input="on", previous_response_id=second.id), openai.BadRequestError),
):
    try:
        call()
        raise SystemExit(f"no {wanted.__name__}")
    except wanted as error:
        if wanted is openai.BadRequestError:
            assert error.code == "previous_response_not_found" and error.param == "previous_response_id", error.body
print(json.dumps([first.id, second.id]))
