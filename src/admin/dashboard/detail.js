// Everything about one instance, in a panel beside the page, and what can be done to it.

import { element, icon, name, polyline, setData, setIcon, setText, svg } from "./dom.js";
import { clock, count, latency, NONE, plural, rate, secondsLeft } from "./format.js";
import { STANDINGS, standing } from "./standing.js";

const AXES = { membership: "Membership", admin: "Admin", health: "Health", breaker: "Breaker" };
const NORMAL = { membership: "present", admin: "active", health: "ready", breaker: "closed" };
const EVENTS = 6;

const yes = (may) => (may ? "yes" : "no");

// What it may receive, and why not.
function takes({ takes: may }) {
  if (!may) return NONE;
  const why = may.reason && !(may.new && may.bound) ? ` (${may.reason})` : "";
  return `new sessions: ${yes(may.new)}, its own sessions: ${yes(may.bound)}${why}`;
}

const probeText = (probe) =>
  probe ? `${probe.ok ? "passed" : "failed"} at ${clock(probe.at)}: ${probe.detail}` : "none";

const FACTS = {
  Takes: takes,
  Address: (it) => it.address,
  "Comes from": (it) => (it.source === "api" ? "the API, not the file" : "the file"),
  Weight: (it) =>
    it.effective_weight === undefined || it.effective_weight === it.weight
      ? String(it.weight)
      : `${it.weight}, now ${rate(it.effective_weight)}`,
  Sessions: (it) => count(it.sessions),
  Tunnels: (it) => count(it.tunnels),
  "In flight": (it) => plural(it.requests, "request"),
  Requests: (it) =>
    `${rate(it.rates.requests_per_second)}/s, ${count(it.rates.requests_total)} in all`,
  Errors: (it) => `${rate(it.rates.errors_per_second)}/s, ${count(it.rates.failures_total)} in all`,
  Latency: ({ rates: { latency_seconds: of } }) =>
    of ? `p50 ${latency(of.p50)}, p90 ${latency(of.p90)}, p99 ${latency(of.p99)}` : "no answers",
  Readiness: (it) => probeText(it.probes?.readiness),
  Liveness: (it) => probeText(it.probes?.liveness),
  "Restarts seen": (it) => count(it.restarts ?? 0),
};

export class Detail {
  #panel;
  #store;
  #id = null;
  #from = null; // what had the focus before
  #parts;

