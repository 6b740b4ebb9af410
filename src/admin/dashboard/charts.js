// Charts of the last 15 minutes: inline SVG with axes, one cursor for all of them, whose values the
// legends show, and marks where something happened. Drawn anew once a second.

import { element, icon, setText, svg } from "./dom.js";
import { clock, count, latency, minute, NONE, rate, short } from "./format.js";
import { SPAN, STEP } from "./series.js";

const HEIGHT = 168;
const EDGE = { left: 46, right: 10, top: 14, bottom: 22 };
// Marks that are nearer to each other than this, in pixels, become one.
const MARK_WIDTH = 9;
const MINUTE = 60_000;

const figure = (key) => (step) => step.figures[key] ?? null;

const CHARTS = [
  {
    title: "Requests",
    unit: "per second",
    format: rate,
    lines: [
      { key: "requests", label: "requests", value: figure("requests_per_second"), area: true },
      { key: "errors", label: "errors", value: figure("errors_per_second"), area: true },
    ],
  },
  {
    title: "Latency",
    unit: "time to the answer's head",
    format: latency,
    tick: latency,
    lines: [
      { key: "p50", label: "p50", value: figure("p50") },
      { key: "p90", label: "p90", value: figure("p90") },
      { key: "p99", label: "p99", value: figure("p99") },
    ],
  },
  { title: "Re-homes", unit: "sessions moved in 15 s, by reason", format: count, stacked: 3 },
  {
    title: "Tunnels and sessions",
    unit: "open now",
    format: count,
    lines: [
      { key: "sessions", label: "sessions", value: figure("sessions") },
      { key: "tunnels", label: "tunnels", value: figure("tunnels") },
    ],
  },
];

// The least round number that is not below `most`, and its four parts.
export function scale(most) {
  if (!(most > 0)) return { top: 1, ticks: [0, 1] };
  const magnitude = 10 ** Math.floor(Math.log10(most / 4));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * magnitude).find((n) => n * 4 >= most * 0.999);
  const parts = Math.ceil((most * 0.999) / step);
  return { top: step * parts, ticks: Array.from({ length: parts + 1 }, (_, i) => i * step) };
}

// Neighbouring steps as one bar: { at, values }, where a bar of which nothing is known is empty.
export function stack(steps, size, reasons) {
  const bars = new Map();
  for (const step of steps) {
    const at = Math.floor(step.at / (STEP * size)) * STEP * size;
    const bar = bars.get(at) ?? {
      at,
      values: Object.fromEntries(reasons.map((reason) => [reason, 0])),
    };
    for (const reason of reasons) bar.values[reason] += step.rehomes[reason] ?? 0;
    bars.set(at, bar);
  }
  return [...bars.values()];
}

// All charts on the page, and the cursor that they share.
export class Charts {
  #store;
  #charts;
  #cursor = null; // milliseconds, or null: the legends show the latest values
  #says;
  #cursorMoved = (at, aloud) => this.#moveTo(at, aloud);

