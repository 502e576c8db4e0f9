// Every cell of the matrix that the Anthropic client has.   matrix_anthropic.mjs BASE_URL MODEL TOOL_CHOICE
// Prints JSON: for each cell the tokens in and out that the client saw, in the order in which it asked.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const [base, model, choice] = process.argv.slice(2);
const client = new Anthropic({ baseURL: base, apiKey: "unused", maxRetries: 0 });
const asking = { model, max_tokens: 12, messages: [{ role: "user", content: "Why is the sky blue?" }] };
const input_schema = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris"] } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ name: "get_weather", description: "Weather", input_schema }];
const calling = { model, tools, max_tokens: 64, messages: [{ role: "user", content: "Please get_weather of Paris" }] };
if (choice !== "auto") calling.tool_choice = { type: "any" };
const tokens = (usage) => [usage.input_tokens + (usage.cache_read_input_tokens ?? 0), usage.output_tokens];
const out = {};

const plain = await client.messages.create(asking);
assert(plain.content[0].text);
out.plain = tokens(plain.usage);

const streamed = await client.messages.stream(asking).finalMessage();
assert(streamed.content[0].text);
out.streamed = tokens(streamed.usage);

const called = await client.messages.create(calling);
// A model that only talks is asked all the same.
if (choice === "auto") {
  assert.deepEqual(called.content.at(-1).input, { city: "Paris" });
  assert.equal(called.stop_reason, "tool_use");
}
out.tools = tokens(called.usage);

const calledStreamed = await client.messages.stream(calling).finalMessage();
if (choice === "auto") assert.deepEqual(calledStreamed.content.at(-1).input, { city: "Paris" });
out["tools streamed"] = tokens(calledStreamed.usage);

assert((await client.messages.countTokens({ model, messages: asking.messages })).input_tokens > 0);
out.count = null;

const aborted = await client.messages.create({ ...asking, max_tokens: 400, stream: true });
for await (const event of aborted) if (event.type === "content_block_delta") break;
aborted.controller.abort();
out.abort = null;

await assert.rejects(client.messages.create({ ...asking, model: "nowhere" }), (error) => error.status === 404 && error.error.error.type === "not_found_error");
out.error = null;
console.log(JSON.stringify(out));
