// Plays the admin API for the dashboard, with as many instances as wanted, of names that a configuration
// would not let through: what the page makes of answers is not to depend on who gives them. The page
// itself comes from a real Burdock at --page, fields and all.
//
//   node admin_api.mjs --page http://127.0.0.1:9900 [--token TOKEN] [--instances N]
//
// Prints `listening PORT api`, and each change that is asked of it as a line of JSON. Lines of JSON on
// standard input change what it plays: {"id": ID, ...} an instance, {"event": EVENT} happens, {"mute": true}
// answers nothing any more and ends all streams. Ends when its standard input does.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    page: { type: "string" },
    token: { type: "string" },
    instances: { type: "string", default: "0" },
  },
});

const HOSTILE = [
  "<img src=x onerror=alert(1)>",
  "\"><script>document.title = 'owned'</script>",
  "a\u202egnp.exe",
  "a/b c&d?e#f%2F",
  "x".repeat(200),
];
const now = () => new Date().toISOString();
const say = (line) => console.log(JSON.stringify(line));

const rates = (rps, eps = 0) => ({
  requests_total: Math.round(rps * 60),
  failures_total: 0,
  requests_per_second: rps,
  errors_per_second: eps,
  latency_seconds: rps > 0 ? { p50: 0.004, p90: 0.012, p99: 0.08 } : null,
});

function made(name, i) {
  return {
    id: `chat/v1/${name}`,
    name,
    address: `127.0.0.1:${9001 + (i % 1000)}`,
    source: "file",
    weight: 1,
    effective_weight: 1,
    membership: "present",
    admin: "active",
    health: "ready",
    breaker: "closed",
    takes: { new: true, bound: true, reason: null },
    drain: null,
    sessions: 412,
    requests: 3,
    tunnels: 37,
    rates: rates(10),
    restarts: 0,
    probes: { readiness: { at: now(), ok: true, detail: "200 in 3 ms" }, liveness: null },
  };
}

const many = Array.from(
  { length: Number(options.instances) },
  (_, i) => `pod-${String(i).padStart(5, "0")}`,
);
const instances = new Map(
  ["aster", "bellis", "cirsium", ...HOSTILE, ...many].map((name, i) => [
    `chat/v1/${name}`,
    made(name, i),
  ]),
);
const events = [];
const streams = new Set();
let mute = false;
let generation = 3;

function status() {
  const version = {
    name: "v1",
    session_affinity: true,
    balance: "even",
    panic: false,
    queue: 0,
    rates: rates(30),
    affinity: {},
    rehomes: {},
    checks: { readiness: true, liveness: false },
    instances: [...instances.values()],
  };
  const off = [...instances.values()].filter((it) => it.admin !== "active");
  return {
    burdock: {
      version: "0.1.0",
      pid: 1,
      started: "2026-01-01T00:00:00.000Z",
      uptime_seconds: 3_700,
      workers: 2,
      phase: "serving",
    },
    config: {
      generation,
      file: "burdock.yaml",
      last_reload: { ok: true, at: now(), problems: [] },
    },
    connections: { open: 12, total: 345 },
    descriptors: { max: 1024, short: false },
    totals: rates(30),
    listeners: [{ address: "127.0.0.1:8080", tls: false, http2: true, proxy_protocol: "off" }],
    services: [{ name: "chat", hosts: ["*"], paths: ["/"], versions: [version] }],
    differences: off.map((it) => ({
      id: it.id,
      what: "state",
      file: "active",
      now: it.admin,
      since: now(),
      by: "api",
    })),
    warnings: [
      {
        code: "sid_unknown",
        message: 'chat/v1 answers "Session ID unknown"',
        cure: "affinity: { engine_io: true }",
        since: now(),
        count: 12,
      },
    ],
  };
}

let ticks = 0;
function tick() {
  ticks += 1;
  const all = [...instances.values()];
  const odd = all.filter(
    (it) => it.admin !== "active" || it.health !== "ready" || it.breaker !== "closed",
  );
  const told = all.length > 200 ? [...new Set([...odd, ...all.slice(0, 200)])] : all;
  const row = (it) => ({
    rps: it.rates.requests_per_second,
    eps: it.rates.errors_per_second,
    p99: it.rates.latency_seconds?.p99 ?? null,
    requests: it.requests,
    tunnels: it.tunnels,
    sessions: it.sessions,
    admin: it.admin,
    health: it.health,
    breaker: it.breaker,
    weight: it.weight,
  });
  const sum = (key) => all.reduce((total, it) => total + it[key], 0);
  return {
    at: now(),
    totals: rates(30 + ticks),
    connections: 12,
    tunnels: sum("tunnels"),
    sessions: sum("sessions"),
    rehomes_total: { unready: ticks, dead: 0 },
    instances: Object.fromEntries(told.map((it) => [it.id, row(it)])),
    last_event: events.length,
    ...(told.length < all.length && { instances_left_out: all.length - told.length }),
  };
}

