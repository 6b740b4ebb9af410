// The demo's page: a chat that survives its instance, and one request a second to show who answers.
// It knows the JSON of `chat.rs` and the codes a balancer may close a WebSocket with. It never sees
// the affinity cookie, which is HttpOnly: the browser alone carries it.

const $ = (id) => document.getElementById(id);
const NAMES = ["aster", "bellis", "cirsium"];
const KEPT = { dots: 200, log: 200, timeline: 50, pending: 20 };

const calm = matchMedia("(prefers-reduced-motion: reduce)");

const me = {
  instance: null, run: null, link: null, choice: "websocket",
  attempts: 0, refusedUpgrades: 0, firstRefusal: 0, lastAnswer: 0, lostAt: 0, cause: "", moves: 0, generation: 0,
};
const seen = new Map(); // instance -> time of its last sign of life
const pending = []; // messages not yet seen in the chat: sent again after a move

// --- small pieces -------------------------------------------------------------------------------

function element(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

function dot(instance) {
  const node = element("span", { className: "dot", textContent: instance ? instance[0] : "!" });
  node.ariaHidden = "true";
  if (instance) node.dataset.instance = instance;
  else node.classList.add("error");
  return node;
}

function trim(list, most) {
  while (list.childElementCount > most) list.firstElementChild.remove();
}

function clock() {
  return new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

function happened(instance, text) {
  const time = element("time", { textContent: clock() });
  $("timeline").prepend(element("li", {}, time, dot(instance), element("span", { textContent: text })));
  while ($("timeline").childElementCount > KEPT.timeline) $("timeline").lastElementChild.remove();
}

// --- the garden ---------------------------------------------------------------------------------

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function petals(count, from, to, shape) {
  const step = (to - from) / count;
  return Array.from({ length: count }, (_, i) =>
    svg("ellipse", { class: "petal", ...shape, transform: `rotate(${from + i * step})` }));
}

const HEADS = {
  aster: () => [...petals(18, 0, 360, { cy: -21, rx: 3.6, ry: 13 }), svg("circle", { class: "heart", r: 9 })],
  bellis: () => [...petals(11, 0, 360, { cy: -19, rx: 6.5, ry: 12 }), svg("circle", { class: "heart", r: 11 })],
  cirsium: () => [
    ...petals(9, -48, 60, { cy: -26, rx: 3.4, ry: 16 }),
    svg("ellipse", { class: "ball", cy: 3, rx: 16, ry: 15 }),
  ],
};

function plant(name, index) {
  const head = svg("g", { transform: "translate(60 44)" }, ...HEADS[name]());
  const drawing = svg("svg", { viewBox: "0 0 120 150", "aria-hidden": "true" },
    svg("path", { class: "stem", d: "M60 50C58 90 64 110 60 150" }),
    svg("path", { class: "leaf", d: "M61 118q26-4 30-24-26 0-30 24Z" }),
    svg("path", { class: "leaf", d: "M60 134q-26-4-30-24 26 0 30 24Z" }), head);
  const label = element("b", {}, element("kbd", { textContent: index + 1 }), ` ${name}`);
  const item = element("li", {}, drawing, label, element("small"));
  item.dataset.instance = name;
  return item;
}

function noticed(instance) {
  seen.set(instance, Date.now());
  flowerOf(instance)?.classList.remove("lost");
}

function flowerOf(instance) {
  return $("flowers").querySelector(`[data-instance="${CSS.escape(instance ?? "")}"]`);
}

function age(then) {
  const seconds = Math.round((Date.now() - then) / 1000);
  return seconds < 90 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}

function tend() {
  for (const item of $("flowers").children) {
    const name = item.dataset.instance;
    const here = me.link?.open && name === me.instance;
    item.classList.toggle("here", here);
    const told = seen.has(name) ? `seen ${age(seen.get(name))}` : "not met yet";
    item.lastChild.textContent = here ? "you are here" : told;
  }
  const seat = NAMES.indexOf(me.instance);
  if (seat >= 0) $("burr").style.setProperty("--seat", seat);
  $("burr").classList.toggle("adrift", !me.link?.open);
}

function status(...parts) {
  $("status").replaceChildren(...parts);
}

// --- the two transports -------------------------------------------------------------------------
// Each returns { kind, open, send, close } and reports through `on`: event(object), end(cause).

function viaWebSocket(on) {
  const url = new URL("/ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  const link = {
    kind: "websocket", open: false,
    send: (draft) => socket.send(JSON.stringify(draft)),
    close: () => socket.close(1000),
  };
  socket.onmessage = ({ data }) => on.event(JSON.parse(data));
  socket.onclose = ({ code, reason }) => on.end({ code, reason });
  return link;
}

function viaPolling(on) {
  const leaving = new AbortController();
  let session = null;
  let sent = Promise.resolve(); // one at a time, so that messages keep their order
  const link = {
    kind: "polling", open: false,
    send: (draft) => void (sent = sent.then(() => post(draft)).catch(fail)),
    close: () => {
      leaving.abort();
      if (session) fetch(session, { method: "DELETE", keepalive: true }).catch(() => {});
    },
  };
  async function call(path, options) {
    const limit = AbortSignal.any([leaving.signal, AbortSignal.timeout(30_000)]);
    const response = await fetch(path, { cache: "no-store", signal: limit, ...options });
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw Object.assign(new Error(problem.message ?? response.statusText), {
      status: response.status, code: problem.code, by: response.headers.get("x-instance"),
    });
  }
  async function post(draft) {
    try {
      await call(session, { method: "POST", body: JSON.stringify(draft) });
    } catch (error) {
      if (error.code !== 3) throw error;
      on.event({ type: "refused", message: error.message });
    }
  }
  async function run() {
    const hello = await (await call("/poll/open", { method: "POST" })).json();
    session = `/poll/${hello.sid}`;
    on.event(hello);
    for (;;) for (const event of await (await call(session)).json()) on.event(event);
  }
  function fail(error) {
    if (error.code === 1) session = null;
    on.end({ error });
  }
  run().catch(fail);
  return link;
}

// --- staying connected --------------------------------------------------------------------------

function connect() {
  const generation = ++me.generation;
  const mine = () => generation === me.generation;
  const transport = me.choice === "websocket" ? viaWebSocket : viaPolling;
  me.link = transport({
    event: (event) => mine() && onEvent(event),
    end: (cause) => mine() && onEnd(cause),
  });
}

/** Why the link ended, for people. */
function told({ code, reason, error }) {
  const who = me.instance ?? "the instance";
  if (error?.code === 1) return `${error.by ?? "it"} answered 400 ${error.message}: ${who} is gone`;
  if (error) return `${who} did not answer`;
  const words = reason ? `: ${reason}` : "";
  if (code === 1001) return `the tunnel reached its end${words}`;
  if (code === 1012) return `${who} is being taken out${words}`;
  return `${who} was killed${words}`;
}

function onEnd(cause) {
  const link = me.link;
  me.generation++;
  link.close();
  if (link.open) {
    me.lostAt = performance.now();
    me.cause = told(cause);
    const orderly = cause.code === 1001 || cause.code === 1012;
    if (!orderly) flowerOf(me.instance)?.classList.add("lost");
  }
  if (link.kind === "websocket" && !link.open) fallBack();
  link.open = false;
  // Full jitter: after a crash thousands of clients come back, and not in one wave.
  const ceiling = Math.min(5000, 200 * 2 ** me.attempts++);
  setTimeout(connect, 30 + Math.random() * ceiling);
  status("Letting go; looking for another instance");
  tend();
}

/** Long polling, if the WebSocket is refused while plain requests are answered. */
function fallBack() {
  if (me.refusedUpgrades++ === 0) me.firstRefusal = Date.now();
  if (me.refusedUpgrades < 2 || me.lastAnswer < me.firstRefusal) return;
  me.refusedUpgrades = 0;
  me.choice = "polling";
  document.querySelector("#transport [value=polling]").checked = true;
  happened(strip, "the WebSocket was refused twice: falling back to long polling");
}

function onHello({ instance, run }) {
  const [before, beforeRun] = [me.instance, me.run];
  const took = Math.round(performance.now() - me.lostAt);
  Object.assign(me, { instance, run, attempts: 0, refusedUpgrades: 0 });
  me.link.open = true;
  noticed(instance);
  document.body.dataset.instance = instance;
  const over = me.link.kind === "websocket" ? "WebSocket" : "long polling";
  status("You are at ", element("strong", { textContent: instance }), ` over ${over}`);
  if (!before) happened(instance, `arrived at ${instance} over ${over}`);
  else if (before !== instance) {
    $("moves").textContent = ++me.moves;
    happened(instance, `moved from ${before} to ${instance} in ${took} ms (${me.cause})`);
    note(`You are at ${instance} now. Those still at ${before} can't hear you.`);
  } else if (beforeRun !== run) {
    happened(instance, `back at ${instance} in ${took} ms: it restarted and forgot everything`);
  } else happened(instance, `connected to ${instance} again over ${over} (${me.cause})`);
  for (const draft of pending) me.link.send(draft);
  tend();
}

function onEvent(event) {
  switch (event.type) {
    case "hello": return onHello(event);
    case "chat": return onChat(event);
    case "missed": return note(`${event.count} messages went by too fast`);
    case "refused":
      forget(0);
      return note(`Not taken: ${event.message}`);
    case "tick":
      noticed(event.instance);
      $("beat").textContent = event.count;
      if (!calm.matches) $("burr").animate({ scale: [1, 1.1, 1] }, 250);
      $("company").textContent = event.sessions;
  }
}

// --- the chat -----------------------------------------------------------------------------------

function append(item) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(item);
  trim(log, KEPT.log);
  if (atEnd) log.scrollTop = log.scrollHeight;
  return item;
}

function note(text) {
  append(element("div", { className: "note", textContent: text }));
}

function onChat({ instance, from, text }) {
  const own = pending.findIndex((draft) => draft.from === from && draft.text === text);
  if (own >= 0) forget(own);
  const item = append(element("div", {}, dot(instance), element("b", { textContent: from }),
    element("span", { textContent: text }), element("small", { textContent: `at ${instance}` })));
  item.dataset.instance = instance;
}

function forget(index) {
  const [draft] = pending.splice(index, 1);
  if (draft) waiting.get(draft)?.remove();
}

const waiting = new WeakMap(); // draft -> its line in the log until the chat shows it

$("compose").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const draft = { from: $("name").value.trim(), text: $("text").value.trim() };
  if (!draft.from || !draft.text) return;
  if (pending.length >= KEPT.pending) return note("Too many messages are waiting; try again later.");
  pending.push(draft);
  waiting.set(draft, append(element("div", { className: "pending", ariaHidden: "true" },
    element("b", { textContent: draft.from }), element("span", { textContent: draft.text }),
    element("small", { textContent: "on its way" }))));
  if (me.link?.open) me.link.send(draft);
  $("text").value = "";
});

