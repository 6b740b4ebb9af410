// The list of what happened, newest first, by severity, kind and words.

import { element, icon, setText } from "./dom.js";
import { clock, count, plural } from "./format.js";

const MOST = 200;
const SEVERITIES = { all: "All", warning: "Warnings", error: "Errors" };
const AT_LEAST = { all: 0, warning: 1, error: 2 };
const WEIGHT = { info: 0, warning: 1, error: 2 };

export class Timeline {
  #parts; // { list, severities, kind, search, summary }
  #store;
  #open;
  #severity = "all";
  #drawn = "";

  constructor(parts, store, open) {
    this.#parts = parts;
    this.#store = store;
    this.#open = open;
    parts.severities.append(
      ...Object.entries(SEVERITIES).map(([key, label]) =>
        element(
          "button",
          {
            type: "button",
            className: "chip",
            data: { severity: key },
            aria: { pressed: key === "all" },
            on: { click: () => this.#choose(key) },
          },
          label,
          " ",
          element("b"),
        ),
      ),
    );
    parts.kind.addEventListener("change", () => this.update());
    parts.search.addEventListener("input", () => this.update());
  }

  #choose(severity) {
    this.#severity = severity;
    for (const chip of this.#parts.severities.children)
      chip.setAttribute("aria-pressed", String(chip.dataset.severity === severity));
    this.update();
  }

  update() {
    const { events } = this.#store;
    this.#tellKinds(events);
    for (const chip of this.#parts.severities.children) {
      const least = AT_LEAST[chip.dataset.severity];
      setText(
        chip.lastElementChild,
        count(events.filter((it) => (WEIGHT[it.severity] ?? 0) >= least).length),
      );
    }
    const kind = this.#parts.kind.value;
    const words = this.#parts.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keeps = (it) =>
      (WEIGHT[it.severity] ?? 0) >= AT_LEAST[this.#severity] &&
      (kind === "" || it.kind === kind) &&
      words.every((word) =>
        `${it.text} ${it.instance ?? ""} ${it.kind}`.toLowerCase().includes(word),
      );
    const kept = events.filter(keeps);
    const shown = kept.slice(-MOST).reverse();
    const drawn = shown.map((it) => it.id).join();
    if (drawn !== this.#drawn || drawn === "")
      this.#parts.list.replaceChildren(...shown.map((it) => this.#row(it)));
    this.#drawn = drawn;
    const note = kept.length > shown.length ? `, the last ${MOST} shown` : "";
    setText(this.#parts.summary, `${plural(kept.length, "event")}${note}`);
  }

  #row(it) {
    const what = element("bdi", { className: "text", textContent: it.text });
    const where =
      it.instance &&
      element(
        "button",
        {
          type: "button",
          className: "plain where",
          title: it.instance,
          on: { click: () => this.#open(it.instance) },
        },
        element("bdi", { textContent: it.instance }),
      );
    return element(
      "li",
      { data: { severity: it.severity } },
      icon(`event-${it.severity}`),
      element("span", { className: "unseen", textContent: `${it.severity}: ` }),
      element("time", { dateTime: it.at, title: it.at, textContent: clock(it.time) }),
      element("span", { className: "kind", textContent: it.kind }),
      what,
      where,
    );
  }

  // Only kinds that there are can be chosen.
  #tellKinds(events) {
    const known = new Set([...this.#parts.kind.options].map((option) => option.value));
    for (const { kind } of events) {
      if (known.has(kind)) continue;
      known.add(kind);
      this.#parts.kind.append(element("option", { value: kind, textContent: kind }));
    }
  }
}
