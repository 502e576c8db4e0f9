"""`llm` with `llm-ollama`: finds the model in Ollama's list, chat, stream, a turn with a tool, a schema."""
import json
import os
import tempfile
from checked import ASKS_TOOL, QUESTION, base_url, finish, model, report
from pydantic import BaseModel

os.environ["OLLAMA_HOST"] = base_url
os.environ["LLM_USER_PATH"] = tempfile.mkdtemp()
import llm  # noqa: E402  (reads both)

called = []


class City(BaseModel):
    """A city."""

    city: str


def get_weather(city: str) -> str:
    """Weather of a city."""
    called.append(city)
    return "Sunny"


def tried():
    names = [one.model_id for one in llm.get_models()]
    found = llm.get_model(next(name for name in names if name.split(":")[0] == "ollama/" + model))
    yield "list"
    assert found.prompt(QUESTION, stream=False).text()
    yield "chat"
    assert len(list(found.prompt(QUESTION))) > 1
    yield "stream"
    assert found.chain(ASKS_TOOL, tools=[get_weather]).text() and called, called
    yield "tools"
    assert json.loads(found.prompt(QUESTION, schema=City, stream=False).text())["city"]
    yield "structured output"


report("`llm` with `llm-ollama`", "llm-ollama", tried())
finish()
