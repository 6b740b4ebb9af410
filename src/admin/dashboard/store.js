// What the page knows: the answers of /status, brought up to date by each tick of /live, the last
// 15 minutes, and the events. Tells those who listen what has changed; draws nothing.

import { follow, get, instancePath, sleep } from "./api.js";
import { Series } from "./series.js";
import { standing } from "./standing.js";

const EVENTS_KEPT = 1_000;
const TRAIL_KEPT = 90;
// A stream that ticks each second and is silent for so long leads nowhere.
const SILENCE = 8_000;
// Between two looks at /status; large answers are asked for less often.
const LOOK_INTERVAL = { small: 3_000, large: 15_000, largeFrom: 500, after: 300 };
// Drains that are watched one by one, each second.
const DRAINS_WATCHED = 12;
// What changes more than figures, so that /status is asked again at once.
const STRUCTURAL = [
  "drain", "reload", "instance", "warning", "doctor", "panic", "upgrade", "drill", "split", "ramp", "fleet",
];

export class Store extends EventTarget {
  status = null;
  instances = new Map(); // id -> Instance, with its service, version and trail
  tick = null;
  series = new Series();
  events = []; // oldest first
  link = { state: "connecting", heard: 0, again: 0 }; // state: connecting | live | stale | paused
  drains = new Map(); // id -> what its drain began with: { sessions, tunnels, ends }
  problem = null; // why /status was not answered

  #running = null;
  #look = { timer: 0, at: 0, running: false };

  // Connects, until stop().
  start() {
    this.#connect();
    this.look();
  }

