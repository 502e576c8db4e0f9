"""LlamaIndex's LLMs: chat, stream, a call of a tool, structured output."""
from checked import ASKS_CITY, ASKS_TOOL, QUESTION, base_url, finish, model, report
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    city: str


def get_weather(city: str) -> str:
    """Weather of a city."""
    return "Sunny"


def tried(llm):
    messages = [ChatMessage(role="user", content=QUESTION)]
    assert llm.chat(messages).message.content
    yield "chat"
    assert len([part for part in llm.stream_chat(messages) if part.delta]) > 1
    yield "stream"
    tool = FunctionTool.from_defaults(get_weather)
    answer = llm.chat_with_tools([tool], user_msg=ASKS_TOOL)
    calls = llm.get_tool_calls_from_response(answer)
    assert calls[0].tool_name == "get_weather" and calls[0].tool_kwargs["city"], calls
    yield "tools"
    assert llm.structured_predict(City, PromptTemplate(ASKS_CITY)).city
    yield "structured output"


report("LlamaIndex, `OpenAILike`", "llama-index-llms-openai-like", tried(OpenAILike(
    model=model, api_base=base_url + "/v1", api_key="unused", is_chat_model=True, is_function_calling_model=True,
    context_window=8192)))
report("LlamaIndex, `Ollama`", "llama-index-llms-ollama", tried(Ollama(
    model=model, base_url=base_url, context_window=8192, request_timeout=30)))
finish()
