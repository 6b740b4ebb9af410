// One instance in the table: the columns, and the nodes of a row that is in sight.

import { element, icon, name, polyline, setData, setIcon, setName, setText, svg } from "./dom.js";
import { count, latency, NONE, rate, secondsLeft } from "./format.js";
import { STANDINGS, standing } from "./standing.js";

const seconds = (it, key) => it.rates.latency_seconds?.[key] ?? -1;
const probe = (it) => {
  const { readiness, liveness } = it.probes ?? {};
  const failed = [readiness, liveness].find((one) => one && !one.ok);
  return failed ?? readiness ?? liveness ?? null;
};

// `order` makes a column sortable, the largest first unless `ascending`.
export const COLUMNS = [
  { key: "name", title: "Instance", order: (it) => it.id, ascending: true },
  { key: "membership", title: "Member", order: (it) => it.membership, ascending: true },
  { key: "admin", title: "Admin", order: (it) => it.admin, ascending: true },
  { key: "health", title: "Health", order: (it) => it.health, ascending: true },
  { key: "breaker", title: "Breaker", order: (it) => it.breaker, ascending: true },
  { key: "sessions", title: "Sessions", order: (it) => it.sessions },
  { key: "tunnels", title: "Tunnels", order: (it) => it.tunnels },
  { key: "requests", title: "In flight", order: (it) => it.requests },
  { key: "rps", title: "Req/s", order: (it) => it.rates.requests_per_second },
  { key: "eps", title: "Err/s", order: (it) => it.rates.errors_per_second },
  { key: "p50", title: "p50", order: (it) => seconds(it, "p50") },
  { key: "p90", title: "p90", order: (it) => seconds(it, "p90") },
  { key: "p99", title: "p99", order: (it) => seconds(it, "p99") },
  { key: "weight", title: "Weight", order: (it) => it.weight },
  { key: "probe", title: "Last probe" },
  { key: "act", title: "Action" },
];
const NORMAL = { membership: "present", admin: "active", health: "ready", breaker: "closed" };

let rows = 0;

// One instance in sight.
export class Row {
  #cells = {};

  constructor(id, acts, chosen) {
    for (const { key, title } of COLUMNS)
      this.#cells[key] = element("div", {
        role: "gridcell",
        className: `cell ${key}`,
        data: { title },
      });
    const { name: cell, sessions, rps, act } = this.#cells;
    this.shape = icon("unknown");
    this.title = name("");
    this.place = name("");
    this.standing = element("span", { className: "standing" });
    cell.append(
      this.shape,
      element(
        "div",
        {},
        element(
          "button",
          { type: "button", className: "plain", tabIndex: -1, on: { click: () => acts.open(id) } },
          this.title,
        ),
        element("small", {}, this.standing, this.place),
      ),
    );
    this.drained = element("i", { className: "drained", hidden: true, ariaHidden: "true" });
    cell.append(this.drained);
    this.bar = element("i", { className: "fill" });
    this.sessions = element("span");
    sessions.append(
      this.sessions,
      element("span", { className: "track", ariaHidden: "true" }, this.bar),
    );
    this.trail = svg("polyline", { class: "trail" });
    this.rps = element("span");
    rps.append(
      svg("svg", { class: "spark", width: 36, height: 16, "aria-hidden": "true" }, this.trail),
      this.rps,
    );
    this.button = element("button", {
      type: "button",
      className: "small",
      on: { click: () => acts.change(id, this.button.dataset.state) },
    });
    act.append(this.button);
    this.node = element(
      "div",
      {
        role: "row",
        className: "row",
        id: `row-${(rows += 1)}`,
        on: { pointerdown: chosen, dblclick: () => acts.open(id) },
      },
      ...Object.values(this.#cells),
    );
  }

  write(it, mostSessions, began) {
    const cells = this.#cells;
    const { tone, icon: shape, says } = STANDINGS[standing(it)];
    setData(this.node, "tone", tone);
    setData(this.node, "instance", it.id);
    setIcon(this.shape, shape);
    setName(this.title, it.name);
    // What was disabled has nothing more to tell once it is empty.
    const leaves = it.drain && began && !(it.drain.done && it.admin === "disabled");
    setText(this.standing, leaves ? `${says}, ${leavingWords(it.drain, began)}` : says);
    this.drained.hidden = !leaves;
    if (leaves) this.drained.style.width = `${gone(it.drain, began) * 100}%`;
    setName(
      this.place,
      `${it.service}/${it.version}${it.address === it.name ? "" : ` · ${it.address}`}`,
    );
    for (const [axis, normal] of Object.entries(NORMAL)) {
      setText(cells[axis], it[axis]);
      setData(cells[axis], "odd", String(it[axis] !== normal));
    }
    setText(this.sessions, count(it.sessions));
    this.bar.style.width = `${(it.sessions / mostSessions) * 100}%`;
    setText(cells.tunnels, count(it.tunnels));
    setText(cells.requests, count(it.requests));
    setText(this.rps, rate(it.rates.requests_per_second));
    this.trail.setAttribute("points", it.trail.length > 1 ? polyline(it.trail, 36, 16) : "");
    setText(cells.eps, rate(it.rates.errors_per_second));
    setData(cells.eps, "odd", String(it.rates.errors_per_second > 0));
    for (const key of ["p50", "p90", "p99"])
      setText(cells[key], latency(it.rates.latency_seconds?.[key]));
    const effective = it.effective_weight;
    setText(
      cells.weight,
      effective === undefined || effective === it.weight
        ? String(it.weight)
        : `${it.weight} → ${rate(effective)}`,
    );
    const last = probe(it);
    setName(cells.probe, last ? last.detail : NONE);
    setData(cells.probe, "odd", String(last !== null && !last.ok));
    const active = it.admin === "active";
    setText(this.button, active ? "Drain" : "Enable");
    setData(this.button, "state", active ? "draining" : "active");
    this.button.setAttribute("aria-label", `${active ? "Drain" : "Enable"} ${it.name}`);
  }
}

// What a drain has left to do, in few words; the panel has all of them.
function leavingWords(drain, began) {
  if (drain.done) return "done";
  const seconds = secondsLeft(began.ends);
  return `${count(drain.sessions + drain.tunnels)} left${seconds === null ? "" : `, ${seconds} s`}`;
}

// The part of a drain that is behind it.
function gone(drain, began) {
  const all = began.sessions + began.tunnels;
  return drain.done || all === 0 ? 1 : 1 - (drain.sessions + drain.tunnels) / all;
}
