"""LangChain's chat models: chat, stream, a turn with a tool, structured output."""
from checked import ASKS_CITY, ASKS_TOOL, QUESTION, base_url, finish, model, report
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return "Sunny in " + city


def tried(chat, methods):
    yield "chat"
    assert chat.invoke(QUESTION).text
    yield "stream"
    assert len([part for part in chat.stream(QUESTION) if part.text]) > 1
    yield "tools"
    messages = [HumanMessage(ASKS_TOOL)]
    asked = chat.bind_tools([get_weather]).invoke(messages)
    call = asked.tool_calls[0]
    assert call["name"] == "get_weather" and call["args"]["city"], asked
    messages += [asked, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert chat.bind_tools([get_weather]).invoke(messages).text
    forced = chat.bind_tools([get_weather], tool_choice="get_weather").invoke(ASKS_TOOL)
    assert forced.tool_calls[0]["name"] == "get_weather", forced
    yield "structured output"
    for method in methods:
        assert chat.with_structured_output(City, method=method).invoke(ASKS_CITY).city, method


report("LangChain, `ChatOpenAI`", "langchain-openai", tried(
    ChatOpenAI(model=model, base_url=base_url + "/v1", api_key="unused"), ["json_schema", "function_calling"]))
report("LangChain, `ChatOpenAI` by responses", "langchain-openai", tried(
    ChatOpenAI(model=model, base_url=base_url + "/v1", api_key="unused", use_responses_api=True), ["json_schema"]))
report("LangChain, `ChatOllama`", "langchain-ollama", tried(
    ChatOllama(model=model, base_url=base_url), ["json_schema", "function_calling"]))
report("LangChain, `ChatAnthropic`", "langchain-anthropic", tried(
    ChatAnthropic(model=model, base_url=base_url, api_key="unused", max_tokens=64), ["function_calling", "json_schema"]))
finish()
