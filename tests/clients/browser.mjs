// One page in Chromium that opens WebSockets, and tells as lines of JSON what the page sees of their
// ends. Commands on standard input: `open NAME PATH` opens one, which is `open` once its first message
// has come back; `echo NAME` sends another; `see URL` tells what a page of `/seen` says, `frame URL` what
// one in its frame says; `cookie URL NAME VALUE` puts a cookie in the place of another. With --hosts, names
// of hosts lead to this machine and no certificate is doubted. Ends when its standard input does.

import { parseArgs } from "node:util";
import { createInterface } from "node:readline";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { values: options } = parseArgs({
  options: { url: { type: "string" }, browser: { type: "string" }, hosts: { type: "boolean" } },
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
    ...(options.hosts ? ["--host-resolver-rules=MAP *.test 127.0.0.1"] : []),
  ],
  ignoreHTTPSErrors: options.hosts,
});

const page = browser.pages()[0] ?? (await browser.newPage());
await page.exposeFunction("say", say);
await page.goto(`${options.url}/page`);
const protocol = () =>
  page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
const version = browser.browser()?.version();
say({ event: "page", title: await page.title(), version, protocol: await protocol() });

async function command(line) {
  const [verb, name, path, value] = line.split(" ");
  if (verb === "open") {
    await page.evaluate(({ name, path }) => window.openSocket(name, path), { name, path });
  } else if (verb === "echo") {
    await page.evaluate((name) => window.sockets[name].send("hello"), name);
  } else if (verb === "see") {
    await page.goto(name);
    say({ event: "seen", ...JSON.parse(await page.textContent("p")) });
  } else if (verb === "frame") {
    await page.goto(name);
    const frame = page.frames()[1];
    say({ event: "framed", ...JSON.parse(await frame.textContent("p")) });
  } else if (verb === "cookie") {
    await browser.addCookies([{ url: name, name: path, value, secure: true, httpOnly: true }]);
    say({ event: "put" });
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  await command(line);
}
await browser.close();
await rm(profile, { recursive: true, force: true });
