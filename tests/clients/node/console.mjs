// Opens the console in a real browser: logs in by the link, looks at every page light, dark and narrow, makes, rotates and
// revokes a key, goes through it by keyboard, and has axe check what people with other senses need.
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

const go = (page, path) => page.goto(new URL(path, link).href, { waitUntil: "load" });

// What axe finds, what is wider than the page, and a picture.
async function checked(page, name) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map((one) => `${one.id}: ${one.help} (${one.nodes.map((node) => node.target.join(" ")).join(", ")})`);
  if (told.length > 0) fail(`${name}: ${told.join("\n")}`);
  const wide = await page.evaluate(() => {
    const all = [document.documentElement, ...document.querySelectorAll(".card, .tile, nav, main")];
    return all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => `${one.tagName} ${one.className} by ${one.scrollWidth - one.clientWidth}`);
  });
  const isNarrow = page.viewport().width < 700;
  if (wide.length > 0 && (isNarrow || wide.some((one) => one.startsWith("HTML")))) fail(`${name} is cut: ${wide.join(", ")}`);
  await page.screenshot({ path: `${pictures}/console-${name}.png`, fullPage: true });
}

const first = await open(1400, 900, "light");
await first.goto(link, { waitUntil: "load" });
if (!(await first.$("#h-plots"))) fail("the link does not let in");

// It stays fresh by itself.
const stamp = () => first.$eval("[data-part=head]", (node) => node.textContent);
const before = await stamp();
await first.waitForFunction((old) => document.querySelector("[data-part=head]").textContent !== old, { timeout: 10000 }, before);

// A key for the pictures, made by keyboard alone: to the form, for the first user.
await go(first, "/console/keys");
await first.focus("#user");
await first.keyboard.press("Tab");
await first.keyboard.type("laptop of Ada");
await first.keyboard.press("Tab");
await first.keyboard.type("30d");
await Promise.all([first.waitForNavigation(), first.keyboard.press("Enter")]);
const secret = await first.$eval("#secret", (node) => node.textContent);
if (!secret.startsWith("sk-sluice-")) fail(`no key: ${secret}`);
// A live part may be replaced between the focus and the key, which then reaches nothing.
const press = async (selector) => {
  for (let left = 3; ; left -= 1) {
    await first.focus(selector);
    const [moved] = await Promise.allSettled([first.waitForNavigation({ timeout: 10000 }), first.keyboard.press("Enter")]);
    if (moved.status === "fulfilled") return;
    if (left === 1) throw moved.reason;
  }
};
await press("[id^=rotate-]");
const rotated = await first.$eval("#secret", (node) => node.textContent);
if (!rotated.startsWith("sk-sluice-") || rotated === secret) fail(`not rotated: ${rotated}`);

// Every page of the navigation, and the pages that they lead to.
const paths = await first.$$eval(".side nav a", (all) => all.map((one) => one.getAttribute("href")));
if (paths.length < 8) fail(`few pages: ${paths}`);
for (const [list, link] of [["/console/projects", "/console/project?"], ["/console/requests", "/console/request?"]]) {
  await go(first, list);
  const found = await first.$$eval("td a", (all) => all.map((one) => one.getAttribute("href")));
  const one = found.find((path) => path.startsWith(link));
  if (!one) fail(`${list} leads to no ${link}: ${found}`);
  paths.push(one);
}
for (const [width, height, scheme, name] of [[1400, 900, "light", "light"], [1400, 900, "dark", "dark"], [900, 900, "light", "medium"], [390, 844, "dark", "narrow"]]) {
  const page = await open(width, height, scheme);
  for (const path of paths) {
    await go(page, path);
    if ((await page.$$(".side a[aria-current=page]")).length !== 1) fail(`${path} is not marked in the navigation`);
    await checked(page, `${path.split("?")[0].split("/").pop() || "overview"}-${name}`);
  }
  await page.close();
}

// A search by form: what was refused, and the page of one of them.
await go(first, "/console/requests");
await first.select("#status", "rejected");
await Promise.all([first.waitForNavigation(), first.click("form.inline button")]);
const statuses = await first.$$eval("td[data-label=Status] .state", (all) => all.map((one) => one.textContent));
if (statuses.length === 0 || statuses.some((one) => one !== "rejected")) fail(`found ${statuses}`);
await Promise.all([first.waitForNavigation(), first.click("td[data-label=Request] a")]);
if (!(await first.$eval("#h-outcome + p + p + p", (node) => node.textContent)).startsWith("What to do")) fail("no advice");
await checked(first, "refused-light");
// A stranger's request has no project and no user to link to.
await go(first, "/console/requests?status=rejected&reason=unknown_user");
await Promise.all([first.waitForNavigation(), first.click("td[data-label=Request] a")]);
await checked(first, "stranger-light");

await go(first, "/console/keys");
await press("[id^=revoke-]");
if (!(await first.$eval("main > .notice:not(#lost)", (node) => node.textContent)).includes("revoked")) fail("not revoked");
// The first Tab goes to the way past the navigation.
await go(first, "/");
await first.keyboard.press("Tab");
const focused = await first.evaluate(() => document.activeElement.className);
if (focused !== "skip") fail(`the first Tab goes to ${focused}`);

// The link has been used.
const again = await (await browser.createBrowserContext()).newPage();
await again.goto(link, { waitUntil: "load" });
if (await again.$("#h-plots")) fail("the link lets in twice");

await browser.close();
if (outside.length > 0) fail(`asked elsewhere: ${outside.join(", ")}`);
if (troubles.length > 0) fail(`the browser's console says: ${troubles.join("\n")}`);
console.log("console ok");
