// Opens the console in a real browser: logs in by the link, looks at it light, dark and narrow, makes and revokes a key,
// goes through it by keyboard, and has axe check what people with other senses need.
//   node console.mjs LINK DIRECTORY-FOR-PICTURES
import axe from "axe-core";
import puppeteer from "puppeteer-core";

const [link, pictures] = process.argv.slice(2);
const fail = (what) => { console.error(what); process.exit(1); };
const browser = await puppeteer.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
});
const troubles = [];
const outside = [];

async function open(width, height, scheme) {
  const page = await browser.newPage();
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) troubles.push(message.text());
  });
  page.on("pageerror", (error) => troubles.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).host !== new URL(link).host) outside.push(request.url());
  });
  await page.setViewport({ width, height, deviceScaleFactor: 1 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  return page;
}

async function checked(page, name) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map((one) => `${one.id}: ${one.help} (${one.nodes.map((node) => node.target.join(" ")).join(", ")})`);
  if (told.length > 0) fail(`${name}: ${told.join("\n")}`);
  await page.screenshot({ path: `${pictures}/console-${name}.png`, fullPage: true });
}

const first = await open(1280, 900, "light");
await first.goto(link, { waitUntil: "load" });
if (!(await first.$("#h-queue"))) fail("the link does not let in");

// It stays fresh by itself.
const stamp = () => first.$eval("[data-part=head]", (node) => node.textContent);
const before = await stamp();
await first.waitForFunction((old) => document.querySelector("[data-part=head]").textContent !== old, { timeout: 10000 }, before);
await checked(first, "light");

const dark = await open(1280, 900, "dark");
await dark.goto(new URL("/", link).href, { waitUntil: "load" });
await checked(dark, "dark");
const narrow = await open(390, 844, "light");
await narrow.goto(new URL("/", link).href, { waitUntil: "load" });
const overflow = await narrow.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
if (overflow > 0) fail(`the narrow page is ${overflow} pixels too wide`);
await checked(narrow, "narrow");

// By keyboard alone: to the form, a key for the first user, and its end.
await first.focus("#user");
await first.keyboard.press("Tab");
await first.keyboard.type("30d");
await Promise.all([first.waitForNavigation(), first.keyboard.press("Enter")]);
const secret = await first.$eval("#secret", (node) => node.textContent);
if (!secret.startsWith("sk-sluice-")) fail(`no key: ${secret}`);
await checked(first, "key");
const revoke = await first.$("button.danger");
await revoke.focus();
await Promise.all([first.waitForNavigation(), first.keyboard.press("Enter")]);
if (!(await first.$eval("main > .notice:not(#lost)", (node) => node.textContent)).includes("revoked")) fail("not revoked");
// The first Tab goes to the way past the navigation.
await first.goto(new URL("/", link).href, { waitUntil: "load" });
await first.keyboard.press("Tab");
const focused = await first.evaluate(() => document.activeElement.className);
if (focused !== "skip") fail(`the first Tab goes to ${focused}`);

// The link has been used.
const again = await (await browser.createBrowserContext()).newPage();
await again.goto(link, { waitUntil: "load" });
if (await again.$("#h-queue")) fail("the link lets in twice");

await browser.close();
if (outside.length > 0) fail(`asked elsewhere: ${outside.join(", ")}`);
if (troubles.length > 0) fail(`the browser's console says: ${troubles.join("\n")}`);
console.log("console ok");