const history = () => ({
  step_seconds: 5,
  until: now(),
  series: {
    requests_per_second: [10, null, 30],
    errors_per_second: [0, null, 0],
    p50: [0.004, null, 0.004],
    p90: [0.01, null, 0.01],
    p99: [0.08, null, 0.09],
    tunnels: [30, null, 37],
    connections: [12, null, 12],
    sessions: [400, null, 412],
    rehomes: { unready: [0, null, 4], dead: [0, null, 0] },
  },
});

const explanation = (url) => ({
  listener: "127.0.0.1:8080",
  service: "chat",
  why_service: `any host, path / of ${url}`,
  version: "v1",
  token: { verdict: "rejected", reason: "expired", carrier: "cookie" },
  candidates: [...instances.values()].map((it) => ({
    instance: it.name,
    in: it.takes.new,
    reason: it.admin,
  })),
  choice: "bellis",
  why: "its turn",
  outcome: "assigned",
});

const told = (event) => `id: ${event.id}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`;

function happens(event) {
  const whole = {
    id: events.length + 1,
    at: now(),
    severity: "info",
    instance: null,
    fields: {},
    ...event,
  };
  events.push(whole);
  for (const stream of streams) if (stream.tells === "events") stream.response.write(told(whole));
}

// A drain that moves a tenth of what there was with each second.
function drain(it) {
  const begin = { sessions: it.sessions, tunnels: it.tunnels };
  it.drain = { cause: "draining", deadline_seconds: 10, requests: 0, done: false, ...begin };
  const moves = setInterval(() => {
    if (it.admin !== "draining") return clearInterval(moves);
    it.drain.deadline_seconds -= 1;
    for (const key of ["sessions", "tunnels"])
      it.drain[key] = it[key] = Math.max(0, it[key] - Math.ceil(begin[key] / 10));
    it.drain.done = it.drain.sessions + it.drain.tunnels === 0;
    if (it.drain.done) clearInterval(moves);
  }, 1_000);
}

function change(it, body) {
  say({ changed: it.id, ...body });
  if (body.state) {
    it.admin = body.state;
    it.drain = null;
    it.takes = {
      new: body.state === "active",
      bound: body.state !== "disabled",
      reason: body.state === "active" ? null : body.state,
    };
    if (body.state === "draining") drain(it);
    happens({ kind: "drain", instance: it.id, text: `${it.name} is ${body.state}` });
  }
  if (body.weight !== undefined) it.weight = body.weight ?? 1;
  return it;
}

function stream(response, tells, first) {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(first);
  const one = { response, tells };
  streams.add(one);
  response.on("close", () => streams.delete(one));
}
setInterval(() => {
  const line = `data: ${JSON.stringify(tick())}\n\n`;
  for (const { response, tells } of streams) if (tells === "live") response.write(line);
}, 250);

function answer(request, response, path, query, body) {
  const json = (value, code = 200) =>
    response.writeHead(code, { "Content-Type": "application/json" }).end(JSON.stringify(value));
  const [kind, ...id] = path.split("/").map(decodeURIComponent);
  if (options.token && request.headers.authorization !== `Bearer ${options.token}`)
    return json({ title: "Unauthorized", status: 401, detail: "a token is needed" }, 401);
  if (request.method !== "GET" && request.headers["content-type"] !== "application/json")
    return json({ title: "Unsupported Media Type", status: 415 }, 415);
  if (path === "live") return stream(response, "live", `data: ${JSON.stringify(tick())}\r\n\r\n`);
  if (path === "events")
    return stream(
      response,
      "events",
      `: from here\n\n${events
        .filter((it) => it.id > Number(query.get("since") ?? 0))
        .map(told)
        .join("")}`,
    );
  if (path === "reload")
    return json({
      generation: (generation += 1),
      changes: ["services.chat.versions.v1.drain.timeout: 30s -> 1m"],
      warnings: [],
    });
  if (path === "status") return json(status());
  if (path === "history") return json(history());
  if (path === "explain") return json(explanation(query.get("url")));
  const it = kind === "instances" ? instances.get(id.join("/")) : undefined;
  if (!it) return json({ title: "Not Found", status: 404, detail: `nothing at ${path}` }, 404);
  return json(request.method === "PATCH" ? change(it, JSON.parse(body)) : it);
}

async function page(request, response) {
  const file = await fetch(options.page + request.url);
  response.writeHead(
    file.status,
    Object.fromEntries(
      [...file.headers].filter(
        ([name]) => !["connection", "keep-alive", "content-length"].includes(name),
      ),
    ),
  );
  response.end(Buffer.from(await file.arrayBuffer()));
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://api");
  if (!url.pathname.startsWith("/api/v1/")) return page(request, response);
  if (mute) return request.socket.destroy();
  let body = "";
  for await (const part of request) body += part;
  answer(request, response, url.pathname.slice("/api/v1/".length), url.searchParams, body);
});

for await (const line of lines()) {
  const { id, event, mute: muted, ...changes } = JSON.parse(line);
  if (id) Object.assign(instances.get(id), changes);
  if (event) happens(event);
  if (muted !== undefined) mute = muted;
  if (mute) for (const { response } of streams) response.destroy();
}
process.exit(0);

function lines() {
  server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port} api`));
  return createInterface({ input: process.stdin });
}
