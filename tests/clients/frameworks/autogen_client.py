"""AutoGen's model clients and its agent: chat, stream, a turn with a tool, structured output."""
import asyncio
from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.ollama import OllamaChatCompletionClient
from autogen_ext.models.openai import OpenAIChatCompletionClient
from checked import ASKS_TOOL, QUESTION, base_url, finish, model, report
from pydantic import BaseModel

INFO = {"vision": False, "function_calling": True, "json_output": True, "structured_output": True, "family": "unknown"}
called = []


class City(BaseModel):
    """A city."""

    city: str


async def get_weather(city: str) -> str:
    """Weather of a city."""
    called.append(city)
    return "Sunny"


async def tried(client):
    done = []
    question = [UserMessage(content=QUESTION, source="alice")]
    assert (await client.create(question)).content
    done.append("chat")
    assert len([part async for part in client.create_stream(question) if isinstance(part, str)]) > 1
    done.append("stream")
    called.clear()
    agent = AssistantAgent("assistant", model_client=client, tools=[get_weather], reflect_on_tool_use=True)
    result = await agent.run(task=ASKS_TOOL)
    assert called and result.messages[-1].content, result
    done.append("tools")
    answer = await client.create(question, json_output=City)
    assert City.model_validate_json(answer.content).city, answer
    done.append("structured output")
    await client.close()
    return done


async def main():
    report("AutoGen, `OpenAIChatCompletionClient`", "autogen-ext", await tried(OpenAIChatCompletionClient(
        model=model, base_url=base_url + "/v1", api_key="unused", model_info=INFO)))
    report("AutoGen, `OllamaChatCompletionClient`", "autogen-ext", await tried(OllamaChatCompletionClient(
        model=model, host=base_url, model_info=INFO)))


asyncio.run(main())
finish()
