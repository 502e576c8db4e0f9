"""instructor: structured output in its modes, whole and streamed."""
import instructor
from anthropic import Anthropic
from checked import ASKS_CITY, base_url, finish, model, report
from openai import OpenAI
from pydantic import BaseModel


Mode = instructor.Mode


class City(BaseModel):
    """A city."""

    city: str


def tried(create, modes):
    for mode in modes:
        client = create(mode)
        asking = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": ASKS_CITY}]}
        assert client.chat.completions.create(response_model=City, **asking).city, mode
        yield f"structured output by `{mode.name}`"
        # A tool call that comes in one piece, as Ollama's do, has no parts.
        if mode != Mode.TOOLS:
            parts = list(client.chat.completions.create_partial(response_model=City, **asking))
            assert parts[-1].city, mode
            yield "streamed"


openai = OpenAI(base_url=base_url + "/v1", api_key="unused", max_retries=0)
anthropic = Anthropic(base_url=base_url, api_key="unused", max_retries=0)
report("instructor, `from_openai`", "instructor", tried(
    lambda mode: instructor.from_openai(openai, mode=mode), [Mode.TOOLS, Mode.JSON_SCHEMA]))
report("instructor, `from_anthropic`", "instructor", tried(
    lambda mode: instructor.from_anthropic(anthropic, mode=mode), [Mode.TOOLS]))
finish()
