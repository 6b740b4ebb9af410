// One page in Chromium that opens WebSockets, and tells as lines of JSON what the page sees of their
// ends. Commands on standard input: `open NAME PATH` opens one, which is `open` once its first message
// has come back; `echo NAME` sends another. Ends when its standard input does.

import { parseArgs } from "node:util";
import { createInterface } from "node:readline";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { values: options } = parseArgs({
  options: { url: { type: "string" }, browser: { type: "string" } },
});

const say = (line) => console.log(JSON.stringify(line));

const profile = await mkdtemp(join(tmpdir(), "burdock-browser-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: options.browser,
  headless: true,
  chromiumSandbox: false,
  args: [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

const page = browser.pages()[0] ?? (await browser.newPage());
await page.exposeFunction("say", say);
await page.goto(`${options.url}/page`);
say({ event: "page", title: await page.title(), version: browser.browser()?.version() });

async function command(line) {
  const [verb, name, path] = line.split(" ");
  if (verb === "open") {
    await page.evaluate(({ name, path }) => window.openSocket(name, path), { name, path });
  } else if (verb === "echo") {
    await page.evaluate((name) => window.sockets[name].send("hello"), name);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  await command(line);
}
await browser.close();
await rm(profile, { recursive: true, force: true });
