// Every cell of the matrix that the `ollama` client has.   matrix_ollama.mjs BASE_URL MODEL TOOL_CHOICE
// Prints JSON: for each cell the tokens in and out that the client saw, in the order in which it asked.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const [base, model, choice] = process.argv.slice(2);
const client = new Ollama({ host: base });
const asking = { model, messages: [{ role: "user", content: "Why is the sky blue?" }], options: { num_predict: 12 } };
const parameters = { type: "object", properties: { city: { type: "string", enum: ["Paris"] } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters } }];
const calling = { model, tools, messages: [{ role: "user", content: "Please get_weather of Paris" }], options: { num_predict: 64 } };
const tokens = (answer) => [answer.prompt_eval_count, answer.eval_count];
const out = {};

const plain = await client.chat(asking);
assert(plain.message.content);
out.plain = tokens(plain);

let text = "", last;
for await (const part of await client.chat({ ...asking, stream: true })) {
  text += part.message.content;
  last = part;
}
assert(text && last.done);
out.streamed = tokens(last);

const called = await client.chat(calling);
if (choice === "auto") assert.deepEqual(called.message.tool_calls[0].function.arguments, { city: "Paris" });
out.tools = tokens(called);

const vectors = await client.embed({ model, input: ["one", "two"] });
assert.equal(vectors.embeddings.length, 2);
out.embeddings = [vectors.prompt_eval_count, 0];

const aborted = await client.chat({ ...asking, options: { num_predict: 400 }, stream: true });
for await (const _ of aborted) break;
aborted.abort();
out.abort = null;

await assert.rejects(client.chat({ ...asking, model: "nowhere" }), (error) => error.status_code === 404);
out.error = null;
console.log(JSON.stringify(out));