  constructor(host, says, store) {
    this.#store = store;
    this.#says = says;
    this.#charts = CHARTS.map((plan) => new Chart(plan, this.#cursorMoved));
    host.append(...this.#charts.map((chart) => chart.node));
    // Asking for a width costs a layout, so that it is asked for when it changes.
    const resized = new ResizeObserver(
      () => (this.#charts.forEach((chart) => chart.measure()), this.draw()),
    );
    for (const chart of this.#charts) resized.observe(chart.node);
  }

  draw() {
    const { series, events } = this.#store;
    const end = series.now || Date.now();
    const steps = series.window();
    const reasons = [...new Set(steps.flatMap((step) => Object.keys(step.rehomes)))].sort();
    const view = {
      from: end - SPAN,
      to: end,
      steps,
      reasons,
      events: events.filter((it) => it.time >= end - SPAN),
    };
    for (const chart of this.#charts) chart.draw(view, this.#cursor);
    this.#tellEvents(view);
  }

  #moveTo(at, aloud) {
    this.#cursor = at;
    this.draw();
    for (const chart of this.#charts) chart.speak(at !== null && aloud);
  }

  // What happened around the cursor, else what happened last.
  #tellEvents({ events }) {
    const near =
      this.#cursor === null
        ? events.slice(-1)
        : events.filter((it) => Math.abs(it.time - this.#cursor) <= STEP * 2.5).slice(-4);
    const nothing =
      this.#cursor === null
        ? "Nothing happened in the last 15 minutes."
        : "Nothing happened around then.";
    const spans = near.flatMap((it) => [
      element(
        "span",
        { className: "happening", data: { severity: it.severity } },
        icon(`event-${it.severity}`),
        element("time", { textContent: clock(it.time) }),
        element("bdi", { textContent: it.text }),
      ),
    ]);
    this.#says.replaceChildren(...(spans.length > 0 ? spans : [nothing]));
  }
}

class Chart {
  #plan;
  #moved;
  #plot = svg("svg", { class: "plot", height: HEIGHT, "aria-hidden": "true" });
  #legend = element("ul", { className: "legend" });
  #at = element("time", { className: "at" });
  #spoken = element("p", { className: "unseen", aria: { live: "polite" } });
  #view = null;
  #cursor = null;
  #width = 120; // pixels

  constructor(plan, moved) {
    this.#plan = plan;
    this.#moved = moved;
    const head = element(
      "header",
      {},
      element("h3", { textContent: plan.title }),
      element("span", { className: "unit", textContent: plan.unit }),
      this.#at,
    );
    this.node = element(
      "figure",
      { className: "chart card", tabIndex: 0, role: "group" },
      head,
      this.#legend,
      this.#plot,
      this.#spoken,
    );
    this.node.setAttribute(
      "aria-label",
      `${plan.title}, ${plan.unit}, last 15 minutes. Arrow keys move the cursor.`,
    );
    this.#plot.addEventListener("pointermove", (event) =>
      moved(this.#timeAt(event.offsetX), false),
    );
    this.#plot.addEventListener("pointerleave", () => moved(null, false));
    this.node.addEventListener("blur", () => moved(null, false));
    this.node.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    const { from, to } = this.#view ?? {};
    const now = this.#cursor ?? to;
    const target = {
      ArrowLeft: now - STEP * 2,
      ArrowRight: now + STEP * 2,
      PageUp: now - MINUTE,
      PageDown: now + MINUTE,
      Home: from,
      End: to,
      Escape: null,
    }[event.key];
    if (target === undefined || !this.#view) return;
    event.preventDefault();
    event.stopPropagation();
    this.#moved(target === null ? null : Math.min(to, Math.max(from, target)), true);
  }

  #timeAt(x) {
    const { from, to } = this.#view ?? { from: 0, to: 0 };
    const part = (x - EDGE.left) / (this.#width - EDGE.left - EDGE.right);
    return from + Math.min(1, Math.max(0, part)) * (to - from);
  }

  measure() {
    this.#width = Math.max(this.#plot.clientWidth, 120);
  }

  draw(view, cursor) {
    this.#view = view;
    this.#cursor = cursor;
    const rows = this.#plan.stacked ? this.#stackedRows(view) : this.#lineRows(view);
    const { top, ticks } = scale(rows.most);
    const { from, to } = view;
    const x = (at) =>
      EDGE.left + ((at - from) / (to - from)) * (this.#width - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
    const parts = [...this.#axes(x, y, ticks, view), ...marks(view.events, x), ...rows.draw(x, y)];
    if (rows.empty)
      parts.push(
        svg("text", { class: "none", x: x((from + to) / 2), y: y(top * 0.55) }, rows.empty),
      );
    if (cursor !== null)
      parts.push(
        svg("line", {
          class: "cursor",
          x1: x(cursor),
          x2: x(cursor),
          y1: EDGE.top - 4,
          y2: HEIGHT - EDGE.bottom,
        }),
      );
    this.#plot.replaceChildren(...parts);
    this.#tellValues(rows.values(cursor), cursor);
  }

  #axes(x, y, ticks, { from, to }) {
    const right = this.#width - EDGE.right;
    const grid = ticks.flatMap((value) => [
      svg("line", {
        class: value === 0 ? "axis" : "grid",
        x1: EDGE.left,
        x2: right,
        y1: y(value),
        y2: y(value),
      }),
      svg(
        "text",
        { class: "tick y", x: EDGE.left - 6, y: y(value) + 3.5 },
        (this.#plan.tick ?? short)(value),
      ),
    ]);
    const every = this.#width < 420 ? 5 : 3;
    const times = [];
    for (
      let at = Math.ceil(from / (every * MINUTE)) * every * MINUTE;
      at <= to;
      at += every * MINUTE
    ) {
      times.push(svg("line", { class: "axis", x1: x(at), x2: x(at), y1: y(0), y2: y(0) + 4 }));
      if (x(at) > EDGE.left + 12 && x(at) < right - 12)
        times.push(svg("text", { class: "tick x", x: x(at), y: HEIGHT - 6 }, minute(at)));
    }
    return [...grid, ...times];
  }

  #lineRows({ steps }) {
    const { lines } = this.#plan;
    const all = lines.flatMap((line) => steps.map(line.value)).filter((value) => value !== null);
    const draw = (x, y) =>
      lines.flatMap((line) => {
        const runs = unbroken(steps, line.value);
        const points = (run) =>
          run
            .map(
              ([at, value]) =>
                `${x(Math.max(at + STEP / 2, steps[0].at)).toFixed(1)} ${y(value).toFixed(1)}`,
            )
            .join("L");
        const inside = (run) =>
          `M${x(run[0][0] + STEP / 2).toFixed(1)} ${y(0)}L${points(run)}L${x(run.at(-1)[0] + STEP / 2).toFixed(1)} ${y(0)}Z`;
        return [
          ...(line.area
            ? [
                svg("path", {
                  class: "area",
                  "data-series": line.key,
                  d: runs.map(inside).join(""),
                }),
              ]
            : []),
          svg("path", {
            class: "line",
            "data-series": line.key,
            d: runs.map((run) => `M${points(run)}`).join(""),
          }),
        ];
      });
    const values = (cursor) => {
      const step =
        cursor === null
          ? steps.findLast((it) => lines.some((line) => line.value(it) !== null))
          : steps.find((it) => it.at + STEP > cursor);
      return lines.map((line) => ({ ...line, value: step ? line.value(step) : null }));
    };
    return { most: Math.max(0, ...all), empty: all.length === 0 && "no answers yet", draw, values };
  }

  #stackedRows({ steps, reasons }) {
    const size = this.#plan.stacked;
    const bars = stack(steps, size, reasons);
    const sum = (bar) => Object.values(bar.values).reduce((all, n) => all + n, 0);
    const draw = (x, y) =>
      bars.flatMap((bar) => {
        const left = Math.max(x(bar.at), EDGE.left);
        const width = Math.max(
          1,
          Math.min(x(bar.at + STEP * size), this.#width - EDGE.right) - left - 1,
        );
        let below = 0;
        return reasons
          .filter((reason) => bar.values[reason] > 0)
          .map((reason) => {
            const from = below;
            below += bar.values[reason];
            return svg("rect", {
              class: "bar",
              "data-reason": reason,
              x: left,
              width,
              y: y(below),
              height: Math.max(1, y(from) - y(below) - 0.5),
            });
          });
      });
    const values = (cursor) => {
      const bar = cursor === null ? null : bars.findLast((it) => it.at <= cursor);
      const whole = (reason) => bars.reduce((all, it) => all + it.values[reason], 0);
      return reasons.map((reason) => ({
        key: reason,
        label: reason.replaceAll("_", " "),
        value: bar ? bar.values[reason] : whole(reason),
        reason,
      }));
    };
    const most = Math.max(0, ...bars.map(sum));
    return { most: Math.max(most, 4), empty: most === 0 && "no session moved", draw, values };
  }

  #tellValues(values, cursor) {
    setText(this.#at, cursor === null ? "" : clock(cursor));
    const rows = values.map(({ key, label, value, reason }) =>
      element(
        "li",
        { data: reason ? { reason } : { series: key } },
        element("i", { className: "swatch" }),
        element("span", { textContent: label }),
        element("b", { textContent: this.#plan.format(value) }),
      ),
    );
    this.#legend.replaceChildren(...rows);
  }

  // For those who move the cursor by keys and don't see it.
  speak(aloud) {
    const legend = [...this.#legend.children].map((row) => row.innerText.replace(/\s+/g, " "));
    if (aloud && this.node === document.activeElement)
      setText(this.#spoken, `${this.#at.textContent}: ${legend.join(", ") || NONE}`);
  }
}

// Runs of steps without a gap, as [at, value].
function unbroken(steps, valueOf) {
  const runs = [];
  let run = null;
  for (const step of steps) {
    const value = valueOf(step);
    if (value === null) {
      run = null;
      continue;
    }
    if (!run) runs.push((run = []));
    run.push([step.at, value]);
  }
  return runs;
}

const SEVERITIES = ["info", "warning", "error"];

// A line through the plot and a shape above it; neighbours share one, of the worst of them.
function marks(events, x) {
  const groups = [];
  for (const event of events) {
    const at = x(event.time);
    const last = groups.at(-1);
    if (last && at - last.at < MARK_WIDTH)
      last.severity = Math.max(last.severity, SEVERITIES.indexOf(event.severity));
    else groups.push({ at, severity: SEVERITIES.indexOf(event.severity) });
  }
  return groups.flatMap(({ at, severity }) => {
    const data = { "data-severity": SEVERITIES[Math.max(severity, 0)] };
    return [
      svg("line", {
        class: "mark",
        ...data,
        x1: at,
        x2: at,
        y1: EDGE.top,
        y2: HEIGHT - EDGE.bottom,
      }),
      svg("use", {
        class: "mark",
        ...data,
        href: `#i-event-${SEVERITIES[Math.max(severity, 0)]}`,
        x: at - 5,
        y: 2,
        width: 10,
        height: 10,
      }),
    ];
  });
}
