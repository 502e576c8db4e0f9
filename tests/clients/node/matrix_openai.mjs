// Every cell of the matrix that the `openai` client has.   matrix_openai.mjs BASE_URL MODEL TOOL_CHOICE
// Prints JSON: for each cell the tokens in and out that the client saw, in the order in which it asked.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [base, model, choice] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "unused", maxRetries: 0 });
const asking = { model, messages: [{ role: "user", content: "Why is the sky blue?" }], max_tokens: 12 };
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris"] } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters } }];
const calling = { model, tools, max_tokens: 64, messages: [{ role: "user", content: "Please get_weather of Paris" }] };
if (choice !== "auto") calling.tool_choice = choice;
const tokens = (usage) => [usage.prompt_tokens, usage.completion_tokens];
const out = {};

const plain = await client.chat.completions.create(asking);
assert(plain.choices[0].message.content);
out.plain = tokens(plain.usage);

let text = "", usage;
for await (const chunk of await client.chat.completions.create({ ...asking, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
assert(text);
out.streamed = tokens(usage);

const called = await client.chat.completions.create(calling);
// A model that only talks is asked all the same.
if (choice === "auto") {
  assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
  assert.deepEqual(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments), { city: "Paris" });
}
out.tools = tokens(called.usage);

let last;
for await (const event of await client.responses.create({ model, input: "Why is the sky blue?", max_output_tokens: 12, stream: true })) last = event;
assert(["response.completed", "response.incomplete"].includes(last.type), last.type);
out["response streamed"] = [last.response.usage.input_tokens, last.response.usage.output_tokens];

const vectors = await client.embeddings.create({ model, input: ["one", "two"] });
assert.equal(vectors.data.length, 2);
assert(vectors.data[0].embedding.length > 1);
out.embeddings = [vectors.usage.prompt_tokens, 0];

const aborted = await client.chat.completions.create({ ...asking, max_tokens: 400, stream: true });
for await (const _ of aborted) break;
aborted.controller.abort();
out.abort = null;

await assert.rejects(client.chat.completions.create({ ...asking, model: "nowhere" }), (error) => error.status === 404 && error.message.includes("nowhere"));
await assert.rejects(client.chat.completions.create({ ...asking, max_tokens: "many" }), (error) => error.status === 400);
out.error = null;
console.log(JSON.stringify(out));
