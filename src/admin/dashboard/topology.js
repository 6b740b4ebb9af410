// From listeners to instances, as a picture: the thicker a line, the more requests. A version with many
// instances shows the worst of them and how many of each kind there are.

import { element, icon, name, setData, setIcon, setText, svg, visible } from "./dom.js";
import { count, latency, plural, rate } from "./format.js";
import { isTrouble, rank, STANDINGS, standing, takesNew, tally } from "./standing.js";

// So many instances are all shown; of more, the worst few.
const CHIPS = 14;
const WORST = 8;
const SERVICES = 40;

export class Topology {
  #host;
  #acts; // { open(id), show(words) }
  #store;
  #links = svg("svg", { class: "links", "aria-hidden": "true" });
  #shape = ""; // of what is drawn: when it changes, everything is built anew
  #boxes = { listeners: new Map(), services: new Map(), versions: new Map() };

  constructor(host, store, acts) {
    this.#host = host;
    this.#store = store;
    this.#acts = acts;
    new ResizeObserver(() => this.#link()).observe(host);
  }

  update() {
    const { status } = this.#store;
    if (!status) return;
    const members = groups(this.#store.list());
    const services = status.services.slice(0, SERVICES);
    const shown = new Map(
      services.flatMap((service) =>
        service.versions.map((version) => {
          const path = `${service.name}/${version.name}`;
          const all = members.get(path) ?? [];
          const sorted = [...all].sort(
            (a, b) => (all.length > CHIPS ? rank(a) - rank(b) : 0) || (a.id < b.id ? -1 : 1),
          );
          return [path, { all, chips: all.length > CHIPS ? sorted.slice(0, WORST) : sorted }];
        }),
      ),
    );
    const shape = JSON.stringify([
      status.listeners,
      services.map((it) => [it.name, it.hosts, it.paths]),
      [...shown].map(([path, { chips }]) => [path, chips.map((it) => it.id)]),
    ]);
    if (shape !== this.#shape) this.#build(status, services, shown);
    this.#shape = shape;
    this.#write(services, shown);
    this.#link();
  }

  #build(status, services, shown) {
    for (const boxes of Object.values(this.#boxes)) boxes.clear();
    const listeners = element(
      "ul",
      { className: "listeners" },
      ...status.listeners.map((it) => {
        const kinds = [
          it.tls ? "TLS" : "plain",
          it.http2 ? "HTTP/2" : "HTTP/1.1",
          it.proxy_protocol !== "off" && "PROXY",
        ].filter(Boolean);
        const box = element(
          "div",
          { className: "box" },
          name(it.address, { className: "title" }),
          element("small", { textContent: kinds.join(" · ") }),
        );
        this.#boxes.listeners.set(it.address, box);
        return element("li", {}, box);
      }),
    );
    const rows = services.map((service) => this.#service(service, shown));
    const more = this.#store.status.services.length - services.length;
    if (more > 0)
      rows.push(
        element("li", {
          className: "more",
          textContent: `and ${plural(more, "further service")}: see the table`,
        }),
      );
    this.#host.replaceChildren(
      this.#links,
      listeners,
      element("ul", { className: "services" }, ...rows),
    );
  }

  #service(service, shown) {
    const where = [service.hosts, service.paths].map(
      (all) => (all ?? []).slice(0, 3).join(", ") + (all?.length > 3 ? ` +${all.length - 3}` : ""),
    );
    const box = element(
      "div",
      { className: "box" },
      name(service.name, { className: "title" }),
      name(where.join(" "), { className: "where" }),
    );
    this.#boxes.services.set(service.name, box);
    const versions = service.versions.map((version) => {
      const path = `${service.name}/${version.name}`;
      return this.#version(path, version, shown.get(path));
    });
    return element(
      "li",
      { className: "service" },
      box,
      element("ul", { className: "versions" }, ...versions),
    );
  }

  #version(path, version, { all, chips }) {
    const parts = {
      box: element("button", {
        type: "button",
        className: "box",
        on: { click: () => this.#acts.show(`${path}/`) },
      }),
      figures: element("small"),
      bar: element("span", { className: "states", ariaHidden: "true" }),
      counts: element("small", { className: "counts" }),
      chips: new Map(),
    };
    const traits = [version.session_affinity && "sticky", version.balance]
      .filter(Boolean)
      .join(" · ");
    parts.box.append(
      name(version.name, { className: "title" }),
      element("small", { textContent: traits }),
      parts.figures,
    );
    this.#boxes.versions.set(path, parts);
    const items = chips.map((it) => {
      const chip = this.#chip(it);
      parts.chips.set(it.id, chip);
      return element("li", {}, chip.node);
    });
    const more = all.length - chips.length;
    const rest =
      more > 0 &&
      element(
        "li",
        {},
        element("button", {
          type: "button",
          className: "chip",
          textContent: `${count(more)} more`,
          on: { click: () => this.#acts.show(`${path}/`) },
        }),
      );
    const shares =
      all.length > CHIPS && element("div", { className: "shares" }, parts.bar, parts.counts);
    return element(
      "li",
      { className: "version" },
      parts.box,
      element(
        "div",
        { className: "members" },
        shares,
        element("ul", { className: "chips" }, ...items, rest),
      ),
    );
  }

  #chip(it) {
    const shape = icon("unknown");
    const says = element("span", { className: "says" });
    const node = element(
      "button",
      {
        type: "button",
        className: "instance",
        data: { instance: it.id },
        on: { click: () => this.#acts.open(it.id) },
      },
      shape,
      name(it.name),
      says,
    );
    return { node, shape, says };
  }

  #write(services, shown) {
    for (const service of services)
      for (const version of service.versions) {
        const path = `${service.name}/${version.name}`;
        const { all, chips } = shown.get(path);
        const parts = this.#boxes.versions.get(path);
        const rps = all.reduce((sum, it) => sum + it.rates.requests_per_second, 0);
        const p99 = version.rates?.latency_seconds?.p99;
        setText(
          parts.figures,
          `${shareOf(service, version)}${rate(rps)}/s${p99 === undefined ? "" : ` · p99 ${latency(p99)}`}${version.queue ? ` · ${count(version.queue)} wait` : ""}${version.panic ? " · panic" : ""}`,
        );
        parts.rps = rps;
        parts.cut = !all.some(takesNew);
        parts.trouble = all.some(isTrouble);
        setData(parts.box, "tone", parts.cut ? "bad" : parts.trouble ? "warn" : "good");
        if (all.length > CHIPS) writeShares(parts, tally(all), all.length);
        for (const it of chips) writeChip(parts.chips.get(it.id), it);
      }
  }

  // Lines between boxes where there is room for them beside each other.
  #link() {
    const frame = this.#host.getBoundingClientRect();
    if (
      getComputedStyle(this.#links).display === "none" ||
      frame.width === 0 ||
      !this.#store.status
    )
      return;
    const side = (box) => {
      const { left, right, top, height } = box.getBoundingClientRect();
      return {
        left: left - frame.left,
        right: right - frame.left,
        y: top - frame.top + height / 2,
      };
    };
    const paths = [];
    const line = (from, to, rps, tone) => {
      const [a, b] = [side(from), side(to)];
      const bend = (b.left - a.right) / 2;
      const d = `M${a.right} ${a.y}C${a.right + bend} ${a.y} ${b.left - bend} ${b.y} ${b.left} ${b.y}`;
      paths.push(
        svg("path", {
          d,
          "data-tone": tone,
          "stroke-width": (1 + Math.log2(1 + rps) * 0.55).toFixed(2),
        }),
      );
    };
    for (const [service, box] of this.#boxes.services) {
      const versions = [...this.#boxes.versions]
        .filter(([path]) => path.startsWith(`${service}/`))
        .map(([, parts]) => parts);
      const rps = versions.reduce((sum, parts) => sum + (parts.rps ?? 0), 0);
      const tone = versions.some((parts) => parts.cut) ? "bad" : "good";
      for (const listener of this.#boxes.listeners.values())
        line(listener, box, rps / this.#boxes.listeners.size, tone);
      for (const parts of versions)
        line(box, parts.box, parts.rps ?? 0, parts.cut ? "bad" : "good");
    }
    this.#links.replaceChildren(...paths);
  }
}

function groups(instances) {
  const members = new Map();
  for (const it of instances) {
    const path = `${it.service}/${it.version}`;
    if (!members.has(path)) members.set(path, []);
    members.get(path).push(it);
  }
  return members;
}

function writeChip({ node, shape, says }, it) {
  const { tone, icon: drawing, says: word } = STANDINGS[standing(it)];
  setData(node, "tone", tone);
  setIcon(shape, drawing);
  setText(says, word === "ready" ? `${rate(it.rates.requests_per_second)}/s` : word);
  node.setAttribute("aria-label", `${visible(it.name)}: ${word}`);
}

function writeShares(parts, counts, whole) {
  const pieces = counts.map(([key, n]) => {
    const piece = element("i", { data: { tone: STANDINGS[key].tone } });
    piece.style.flexGrow = String(Math.max(n, whole / 200));
    return piece;
  });
  parts.bar.replaceChildren(...pieces);
  setText(parts.counts, counts.map(([key, n]) => `${count(n)} ${STANDINGS[key].says}`).join(" · "));
}

// Of several versions: its part of the requests that are bound to none, and whether that grows.
function shareOf({ versions, ramp }, { name: version, share }) {
  if (versions.length < 2) return "";
  const isRamp = ramp?.version === version && ["running", "held", "paused"].includes(ramp.stage);
  return `${Math.round(share * 1e4) / 100}%${isRamp ? `, ramp ${ramp.stage}` : ""} · `;
}
