// Pages of other origins in a real browser: which may call the gateway, and which may not.
//   node web_page.mjs PROXY ADMIN PORT-OF-THE-PAGES
// Every name under .example is this machine, as after DNS rebinding. The gateway allows page.example alone.
import puppeteer from "puppeteer-core";

const [proxy, admin, pages] = process.argv.slice(2);
const fail = (what) => { console.error(what); process.exit(1); };
const browser = await puppeteer.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  // The browser's own bars between networks are down, so that what is refused is refused by the gateway.
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--host-resolver-rules=MAP *.example 127.0.0.1", "--disable-features=LocalNetworkAccessChecks"],
});

// What a page sees of a request: status, text and number of pieces; or the error with which the browser withholds it.
const seen = (page, url, options) => page.evaluate(async (url, options) => {
  try {
    const answer = await fetch(url, options);
    const reader = answer.body?.getReader(), decoder = new TextDecoder();
    let text = "", pieces = 0;
    for (let read; reader && !(read = await reader.read()).done; pieces++) text += decoder.decode(read.value, { stream: true });
    return { status: answer.status, id: answer.headers.get("x-sluice-request-id"), text, pieces };
  } catch (error) {
    return { error: String(error) };
  }
}, url, options);

const chat = (type) => ({
  method: "POST",
  headers: { "content-type": type, ...(type === "application/json" && { "x-sluice-user": "user_vip_01" }) },
  body: JSON.stringify({ model: "simulated-small", stream: true, max_tokens: 20, messages: [{ role: "user", content: "hi" }] }),
});
const completions = `${proxy}/v1/chat/completions`;
const expect = (what, condition, got) => condition || fail(`${what}: ${JSON.stringify(got)}`);

const allowed = await browser.newPage();
await allowed.goto(`http://page.example:${pages}/`);
const streamed = await seen(allowed, completions, chat("application/json"));
expect("the allowed page streams", streamed.status === 200 && streamed.text.endsWith("data: [DONE]\n\n")
  && streamed.pieces > 2 && streamed.id, streamed);
for (const method of ["PUT", "PATCH", "DELETE"]) {
  const got = await seen(allowed, `${proxy}/v1/responses/resp_none`, { method });
  expect(`${method} reaches the gateway`, got.status >= 400, got);
}

const other = await browser.newPage();
await other.goto(`http://other.example:${pages}/`);
for (const type of ["application/json", "text/plain"]) {
  const got = await seen(other, completions, chat(type));
  expect(`another page gets nothing with ${type}`, got.error, got);
}
// The answer to a form or to such a request is withheld in any case; that it is not carried out is for the ledger to say.
await seen(other, completions, { ...chat("text/plain"), mode: "no-cors" });

// A rebound page: its document came from elsewhere, its name now means this machine.
async function rebound(listener) {
  const page = await browser.newPage();
  await page.setRequestInterception(true);
  page.on("request", (request) => request.isNavigationRequest()
    ? request.respond({ status: 200, contentType: "text/html", body: "<!doctype html><title>rebound</title>" })
    : request.continue());
  await page.goto(`http://rebound.example:${new URL(listener).port}/page`);
  return page;
}
const onProxy = await rebound(proxy);
for (const [path, options] of [["/v1/models", {}], ["/v1/chat/completions", chat("application/json")]]) {
  const got = await seen(onProxy, path, options);
  expect(`the proxy listener refuses a rebound page ${path}`, got.status === 403 && got.text.includes("rebound.example"), got);
}
const onAdmin = await rebound(admin);
for (const path of ["/metrics", "/health", "/", "/login"]) {
  const got = await seen(onAdmin, path, {});
  expect(`the admin listener refuses a rebound page ${path}`, got.status === 403 && got.text.includes("rebound.example"), got);
}
await browser.close();
console.log("web page ok");
