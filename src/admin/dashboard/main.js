// The page: makes its parts, gives each what it knows as that changes, and hears keys.
//
// dom, format, standing and series are pure; api speaks to Burdock; store keeps what is known; overview,
// charts, topology, table, timeline, fleet and detail draw it; changes and dialogs ask and act.

import { onTokenWanted, token } from "./api.js";
import { Changes } from "./changes.js";
import { Charts } from "./charts.js";
import { Detail } from "./detail.js";
import { askToken, tellShortcuts } from "./dialogs.js";
import { $, element, setData, setText } from "./dom.js";
import { openExplain } from "./explain.js";
import { Fleet } from "./fleet.js";
import { duration } from "./format.js";
import { Overview } from "./overview.js";
import { Store } from "./store.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";
import { Topology } from "./topology.js";

const SHORTCUTS = {
  "/": "search instances",
  "j k": "next and previous instance",
  Enter: "everything about it",
  d: "drain it",
  e: "enable it",
  x: "disable it",
  w: "set its weight",
  "1 2 3 4": "charts, topology, instances, events",
  y: "why a request goes where it goes",
  r: "reload the configuration",
  t: "dark, light or as the system",
  "?": "this list",
  Esc: "close what is open",
};
const SINGLE_KEYS = "burdock-single-keys";
const SECTIONS = ["charts", "topology", "instances", "events"];
// Figures older than this are shown as stale.
const STALE = 3_500;
// Of more instances than this a tick moves figures only; their order waits for the next /status.
const MANY = 500;

const store = new Store();
const changes = new Changes(store);
const acts = {
  open: (id) => detail.open(id),
  change: (id, state) => changes.state(id, state),
  weigh: (id) => changes.weight(id),
  look: (filter) => (table.filter(filter, ""), show("instances")),
  show: (words) => (table.filter("all", words), show("instances")),
};
const detail = new Detail($("detail"), store, acts);
const overview = new Overview(store, acts);
const charts = new Charts($("chart-grid"), $("chart-events"), store);
const topology = new Topology($("map"), store, acts);
const table = new Table(
  {
    grid: $("table"),
    head: $("table-head"),
    body: $("table-body"),
    search: $("search"),
    filters: $("table-filters"),
    none: $("table-none"),
    summary: $("table-summary"),
  },
  store,
  acts,
);
const fleet = new Fleet({
  section: $("fleet"),
  text: $("fleet-text"),
  head: $("fleet-head"),
  body: $("fleet-nodes"),
});
const timeline = new Timeline(
  {
    list: $("event-list"),
    severities: $("event-severities"),
    kind: $("event-kind"),
    search: $("event-search"),
    summary: $("event-summary"),
  },
  store,
  acts.open,
);

function show(section) {
  const heading = $(section);
  heading.scrollIntoView({ block: "start" });
  heading.querySelector("h2").focus({ preventScroll: true });
}

// --- what is drawn when -----------------------------------------------------------------------------

const DRAWN = {
  status: [overview, topology, table, timeline, detail],
  instances: [overview, topology, table, detail],
  tick: [overview, detail],
  events: [timeline, detail],
};
for (const [part, drawn] of Object.entries(DRAWN))
  store.addEventListener(part, () => drawn.forEach((it) => it.update()));
store.addEventListener("tick", () =>
  store.instances.size > MANY ? table.draw() : (topology.update(), table.update()),
);
for (const part of ["tick", "history", "events"]) store.addEventListener(part, () => charts.draw());
store.addEventListener("status", () => overview.updateNotices());
store.addEventListener("status", welcome);
store.addEventListener("status", tellDrill);
store.addEventListener("status", () => fleet.look(store.status));
store.addEventListener("link", tellLink);
setInterval(tellLink, 1_000);

// The first answer lifts the curtain, or says why there is none.
function welcome() {
  document.body.dataset.known = String(store.status !== null);
  // Where the stream is down too the head of the page tells so.
  const told = store.status === null || store.link.state === "live";
  setText(
    $("failure"),
    told && store.problem
      ? `Burdock did not tell its status: ${store.problem.message}. This page keeps trying.`
      : "",
  );
  $("empty").hidden = store.status === null || store.instances.size > 0;
  $("forget").hidden = token.read() === null;
}

// A drill on this balancer is told of for as long as it runs: what fails may be meant to.
function tellDrill() {
  const drill = store.status?.drill ?? null;
  $("drill").hidden = drill === null;
  if (drill === null) return;
  const left = drill.max_duration_seconds - drill.elapsed_seconds;
  setText(
    $("drill-text"),
    `The drill ${drill.name} of ${drill.holder} runs: ${duration(drill.elapsed_seconds)} so far, ${duration(Math.max(0, left))} left at most, min_healthy ${drill.min_healthy}.`,
  );
  const row = ({ kind, instances, detail }) =>
    element("li", { textContent: [kind, instances.join(", "), detail].filter(Boolean).join(" ") });
  $("drill-faults").replaceChildren(...drill.faults.map(row));
}

function tellLink() {
  const { state, heard, again } = store.link;
  const age = heard ? (Date.now() - heard) / 1_000 : null;
  const shown = state === "live" && age * 1_000 > STALE ? "stale" : state;
  const old = age === null ? "no figures yet" : `figures of ${duration(age)} ago`;
  const wait = Math.ceil((again - Date.now()) / 1_000);
  const says = {
    connecting: "Connecting",
    live: "Live",
    paused: "Paused",
    stale: `Stale: ${old}${wait > 0 ? `, next try in ${wait} s` : ", connecting"}`,
  };
  setData(document.body, "link", shown);
  setText($("link-text"), says[shown]);
}

// --- keys -------------------------------------------------------------------------------------------

const singleKeys = {
  get on() {
    return localStorage.getItem(SINGLE_KEYS) !== "off";
  },
  turn: (on) => localStorage.setItem(SINGLE_KEYS, on ? "on" : "off"),
};
const subject = () => detail.id ?? table.current;
const change = (state) => subject() && changes.state(subject(), state);

const KEYS = {
  "/": () => (show("instances"), $("search").focus()),
  j: () => table.step(1),
  k: () => table.step(-1),
  d: () => change("draining"),
  e: () => change("active"),
  x: () => change("disabled"),
  w: () => subject() && changes.weight(subject()),
  y: () => openExplain(acts.open),
  r: () => changes.reload(),
  t: turnTheme,
  "?": () => tellShortcuts(SHORTCUTS, singleKeys),
  ...Object.fromEntries(SECTIONS.map((section, i) => [String(i + 1), () => show(section)])),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (event.target === $("search")) table.filter("all", "");
    else if (!document.querySelector("dialog:modal")) detail.close();
    return;
  }
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog:modal");
  if (
    typing ||
    event.defaultPrevented ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    !singleKeys.on
  )
    return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// --- buttons of the head ----------------------------------------------------------------------------

function turnTheme() {
  setText($("theme-name"), globalThis.nextTheme());
}

setText($("theme-name"), document.documentElement.dataset.theme);
$("theme").addEventListener("click", turnTheme);
$("reload").addEventListener("click", () => changes.reload());
$("drill-end").addEventListener("click", () => changes.endDrill());
$("explain").addEventListener("click", KEYS.y);
$("keys").addEventListener("click", KEYS["?"]);
$("forget").addEventListener("click", () => (token.forget(), location.reload()));

onTokenWanted(askToken);
document.addEventListener("visibilitychange", () =>
  document.hidden ? store.stop() : store.start(),
);
if (!document.hidden) store.start();