$("transport").addEventListener("change", ({ target }) => {
  me.choice = target.value;
  me.cause = "you switched";
  me.lostAt = performance.now();
  me.generation++;
  me.link?.close();
  me.refusedUpgrades = 0;
  connect();
});

// --- one request a second -----------------------------------------------------------------------

let strip = null; // who answered last; the label changes only with it, to keep screen readers calm
let asking = false;
const tally = { answered: 0, errors: 0 };

async function ask() {
  tend();
  if (asking) return;
  asking = true;
  const start = performance.now();
  let instance = null;
  let title;
  try {
    const response = await fetch("/whoami", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    const text = await response.text();
    if (!response.ok) throw new Error(`status ${response.status}`);
    instance = text.split(" ", 1)[0];
    const took = performance.now() - start;
    me.lastAnswer = Date.now();
    $("took").textContent = took < 10 ? `${took.toFixed(1)} ms` : `${Math.round(took)} ms`;
    title = `${clock()} ${text.trim()}`;
    tally.answered++;
    noticed(instance);
  } catch (error) {
    title = `${clock()} ${error.message}`;
    tally.errors++;
  }
  asking = false;
  const latest = dot(instance);
  latest.title = title;
  $("dots").append(latest);
  fitDots();
  $("answered").textContent = tally.answered;
  $("errors").textContent = tally.errors;
  $("errors").parentElement.classList.toggle("bad", tally.errors > 0);
  if (instance !== strip) $("dots").ariaLabel = `The last answer came from ${instance ?? "nobody: an error"}`;
  strip = instance;
}

/** Keeps as many dots as the strip has room for. */
function fitDots() {
  const dots = $("dots");
  trim(dots, KEPT.dots);
  while (dots.scrollHeight > dots.clientHeight + 1) dots.firstElementChild.remove();
}

// --- start --------------------------------------------------------------------------------------

const pick = (words) => words[Math.floor(Math.random() * words.length)];
$("name").value = `${pick(["brisk", "calm", "odd", "spry", "sly", "merry"])} ${pick(["finch", "otter", "hare", "wren", "newt", "vole"])}`;
$("flowers").append(...NAMES.map(plant));
for (const origin of document.querySelectorAll(".origin")) origin.textContent = location.origin;
addEventListener("pagehide", () => me.link?.close());
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
connect();
ask();
setInterval(ask, 1000);
