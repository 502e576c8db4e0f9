// The AI SDK with its providers: chat, stream, a turn with a tool, structured output.   ai_sdk.mjs BASE_URL MODEL
import { readFileSync } from "node:fs";
import assert from "node:assert";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";

const [baseUrl, name] = process.argv.slice(2);
const { dependencies } = JSON.parse(readFileSync(new URL("package.json", import.meta.url)));
const schema = z.object({ city: z.enum(["Paris"]) });
const prompt = "Why is the sky blue?";
const rows = [];

async function check(client, dependency, model) {
  assert((await generateText({ model, prompt, maxRetries: 0 })).text);
  let parts = 0;
  for await (const text of streamText({ model, prompt, maxRetries: 0, onError: ({ error }) => { throw error; } }).textStream) parts += text ? 1 : 0;
  assert(parts > 1, `${parts} parts`);
  const called = [];
  const tools = {
    get_weather: tool({
      description: "Weather of a city",
      inputSchema: schema,
      execute: async ({ city }) => { called.push(city); return "Sunny"; },
    }),
  };
  const turn = await generateText({ model, prompt: "Please get_weather of Paris", tools, stopWhen: isStepCount(2), maxRetries: 0 });
  assert.deepEqual(called, ["Paris"]);
  assert(turn.text);
  const forced = await generateText({ model, prompt: "Please get_weather of Paris", tools, toolChoice: "required", maxRetries: 0 });
  assert.equal(forced.toolCalls[0].toolName, "get_weather");
  const { output } = await generateText({ model, prompt: "Answer as json", output: Output.object({ schema }), maxRetries: 0 });
  assert.deepEqual(output, { city: "Paris" });
  rows.push([client, `${dependency} ${dependencies[dependency]}`, ["chat", "stream", "tools", "structured output"]]);
}

const openai = createOpenAI({ baseURL: `${baseUrl}/v1`, apiKey: "unused" });
const compatible = createOpenAICompatible({ name: "sluice", baseURL: `${baseUrl}/v1`, apiKey: "unused", supportsStructuredOutputs: true });
const anthropic = createAnthropic({ baseURL: `${baseUrl}/v1`, apiKey: "unused" });
const ollama = createOllama({ baseURL: `${baseUrl}/api` });
await check("AI SDK, OpenAI's chat", "@ai-sdk/openai", openai.chat(name));
await check("AI SDK, OpenAI's responses", "@ai-sdk/openai", openai.responses(name));
await check("AI SDK, OpenAI-compatible", "@ai-sdk/openai-compatible", compatible(name));
await check("AI SDK, Anthropic", "@ai-sdk/anthropic", anthropic(name));
await check("AI SDK, Ollama", "ollama-ai-provider-v2", ollama(name));
console.log(JSON.stringify(rows));
