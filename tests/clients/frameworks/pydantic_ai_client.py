"""pydantic-ai's agents: chat, stream, a turn with a tool, structured output by a tool and by a schema."""
import asyncio
from checked import ASKS_CITY, ASKS_TOOL, QUESTION, base_url, finish, model, report
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    """A city."""

    city: str


def get_weather(city: str) -> str:
    """Weather of a city."""
    called.append(city)
    return "Sunny"


called = []


async def streamed(agent):
    async with agent.run_stream(QUESTION) as run:
        return [part async for part in run.stream_text(delta=True, debounce_by=None)]


def tried(llm, has_schemas=True):
    yield "chat"
    assert Agent(llm).run_sync(QUESTION).output
    yield "stream"
    assert len(asyncio.run(streamed(Agent(llm)))) > 1
    yield "tools"
    called.clear()
    assert Agent(llm, tools=[get_weather]).run_sync(ASKS_TOOL).output and called
    yield "structured output"
    assert Agent(llm, output_type=City).run_sync(ASKS_CITY).output.city
    if has_schemas:
        assert Agent(llm, output_type=NativeOutput(City)).run_sync(ASKS_CITY).output.city


openai = OpenAIProvider(base_url=base_url + "/v1", api_key="unused")
report("pydantic-ai, `OpenAIChatModel`", "pydantic-ai-slim", tried(OpenAIChatModel(model, provider=openai)))
report("pydantic-ai, `OpenAIResponsesModel`", "pydantic-ai-slim", tried(OpenAIResponsesModel(model, provider=openai)))
report("pydantic-ai, `OllamaProvider`", "pydantic-ai-slim", tried(
    OpenAIChatModel(model, provider=OllamaProvider(base_url=base_url + "/v1"))))
report("pydantic-ai, `AnthropicModel`", "pydantic-ai-slim", tried(
    AnthropicModel(model, provider=AnthropicProvider(base_url=base_url, api_key="unused")), has_schemas=False))
finish()
