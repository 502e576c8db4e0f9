"""The fields of each request as the pinned client libraries declare them, as JSON: endpoint to JSON pointers."""
import json

from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta_message_create_params
from ollama import _types as ollama
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params


def typed(*params):
    return sorted({"/" + name for one in params for name in one.__annotations__})


def modeled(model, options=False):
    fields = sorted("/" + name for name in model.model_fields)
    return fields + [f"/options/{name}" for name in sorted(ollama.Options.model_fields)] * options


print(json.dumps({
    "/v1/chat/completions": typed(chat_create_params.CompletionCreateParamsBase),
    "/v1/completions": typed(completion_create_params.CompletionCreateParamsBase),
    "/v1/embeddings": typed(embedding_create_params.EmbeddingCreateParams),
    "/v1/responses": typed(response_create_params.ResponseCreateParamsBase),
    "/v1/messages": typed(message_create_params.MessageCreateParamsBase, beta_message_create_params.MessageCreateParamsBase),
    "/v1/messages/count_tokens": typed(message_count_tokens_params.MessageCountTokensParams),
    "/api/chat": modeled(ollama.ChatRequest, True),
    "/api/generate": modeled(ollama.GenerateRequest, True),
    "/api/embed": modeled(ollama.EmbedRequest),
    "/api/embeddings": modeled(ollama.EmbeddingsRequest),
}))
