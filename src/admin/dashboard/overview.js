// The top of the page: whether all is well, the headline figures, warnings with their cures, and what
// differs from the file.

import { $, element, icon, name, setData, setIcon, setText, visible } from "./dom.js";
import { clock, count, duration, latency, plural, rate, share } from "./format.js";
import { standing, verdict } from "./standing.js";

// Each figure: its title, the value, and what stands below it.
const FIGURES = [
  [
    "Requests",
    "/s",
    ({ totals }) => rate(totals.requests_per_second),
    ({ totals }) => `${count(totals.requests_total)} in all`,
  ],
  [
    "Errors",
    "/s",
    ({ totals }) => rate(totals.errors_per_second),
    ({ totals }) => `${share(totals.errors_per_second, totals.requests_per_second)} of requests`,
  ],
  [
    "Latency p99",
    "",
    ({ totals }) => latency(totals.latency_seconds?.p99),
    ({ totals: { latency_seconds: of } }) =>
      of ? `p50 ${latency(of.p50)}, p90 ${latency(of.p90)}` : "no answers in 10 s",
  ],
  [
    "Sessions",
    "",
    ({ tick }) => count(tick?.sessions),
    ({ moved }) => `${count(moved)} moved in 5 min`,
  ],
  [
    "Tunnels",
    "",
    ({ tick }) => count(tick?.tunnels),
    ({ tick, status }) => `${count(tick?.connections ?? status.connections.open)} connections`,
  ],
  [
    "Instances ready",
    "",
    ({ ready, all }) => `${count(ready)}/${count(all)}`,
    ({ status }) => plural(status.services.length, "service"),
  ],
];

export class Overview {
  #store;
  #acts; // { open(id), look(filter) }
  #figures;

  constructor(store, acts) {
    this.#store = store;
    this.#acts = acts;
    this.#figures = FIGURES.map(([title, unit]) => {
      const [value, below] = [element("span"), element("small")];
      const node = element(
        "div",
        {},
        element("dt", { textContent: title }),
        element("dd", {}, value, element("i", { textContent: unit })),
        below,
      );
      return { value, below, node };
    });
    $("figures").append(...this.#figures.map(({ node }) => node));
    $("verdict-look").addEventListener("click", () => acts.look($("verdict-look").dataset.about));
  }

  update() {
    const { status, tick, series } = this.#store;
    if (!status) return;
    const instances = this.#store.list();
    const ready = instances.filter((it) => standing(it) === "ready").length;
    const knows = {
      status,
      tick,
      totals: tick?.totals ?? status.totals,
      ready,
      all: instances.length,
      moved: series.rehomesSince(series.now - 300_000),
    };
    FIGURES.forEach(([, , value, below], i) => {
      setText(this.#figures[i].value, value(knows));
      setText(this.#figures[i].below, below(knows));
    });
    setData(this.#figures[1].node, "tone", knows.totals.errors_per_second > 0 ? "bad" : "good");
    this.#tellVerdict(verdict(status, instances));
    const { burdock, config } = status;
    setText(
      $("about"),
      `${burdock.version} · generation ${count(config.generation)} of ${config.file ?? "no file"} · up ${duration(burdock.uptime_seconds)} · ${plural(burdock.workers, "worker")}`,
    );
  }

  #tellVerdict({ tone, icon: shape, text, about }) {
    setData($("verdict"), "tone", tone);
    setIcon($("verdict").firstElementChild, shape);
    setText($("verdict-text"), text);
    $("verdict-look").hidden = !about;
    $("verdict-look").dataset.about = about ?? "";
    document.title =
      tone === "good" ? "Burdock" : `${tone === "bad" ? "✕" : "▲"} ${visible(text)} – Burdock`;
  }

  // Warnings and differences change seldom: they are built anew with each /status that differs.
  #notices = "";
  updateNotices() {
    const { status } = this.#store;
    if (!status) return;
    const warnings = [...ownWarnings(status), ...status.warnings];
    const key = JSON.stringify([warnings, status.differences]);
    if (key === this.#notices) return;
    this.#notices = key;
    $("warnings").hidden = warnings.length === 0;
    setText($("warnings-count"), count(warnings.length));
    $("warnings-list").replaceChildren(...warnings.map(warningRow));
    $("differences").hidden = status.differences.length === 0;
    setText($("differences-count"), count(status.differences.length));
    $("differences-list").replaceChildren(
      ...status.differences.slice(0, 100).map((it) => this.#differenceRow(it)),
    );
  }

  #differenceRow({ id, what, file, now, since, by }) {
    const values =
      what === "added"
        ? [element("span", { textContent: "not in the file" })]
        : [
            element("del", { textContent: String(file) }),
            element("span", { ariaHidden: "true", textContent: "→" }),
            element("ins", { textContent: String(now) }),
          ];
    return element(
      "li",
      {},
      element(
        "button",
        { type: "button", className: "plain", on: { click: () => this.#acts.open(id) } },
        name(id),
      ),
      element(
        "span",
        { className: "what" },
        element("span", { className: "soft", textContent: what }),
        ...values,
      ),
      element("small", {
        className: "soft",
        textContent: `since ${clock(since)}${by ? ` by ${by}` : ""}`,
      }),
    );
  }
}

// What /status tells elsewhere than among its warnings, and no operator should miss.
function ownWarnings({ config, descriptors, services }) {
  const own = [];
  const reload = config.last_reload;
  if (reload && !reload.ok)
    own.push({
      message: `The last reload was rejected; generation ${count(config.generation)} is still served. ${(reload.problems ?? []).slice(0, 5).join(" ")}`,
      cure: "burdock check FILE",
      since: reload.at,
    });
  if (descriptors?.short)
    own.push({
      message: "File descriptors are short: new connections may be refused.",
      cure: "LimitNOFILE= in the unit, or ulimit -n",
    });
  for (const { ramp } of services)
    if (["held", "rolled_back"].includes(ramp?.stage))
      own.push({
        message: `The ramp of ${ramp.service}/${ramp.version} is ${ramp.stage.replace("_", " ")}: ${ramp.reason}.`,
        cure: null,
        since: ramp.stage === "held" ? undefined : ramp.since,
      });
  for (const service of services)
    for (const version of service.versions.filter((it) => it.panic))
      own.push({
        message: `${service.name}/${version.name} has fewer ready instances than panic_threshold: unready ones serve too.`,
        cure: null,
      });
  return own;
}

function warningRow({ message, cure, since, count: times }) {
  const when = [since && `since ${clock(since)}`, times > 1 && `${count(times)} times`]
    .filter(Boolean)
    .join(", ");
  const copy = (event) =>
    navigator.clipboard?.writeText(cure).then(() => setText(event.target, "Copied"));
  return element(
    "li",
    {},
    icon("unready"),
    element(
      "div",
      {},
      element("p", { dir: "auto", textContent: message }),
      cure &&
        element(
          "p",
          { className: "cure" },
          element("span", { textContent: "Cure" }),
          element("code", { dir: "auto", textContent: cure }),
          navigator.clipboard &&
            element("button", {
              type: "button",
              className: "small quiet",
              textContent: "Copy",
              on: { click: copy },
            }),
        ),
      when && element("small", { className: "soft", textContent: when }),
    ),
  );
}