  #connect() {
    this.#running?.abort();
    const run = new AbortController();
    this.#running = run;
    this.#live(run.signal);
    this.#told(run.signal);
    this.#watchDrains(run.signal);
  }

  // A page that nobody looks at holds no connection: a browser has six for each server.
  stop() {
    this.#running?.abort();
    this.#running = null;
    clearTimeout(this.#look.timer);
    this.#linked("paused");
  }

  list() {
    return [...this.instances.values()];
  }

  // The server's clock now, in milliseconds.
  now() {
    return this.tick ? Date.parse(this.tick.at) + (Date.now() - this.link.heard) : Date.now();
  }

  // Asks for /status, now or when the answer that is under way has come.
  async look() {
    clearTimeout(this.#look.timer);
    // Else the next look would be put off for one that is not to come any more.
    this.#look.at = 0;
    if (this.#look.running) return this.#lookIn(LOOK_INTERVAL.after);
    this.#look.running = true;
    try {
      this.#know(await get("status"));
      this.problem = null;
    } catch (problem) {
      this.problem = problem;
    }
    this.#look.running = false;
    this.#changed("status");
    const large = this.instances.size > LOOK_INTERVAL.largeFrom;
    if (this.#running) this.#lookIn(large ? LOOK_INTERVAL.large : LOOK_INTERVAL.small);
  }

  // Asks again soon; of several wishes at once one is followed.
  lookSoon() {
    if (this.#running) this.#lookIn(LOOK_INTERVAL.after);
  }

  #lookIn(milliseconds) {
    const at = Date.now() + milliseconds;
    // A far look is brought forward, a near one is not put off.
    if (this.#look.at > Date.now() && this.#look.at <= at) return;
    clearTimeout(this.#look.timer);
    this.#look.at = at;
    this.#look.timer = setTimeout(() => this.look(), milliseconds);
  }

  #know(status) {
    const before = this.status?.burdock;
    const now = status.burdock;
    // Another process: its events count from 1 again.
    if (before && (before.started !== now.started || before.pid !== now.pid)) {
      this.events = [];
      this.#changed("events");
      if (this.#running) this.#connect();
    }
    const known = new Map();
    for (const service of status.services)
      for (const version of service.versions) {
        for (const instance of version.instances ?? [])
          known.set(instance.id, this.#adopt(instance, service.name, version.name));
        delete version.instances;
      }
    this.status = status;
    this.instances = known;
    for (const id of this.drains.keys()) if (!known.get(id)?.drain) this.drains.delete(id);
  }

  // An answer about one instance, of a change or a look at a drain.
  adopt(instance) {
    const before = this.instances.get(instance.id);
    if (!before) return this.lookSoon();
    this.instances.set(instance.id, this.#adopt(instance, before.service, before.version));
    this.#changed("instances");
  }

  #adopt(instance, service, version) {
    const { drain, id } = instance;
    if (drain) {
      const began = this.drains.get(id) ?? { sessions: 0, tunnels: 0 };
      // One that was removed has none before another has taken over.
      const { deadline_seconds: left = null } = drain;
      const ends = left === null ? null : Date.now() + left * 1_000;
      this.drains.set(id, {
        sessions: Math.max(began.sessions, drain.sessions),
        tunnels: Math.max(began.tunnels, drain.tunnels),
        ends,
      });
    } else {
      this.drains.delete(id);
    }
    const trail = this.instances.get(id)?.trail ?? [];
    return { ...instance, service, version, trail, key: `${id} ${instance.address}`.toLowerCase() };
  }

  async #live(signal) {
    const opened = async () => {
      // A gap is filled from what the server remembers.
      const history = await get("history").catch(() => null);
      if (history) this.series.load(history);
      this.#changed("history");
      this.look();
    };
    const hear = {
      opened,
      event: (event) => this.#ticked(event),
      lost: (pause) => this.#linked("stale", pause),
    };
    await follow(() => "live", { silence: SILENCE, signal, hear });
  }

  #ticked(tick) {
    this.tick = tick;
    this.series.add(tick);
    let moved = false;
    for (const [id, news] of Object.entries(tick.instances)) {
      const instance = this.instances.get(id);
      if (!instance) moved = true;
      else moved = merge(instance, news) || moved;
    }
    this.link.heard = Date.now();
    if (this.link.state !== "live") this.#linked("live");
    if (moved) this.lookSoon();
    this.#changed("tick");
  }

  async #told(signal) {
    const hear = { opened: () => {}, event: (event) => this.#happened(event), lost: () => {} };
    await follow(() => `events?since=${this.events.at(-1)?.id ?? 0}`, { signal, hear });
  }

  #happened(event) {
    // What has no number tells of a gap: those events are forgotten.
    if (!(event.id > (this.events.at(-1)?.id ?? 0))) return;
    this.events.push({ ...event, time: Date.parse(event.at) });
    if (this.events.length > EVENTS_KEPT) this.events.shift();
    if (STRUCTURAL.includes(event.kind)) this.lookSoon();
    this.#changed("events");
  }

  async #watchDrains(signal) {
    while (!signal.aborted) {
      const draining = this.list()
        .filter((it) => it.drain && !it.drain.done)
        .slice(0, DRAINS_WATCHED);
      const answers = await Promise.all(
        draining.map((it) => get(instancePath(it)).catch(() => null)),
      );
      if (signal.aborted) return;
      for (const instance of answers) if (instance) this.adopt(instance);
      await sleep(1_000, signal);
    }
  }

  #linked(state, pause = 0) {
    this.link = { ...this.link, state, again: Date.now() + pause };
    this.#changed("link");
  }

  // Many events come at once when a page opens; each part is drawn once for each frame.
  #waiting = new Set();
  #changed(part) {
    if (this.#waiting.size === 0) requestAnimationFrame(() => this.#tell());
    this.#waiting.add(part);
  }

  #tell() {
    const parts = [...this.#waiting];
    this.#waiting.clear();
    for (const part of parts) this.dispatchEvent(new Event(part));
  }
}

// Takes over what a tick says; tells whether the instance stands differently now.
function merge(instance, news) {
  const before = standing(instance);
  const { rates } = instance;
  rates.requests_per_second = news.rps;
  rates.errors_per_second = news.eps;
  if (news.p99 === null || news.p99 === undefined) rates.latency_seconds = null;
  else if (rates.latency_seconds) rates.latency_seconds.p99 = news.p99;
  for (const key of ["requests", "tunnels", "sessions", "admin", "health", "breaker"])
    if (news[key] !== undefined) instance[key] = news[key];
  instance.effective_weight = news.weight;
  instance.trail.push(news.rps);
  if (instance.trail.length > TRAIL_KEPT) instance.trail.shift();
  return standing(instance) !== before;
}