  // `acts` is { change(id, state), weigh(id) }.
  constructor(panel, store, acts) {
    this.#panel = panel;
    this.#store = store;
    this.#parts = build(
      () => this.#id,
      acts,
      () => this.close(),
    );
    panel.append(...this.#parts.nodes);
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      this.close();
    });
  }

  get id() {
    return this.#id;
  }

  open(id) {
    if (!this.#panel.open) this.#from = document.activeElement;
    this.#id = id;
    this.update();
    if (!this.#panel.open) this.#panel.show();
    this.#parts.title.focus();
  }

  close() {
    if (!this.#panel.open) return;
    this.#id = null;
    this.#panel.close();
    this.#from?.focus();
  }

  update() {
    if (this.#id === null) return;
    const parts = this.#parts;
    const it = this.#store.instances.get(this.#id);
    setText(parts.title, it?.name ?? this.#id);
    setText(parts.place, it ? `${it.service}/${it.version}` : "It is not there any more.");
    for (const node of parts.whenThere) node.hidden = !it;
    if (it) this.#write(it);
  }

  #write(it) {
    const parts = this.#parts;
    const { tone, icon: shape, says } = STANDINGS[standing(it)];
    setData(this.#panel, "tone", tone);
    setIcon(parts.shape, shape);
    setText(parts.says, says);
    for (const [axis, cell] of Object.entries(parts.axes)) {
      setText(cell, it[axis]);
      setData(cell, "odd", String(it[axis] !== NORMAL[axis]));
    }
    for (const [fact, cell] of Object.entries(parts.facts)) setText(cell, FACTS[fact](it));
    parts.trail.setAttribute("points", it.trail.length > 1 ? polyline(it.trail, 300, 44) : "");
    setText(
      parts.trailSays,
      it.trail.length > 1
        ? `Requests per second in the last ${it.trail.length} s, at most ${rate(Math.max(...it.trail))}`
        : "Requests per second: too quiet to be told each second",
    );
    for (const [state, button] of Object.entries(parts.buttons))
      button.disabled = it.admin === state && it.membership === "present";
    this.#writeDrain(it);
    const events = this.#store.events
      .filter((event) => event.instance === it.id)
      .slice(-EVENTS)
      .reverse();
    parts.events.replaceChildren(
      ...events.map((event) =>
        element(
          "li",
          { data: { severity: event.severity } },
          icon(`event-${event.severity}`),
          element("time", { textContent: clock(event.time) }),
          element("bdi", { textContent: event.text }),
        ),
      ),
    );
    parts.noEvents.hidden = events.length > 0;
  }

  #writeDrain({ id, drain, admin }) {
    const { drainBox, drainText, drainBar } = this.#parts;
    const began = this.#store.drains.get(id);
    drainBox.hidden = !drain || !began || (drain.done && admin === "disabled");
    if (drainBox.hidden) return;
    const [all, left] = [began.sessions + began.tunnels, drain.sessions + drain.tunnels];
    const seconds = secondsLeft(began.ends);
    const deadline = seconds === null ? "" : `, deadline in ${seconds} s`;
    setText(
      drainText,
      drain.done
        ? "The drain is done."
        : `${plural(drain.sessions, "session")}, ${plural(drain.tunnels, "tunnel")} and ${plural(drain.requests, "request")} left${deadline}`,
    );
    drainBar.max = Math.max(all, 1);
    drainBar.value = drain.done ? drainBar.max : all - left;
  }
}

function build(id, acts, close) {
  const act = (label, key, on) =>
    element(
      "button",
      { type: "button", on: { click: on } },
      label,
      element("kbd", { textContent: key, ariaHidden: "true" }),
    );
  const buttons = {
    draining: act("Drain", "d", () => acts.change(id(), "draining")),
    active: act("Enable", "e", () => acts.change(id(), "active")),
    disabled: act("Disable", "x", () => acts.change(id(), "disabled")),
  };
  const row = (term, value) => element("div", {}, element("dt", { textContent: term }), value);
  const cell = () => element("dd");
  const axes = Object.fromEntries(Object.keys(AXES).map((axis) => [axis, cell()]));
  const facts = Object.fromEntries(
    Object.keys(FACTS).map((fact) => [fact, element("dd", { dir: "auto" })]),
  );
  const parts = {
    title: element("h2", { id: "detail-title", dir: "auto", tabIndex: -1 }),
    place: name("", { className: "soft" }),
    shape: icon("unknown"),
    says: element("strong"),
    axes,
    facts,
    buttons,
    trail: svg("polyline", { class: "trail" }),
    trailSays: element("small", { className: "soft" }),
    drainText: element("p"),
    drainBar: element("progress", { aria: { label: "progress of the drain" } }),
    events: element("ol", { className: "happenings" }),
    noEvents: element("p", { className: "soft", textContent: "Nothing that is remembered." }),
  };
  parts.drainBox = element(
    "section",
    { className: "drain", hidden: true },
    parts.drainText,
    parts.drainBar,
  );
  parts.whenThere = [
    element("p", { className: "state" }, parts.shape, parts.says),
    parts.drainBox,
    element(
      "div",
      { className: "acts" },
      ...Object.values(buttons),
      act("Weight …", "w", () => acts.weigh(id())),
    ),
    element(
      "dl",
      { className: "axes" },
      ...Object.entries(AXES).map(([axis, title]) => row(title, axes[axis])),
    ),
    element(
      "div",
      { className: "trailbox" },
      svg(
        "svg",
        { viewBox: "0 0 300 44", preserveAspectRatio: "none", "aria-hidden": "true" },
        parts.trail,
      ),
      parts.trailSays,
    ),
    element(
      "dl",
      { className: "facts" },
      ...Object.entries(facts).map(([title, value]) => row(title, value)),
    ),
    element(
      "section",
      {},
      element("h3", { textContent: "Its events" }),
      parts.events,
      parts.noEvents,
    ),
  ];
  const head = element(
    "header",
    {},
    element("div", {}, parts.title, parts.place),
    element(
      "button",
      { type: "button", className: "quiet", textContent: "Close", on: { click: close } },
      element("kbd", { textContent: "Esc", ariaHidden: "true" }),
    ),
  );
  return { ...parts, nodes: [head, ...parts.whenThere] };
}
