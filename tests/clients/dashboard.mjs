// The dashboard in Chromium, driven by lines of JSON on standard input and telling lines of JSON:
//
//   {"do": "see", "at": SELECTOR, "text": TEXT}   waits until a visible element that fits has the text
//   {"do": "gone", "at": SELECTOR}                waits until none is visible
//   {"do": "click", "at": SELECTOR}, {"do": "press", "key": KEY}, {"do": "fill", "at": SELECTOR, "text": TEXT}
//   {"do": "ask", "script": EXPRESSION}           tells its value
//   {"do": "resize", "width": PIXELS, "height": PIXELS}, {"do": "visit"}
//
// Each is answered by {"event": "done", "value": ...} or {"event": "failed", "why": ...}. Whatever the page
// does not take well is an {"event": "trouble"} of its own: errors, and what its policy has stopped. Ends
// when its standard input does.

import { parseArgs } from "node:util";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const TIMEOUT = 15_000;

const { values: options } = parseArgs({
  options: { url: { type: "string" }, browser: { type: "string" } },
});

const say = (line) => console.log(JSON.stringify(line));
const trouble = (what) => say({ event: "trouble", what });

const browser = await chromium.launch({
  executablePath: options.browser,
  chromiumSandbox: false,
  args: [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
page.setDefaultTimeout(TIMEOUT);
page.on("pageerror", (error) => trouble(error.stack));
page.on("console", (message) => {
  // A request that is refused is told here too; what the page makes of it is what counts.
  if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
    trouble(message.text());
});
page.on("dialog", (dialog) => (trouble(`a dialog: ${dialog.message()}`), dialog.dismiss()));
await page.exposeFunction("sayTrouble", trouble);
await page.addInitScript(() => {
  addEventListener("securitypolicyviolation", (event) => {
    globalThis.sayTrouble(
      `${event.violatedDirective} stopped ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`,
    );
  });
});

const COMMANDS = {
  visit: () => page.goto(options.url),
  see: ({ at, text }) =>
    page.locator(at).filter({ hasText: text, visible: true }).first().waitFor(),
  gone: ({ at }) =>
    page.locator(at).filter({ visible: true }).first().waitFor({ state: "detached" }),
  click: ({ at }) => page.locator(at).filter({ visible: true }).first().click(),
  press: ({ key }) => page.keyboard.press(key),
  fill: ({ at, text }) => page.fill(at, text),
  ask: ({ script }) => page.evaluate(script),
  resize: ({ width, height }) => page.setViewportSize({ width, height }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    const value = await COMMANDS[command.do](command);
    const told = ["string", "number", "boolean"].includes(typeof value) || Array.isArray(value);
    say({ event: "done", value: told ? value : null });
  } catch (error) {
    const shown = await page
      .evaluate((at) => document.querySelector(at)?.innerText, command.at ?? "body")
      .catch(() => null);
    say({ event: "failed", why: `${line}: ${error.message.split("\n")[0]}; it shows: ${shown}` });
  }
}
await browser.close();
