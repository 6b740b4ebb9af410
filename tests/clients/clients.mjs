// Many socket.io clients in one process, each with a browser's cookie behaviour, each counting what
// it noticed of a failure.
//
//   node clients.mjs --url http://127.0.0.1:PORT --clients 50 --transports polling,websocket
//
// Every line on standard output is a JSON object with an `event`; the last is the `summary`.
// With `--messages M` it ends when each client has M acknowledgements, otherwise on the line
// `stop` or the end of standard input. With `--forgetful` no client keeps a cookie.

import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Client, RECONNECTION_DELAY } from "./client.mjs";

const { values: options } = parseArgs({
  options: {
    url: { type: "string" },
    clients: { type: "string", default: "50" },
    transports: { type: "string", default: "polling,websocket" },
    interval: { type: "string", default: "50" },
    messages: { type: "string", default: "0" },
    forgetful: { type: "boolean", default: false },
  },
});
const messages = Number(options.messages);
const DRAIN_DEADLINE = 3000;

function report(event, fields) {
  console.log(JSON.stringify({ event, ...fields }));
}

// Events about everybody at once, so that a test waits for one line instead of counting fifty.
const milestones = [
  ["steady", (client) => client.acknowledged >= 3],
  ["broken", (client) => client.errorCount > 0],
];

function milestonesReached() {
  for (const [index, [event, reached]] of milestones.entries()) {
    if (clients.every(reached)) {
      report(event, {});
      milestones.splice(index, 1);
      return;
    }
  }
}

function tally(values) {
  const counts = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

function summary() {
  const sum = (field) => clients.reduce((total, client) => total + client[field], 0);
  const outages = clients.flatMap((client) => client.outages).sort((a, b) => a - b);
  return {
    transports: options.transports,
    clients: clients.length,
    connected: clients.filter((client) => client.instances.length > 0).length,
    by_transport: tally(clients.map((client) => client.transport)),
    sent: sum("sequence"),
    acknowledged: sum("acknowledged"),
    pushed: sum("pushes"),
    lost: clients.reduce((total, client) => total + client.unacknowledged.size, 0),
    resent: sum("resent"),
    out_of_order: sum("outOfOrder"),
    mismatched: sum("mismatched"),
    moves: sum("moves"),
    disconnects: sum("disconnects"),
    reconnects: sum("reconnects"),
    reconnection_delay_ms: RECONNECTION_DELAY,
    outage_ms: { median: outages[outages.length >> 1] ?? 0, max: outages.at(-1) ?? 0 },
    errors: tally(clients.flatMap((client) => client.errors)),
    instances: tally(clients.map((client) => client.instances.at(-1) ?? "none")),
    by_client: clients.map((client) => ({
      client: client.id,
      instances: client.instances,
      cookies: client.cookieCount,
      acknowledged: client.acknowledged,
      disconnects: client.disconnects,
      errors: client.errorCount,
    })),
  };
}

let ending = false;
function end() {
  if (ending) return;
  ending = true;
  clients.forEach((client) => client.stopSending());
  const deadline = Date.now() + DRAIN_DEADLINE;
  const poll = setInterval(() => {
    const settled = clients.every((client) => client.settled);
    if (!settled && Date.now() < deadline) return;
    clearInterval(poll);
    clients.forEach((client) => client.close());
    process.stdout.write(`${JSON.stringify({ event: "summary", ...summary() })}\n`, () =>
      process.exit(0),
    );
  }, 10);
}

function progress() {
  milestonesReached();
  if (messages > 0 && clients.every((client) => client.acknowledged >= messages)) end();
}

const clients = Array.from(
  { length: Number(options.clients) },
  (_, id) =>
    new Client({
      id,
      url: options.url,
      transports: options.transports.split(","),
      interval: Number(options.interval),
      messages,
      forgetful: options.forgetful,
      report,
      progress,
    }),
);

createInterface({ input: process.stdin })
  .on("line", (line) => line.trim() === "stop" && end())
  .on("close", end);
