// The last 15 minutes in steps of five seconds: first from /history, then from each tick. Pure; times are
// milliseconds of the server's clock.

export const STEP = 5_000;
export const SPAN = 900_000;

const indexOf = (at) => Math.floor(at / STEP);

export class Series {
  #steps = new Map(); // index -> { ticks, figures, rehomes }
  #lastTotals = null;
  #isLoaded = false; // and no tick has come since
  now = 0;

  load(history) {
    this.#steps.clear();
    this.#lastTotals = null;
    this.#isLoaded = true;
    const { series, step_seconds: seconds, until } = history;
    const end = Date.parse(until);
    const length = Math.max(
      0,
      ...Object.values(series)
        .filter(Array.isArray)
        .map((values) => values.length),
    );
    const { rehomes = {}, ...plain } = series;
    for (let i = 0; i < length; i++) {
      const step = this.#step(end - (length - i) * seconds * 1_000);
      for (const [key, values] of Object.entries(plain)) step.figures[key] = values[i] ?? null;
      for (const [reason, values] of Object.entries(rehomes))
        this.#count(step, reason, values[i] ?? 0);
    }
    this.now = Math.max(this.now, end);
  }

  add(tick) {
    const at = Date.parse(tick.at);
    this.#join(indexOf(at), tick);
    const step = this.#step(at);
    this.#mean(step, figuresOf(tick));
    for (const [reason, total] of Object.entries(tick.rehomes_total ?? {})) {
      const before = this.#lastTotals?.[reason] ?? total;
      this.#count(step, reason, Math.max(0, total - before));
    }
    this.#lastTotals = tick.rehomes_total;
    this.now = at;
    for (const index of this.#steps.keys())
      if (index < indexOf(at - SPAN) - 1) this.#steps.delete(index);
  }

  // Each step of the window, oldest first: { at, figures, rehomes }, or only { at } where nothing is known.
  window() {
    const last = indexOf(this.now);
    const first = indexOf(this.now - SPAN);
    return Array.from({ length: last - first + 1 }, (_, i) => {
      const step = this.#steps.get(first + i);
      return { at: (first + i) * STEP, figures: step?.figures ?? {}, rehomes: step?.rehomes ?? {} };
    });
  }

  rehomesSince(at) {
    let sum = 0;
    for (const [index, step] of this.#steps)
      if (index >= indexOf(at)) for (const n of Object.values(step.rehomes)) sum += n;
    return sum;
  }

  // The history ends up to a step before the first tick after it: that is no gap.
  #join(index, tick) {
    if (!this.#isLoaded) return;
    this.#isLoaded = false;
    if (this.#steps.has(index - 2) && !this.#steps.has(index - 1))
      this.#mean(this.#step((index - 1) * STEP), figuresOf(tick));
  }

  #step(at) {
    const index = indexOf(at);
    if (!this.#steps.has(index)) this.#steps.set(index, { ticks: 0, figures: {}, rehomes: {} });
    return this.#steps.get(index);
  }

  #mean(step, figures) {
    for (const [key, value] of Object.entries(figures)) {
      const before = step.figures[key];
      if (value === null || value === undefined) step.figures[key] = before ?? null;
      else
        step.figures[key] =
          step.ticks && before !== null && before !== undefined
            ? before + (value - before) / (step.ticks + 1)
            : value;
    }
    step.ticks += 1;
  }

  #count(step, reason, n) {
    if (!(n > 0)) return;
    step.rehomes[reason] = (step.rehomes[reason] ?? 0) + n;
  }
}

function figuresOf({ totals, tunnels, sessions, connections }) {
  const { requests_per_second, errors_per_second, latency_seconds } = totals;
  const { p50, p90, p99 } = latency_seconds ?? {};
  return { requests_per_second, errors_per_second, p50, p90, p99, tunnels, sessions, connections };
}
