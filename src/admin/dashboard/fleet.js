// The balancers of the fleet, as the one that serves this page knows them. Those that were not heard
// for a while, or are gone, are marked.

import { get } from "./api.js";
import { element, icon, name, setText } from "./dom.js";
import { NONE, count, duration, plural, rate } from "./format.js";

const HEAD = ["Balancer", "State", "Admin", "Version", "Config", "Ready"];
const FIGURES = ["Connections", "Tunnels", "Sessions", "Req/s", "Err/s"];

const STATES = {
  here: () => ["ready", "this one"],
  fresh: () => ["ready", "heard"],
  stale: (node) => ["unready", `stale, heard ${duration(node.heard_seconds)} ago`],
  gone: (node) => ["dead", `gone, heard ${duration(node.heard_seconds)} ago`],
};

export class Fleet {
  #parts;
  #looking = false;

  constructor(parts) {
    this.#parts = parts;
    const column = (textContent) => element("th", { scope: "col", textContent });
    parts.head.replaceChildren(...[...HEAD, ...FIGURES].map(column));
  }

  // Asks for all of them, where this balancer is in a fleet at all.
  async look(status) {
    const { section } = this.#parts;
    if (!status?.fleet) section.hidden = true;
    if (!status?.fleet || this.#looking) return;
    this.#looking = true;
    // The head of the page tells when nothing answers.
    const fleet = await get("fleet").catch(() => null);
    this.#looking = false;
    if (fleet) this.#draw(fleet);
  }

  #draw({ name: own, connected, orders, nodes }) {
    const { section, text, body } = this.#parts;
    const heard = connected ? "heard" : "not heard: what is shown of others is of before";
    const pending = orders.pending ? `, ${count(orders.pending)} of them not heard by others` : "";
    setText(text, `as ${own} knows it: ${heard}; ${plural(orders.rows, "order")}${pending}`);
    const here = nodes.find((node) => node.presence === "here");
    body.replaceChildren(...nodes.map((node) => row(node, here)));
    section.hidden = false;
  }
}

function row(node, here) {
  const [shape, state] = (STATES[node.presence] ?? STATES.stale)(node);
  const gone = node.presence === "gone";
  const services = Object.values(node.services);
  const sum = (of) => services.reduce((all, service) => all + service[of], 0);
  const draining = !gone && node.phase !== "serving" ? `, ${node.phase}` : "";
  const differs = here && node.config !== here.config ? " (differs)" : "";
  const figures = [
    count(node.connections),
    count(node.tunnels),
    count(node.sessions),
    rate(node.requests_per_second),
    rate(node.errors_per_second),
  ];
  const cells = [
    element("th", { scope: "row" }, name(node.name)),
    element("td", {}, icon(shape), ` ${state}${draining}`),
    element("td", {}, name(node.admin ?? NONE)),
    element("td", { textContent: node.version }),
    element("td", { textContent: `${node.config}${differs}` }),
    element("td", { textContent: gone ? NONE : `${count(sum("ready"))}/${count(sum("instances"))}` }),
    ...figures.map((figure) => element("td", { textContent: gone ? NONE : figure })),
  ];
  return element("tr", { data: { node: node.name, presence: node.presence } }, ...cells);
}
