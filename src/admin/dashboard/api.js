// Speaks to the admin API of the Burdock that served this page: requests, and streams of server-sent
// events read through fetch, which unlike EventSource can send the token. Knows nothing of the page.

const TOKEN = "burdock-token";
const BACK_OFF = { first: 500, most: 15_000 };

// A refusal, as application/problem+json tells it.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `the answer was ${status}`);
    this.status = status;
    this.problems = body.problems ?? [];
  }
}

// Gone with the tab, and never in a URL.
export const token = {
  read: () => sessionStorage.getItem(TOKEN),
  keep: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

// Called when a token is wanted; its promise is fulfilled once there is another one.
let askForToken = () => Promise.reject(new Problem(401, {}));
let asking = null;
export function onTokenWanted(ask) {
  askForToken = ask;
}

// However many requests are refused at once, there is one question.
function another(refused) {
  if (token.read() !== refused) return Promise.resolve();
  asking ??= askForToken(refused !== null).finally(() => (asking = null));
  return asking;
}

async function answer(path, options) {
  for (;;) {
    const sent = token.read();
    const headers = { ...options.headers, ...(sent && { Authorization: `Bearer ${sent}` }) };
    const response = await fetch(`/api/v1/${path}`, { ...options, headers, cache: "no-store" });
    if (response.status !== 401) return response;
    await another(sent);
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body);
}

export async function get(path, accept = "application/json") {
  const response = await answer(path, { headers: { Accept: accept } });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

// The content type is what keeps forms of other sites out, so that it is sent without a body too.
export async function send(method, path, body = {}) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const response = await answer(path, { method, headers, body: JSON.stringify(body) });
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json();
}

export const instancePath = ({ service, version, name }) =>
  `instances/${[service, version, name].map(encodeURIComponent).join("/")}`;

// Cuts a stream into events (WHATWG HTML, section 9.2.6).
export class EventParser {
  #rest = "";
  #event = {};

  // The events that `text` completes.
  push(text) {
    const whole = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#event.data !== undefined) whole.push(this.#event);
        this.#event = {};
      } else {
        this.#field(line);
      }
    }
    return whole;
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data" && this.#event.data !== undefined) this.#event.data += `\n${value}`;
    else this.#event[field] = value;
  }
}

async function read(path, silence, signal, hear) {
  const stop = new AbortController();
  const end = () => stop.abort();
  signal.addEventListener("abort", end, { once: true });
  let watch;
  const alive = () => {
    clearTimeout(watch);
    if (silence) watch = setTimeout(end, silence);
  };
  try {
    alive();
    const response = await answer(path(), {
      headers: { Accept: "text/event-stream" },
      signal: stop.signal,
    });
    if (!response.ok) throw await refusal(response);
    hear.opened();
    const parser = new EventParser();
    const text = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await text.read(); !part.done; part = await text.read()) {
      alive();
      for (const event of parser.push(part.value)) hear.event(JSON.parse(event.data));
    }
  } finally {
    clearTimeout(watch);
    signal.removeEventListener("abort", end);
  }
}

// Reads the stream at `path()` until `signal` aborts, and again when it breaks or, with `silence`, has
// said nothing for so many milliseconds. `hear` is { opened, event, lost(milliseconds until the next try) }.
export async function follow(path, { silence, signal, hear }) {
  let wait = BACK_OFF.first;
  while (!signal.aborted) {
    const opened = () => {
      wait = BACK_OFF.first;
      hear.opened();
    };
    await read(path, silence, signal, { ...hear, opened }).catch(() => {});
    if (signal.aborted) return;
    // Pages that lost the same server don't all come back at once.
    const pause = wait * (0.75 + Math.random() / 2);
    hear.lost(pause);
    await sleep(pause, signal);
    wait = Math.min(wait * 2, BACK_OFF.most);
  }
}

export function sleep(milliseconds, signal) {
  return new Promise((wake) => {
    const timer = setTimeout(wake, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), wake()), { once: true });
  });
}
