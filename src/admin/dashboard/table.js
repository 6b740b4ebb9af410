// The table of instances: worst first, searched, and drawn only where one looks, so that ten thousand
// cost what twenty do. Rows keep their nodes while they are in sight; what changed is written into them.

import { element, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { COLUMNS, Row } from "./row.js";
import { isAside, isTrouble, rank } from "./standing.js";

const SPARE = 4; // rows drawn above and below what is in sight
const MOST_HEIGHT = 620;

export const FILTERS = {
  all: { label: "All", keeps: () => true },
  trouble: { label: "Needs a look", keeps: isTrouble },
  errors: { label: "With errors", keeps: (it) => it.rates.errors_per_second > 0 },
  aside: { label: "Set aside", keeps: isAside },
};

export class Table {
  #store;
  #acts; // { open(id), change(id, state) }
  #parts;
  #sort = { key: "worst", descending: false };
  #filter = "all";
  #words = [];
  #order = []; // ids in the order shown
  #rows = new Map(); // id -> Row in sight
  #current = null; // id of the row that keys act on
  #mostSessions = 1;

  constructor(parts, store, acts) {
    this.#store = store;
    this.#acts = acts;
    this.#parts = parts; // { grid, head, body, search, filters, summary }
    this.#parts.head.append(...COLUMNS.map((column) => this.#heading(column)));
    this.#parts.filters.append(
      ...Object.entries(FILTERS).map(([key, { label }]) =>
        element(
          "button",
          {
            type: "button",
            className: "chip",
            data: { filter: key },
            aria: { pressed: key === "all" },
            on: { click: () => this.filter(key) },
          },
          label,
          " ",
          element("b"),
        ),
      ),
    );
    parts.search.addEventListener("input", () => this.#searched());
    parts.grid.addEventListener("scroll", () => this.draw(), { passive: true });
    parts.grid.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(parts.grid);
  }

  get current() {
    return this.#current;
  }

  // Shows only what a filter keeps, or with `words` what has all of them.
  filter(key, words) {
    this.#filter = key;
    if (words !== undefined) {
      this.#parts.search.value = words;
      this.#words = split(words);
    }
    this.#parts.grid.scrollTop = 0;
    this.update(true);
  }

  #searched() {
    this.#words = split(this.#parts.search.value);
    this.#parts.grid.scrollTop = 0;
    this.update(true);
  }

  // Sorts and draws anew. While somebody points at a row it stays where it is.
  update(asked = false) {
    const all = this.#store.list();
    const { keeps } = FILTERS[this.#filter];
    const shown = all.filter(
      (it) => keeps(it) && this.#words.every((word) => it.key.includes(word)),
    );
    this.#mostSessions = all.reduce((most, it) => Math.max(most, it.sessions), 1);
    const held = !asked && this.#isHeld() && this.#sameRows(shown);
    if (!held) this.#order = shown.sort(this.#comparison()).map((it) => it.id);
    this.#tellFilters(all);
    const whole =
      all.length === shown.length
        ? plural(all.length, "instance")
        : `${count(shown.length)} of ${plural(all.length, "instance")}`;
    const left = this.#store.tick?.instances_left_out ?? 0;
    const note = left > 0 ? `; figures of ${count(left)} quiet ones are up to 15 s old` : "";
    setText(
      this.#parts.summary,
      all.length === 0
        ? ""
        : `${whole}, ${this.#sort.key === "worst" ? "worst first" : `by ${this.#sort.key}`}${note}`,
    );
    this.#parts.grid.setAttribute("aria-rowcount", String(this.#order.length + 1));
    if (!this.#store.instances.has(this.#current)) this.#current = null;
    this.draw();
  }

  #isHeld() {
    return this.#parts.grid.matches(":hover") || this.#parts.grid.matches(":focus-within");
  }

  #sameRows(shown) {
    return (
      shown.length === this.#order.length &&
      new Set([...this.#order, ...shown.map((it) => it.id)]).size === shown.length
    );
  }

  #comparison() {
    const { key, descending } = this.#sort;
    const column = COLUMNS.find((one) => one.key === key);
    const order =
      column?.order ??
      ((it) => rank(it) * 1e9 - it.rates.errors_per_second * 1e3 - 1e-3 * it.sessions);
    const sign = descending ? -1 : 1;
    const compare = (a, b) =>
      typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return (a, b) => sign * compare(order(a), order(b)) || (a.id < b.id ? -1 : 1);
  }

  #heading({ key, title, order, ascending }) {
    const cell = element("div", { role: "columnheader", className: `cell ${key}` });
    if (!order) {
      cell.textContent = title;
      return cell;
    }
    const sort = () => {
      const first = !ascending;
      // Largest first, then smallest, then worst first again.
      if (this.#sort.key !== key) this.#sort = { key, descending: first };
      else if (this.#sort.descending === first) this.#sort = { key, descending: !first };
      else this.#sort = { key: "worst", descending: false };
      this.#tellSort();
      this.update(true);
    };
    cell.append(element("button", { type: "button", textContent: title, on: { click: sort } }));
    cell.dataset.key = key;
    return cell;
  }

  #tellSort() {
    for (const cell of this.#parts.head.children) {
      const sorted = cell.dataset.key === this.#sort.key;
      if (sorted)
        cell.setAttribute("aria-sort", this.#sort.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  #tellFilters(all) {
    for (const chip of this.#parts.filters.children) {
      const { filter } = chip.dataset;
      chip.setAttribute("aria-pressed", String(filter === this.#filter));
      setText(
        chip.lastElementChild,
        count(filter === "all" ? all.length : all.filter(FILTERS[filter].keeps).length),
      );
    }
  }

  // Writes what is known into the rows in sight.
  draw() {
    const { grid, body, head } = this.#parts;
    const height = parseFloat(getComputedStyle(grid).getPropertyValue("--row")) || 44;
    const total = this.#order.length * height;
    const room = Math.min(total + head.offsetHeight + 2, MOST_HEIGHT);
    grid.style.height = this.#order.length > 0 ? `${room}px` : "";
    body.style.height = `${total}px`;
    const first = Math.max(0, Math.floor(grid.scrollTop / height) - SPARE);
    const last = Math.min(this.#order.length, Math.ceil((grid.scrollTop + room) / height) + SPARE);
    const inSight = new Set(this.#order.slice(first, last));
    for (const [id, row] of this.#rows)
      if (!inSight.has(id)) {
        row.node.remove();
        this.#rows.delete(id);
      }
    for (let i = first; i < last; i++) this.#place(i, height);
    this.#parts.none.hidden = this.#order.length > 0;
    setText(
      this.#parts.none,
      this.#store.instances.size > 0 ? "No instance fits." : "There is none.",
    );
    const current = this.#rows.get(this.#current)?.node.id;
    if (current) grid.setAttribute("aria-activedescendant", current);
    else grid.removeAttribute("aria-activedescendant");
  }

  #place(index, height) {
    const id = this.#order[index];
    const instance = this.#store.instances.get(id);
    if (!instance) return;
    let row = this.#rows.get(id);
    if (!row) {
      row = new Row(id, this.#acts, () => (this.#current = id));
      this.#rows.set(id, row);
      this.#parts.body.append(row.node);
    }
    row.node.style.transform = `translateY(${index * height}px)`;
    row.node.setAttribute("aria-rowindex", String(index + 2));
    row.node.setAttribute("aria-selected", String(id === this.#current));
    row.write(instance, this.#mostSessions, this.#store.drains.get(id));
  }

  #key(event) {
    // Buttons and links in a row have their own keys.
    if (event.target !== this.#parts.grid) return;
    const page = 10;
    const at = this.#order.indexOf(this.#current);
    const to = {
      ArrowDown: at + 1,
      j: at + 1,
      ArrowUp: at - 1,
      k: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: Infinity,
    }[event.key];
    if (to !== undefined && this.#order.length > 0) {
      event.preventDefault();
      this.move(Math.min(this.#order.length - 1, Math.max(0, to)));
    } else if (event.key === "Enter" && this.#current) {
      event.preventDefault();
      this.#acts.open(this.#current);
    }
  }

  // One row down or up, from wherever the focus is.
  step(by) {
    this.#parts.grid.focus();
    const at = this.#order.indexOf(this.#current);
    this.move(Math.min(this.#order.length - 1, Math.max(0, at + by)));
  }

  move(index) {
    const { grid, head } = this.#parts;
    if (this.#order.length === 0) return;
    this.#current = this.#order[index];
    const height = parseFloat(getComputedStyle(grid).getPropertyValue("--row")) || 44;
    const top = index * height;
    const room = grid.clientHeight - head.offsetHeight;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + height > grid.scrollTop + room) grid.scrollTop = top + height - room;
    this.draw();
  }
}

const split = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
