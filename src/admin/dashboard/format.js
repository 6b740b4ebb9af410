// Figures as people read them: few digits, a unit, and a space that does not break between the two.

const NARROW = "\u202f";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hundredth = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const NONE = "–";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const count = (value) => (known(value) ? whole.format(value) : NONE);

export function rate(value) {
  if (!known(value)) return NONE;
  if (value === 0) return "0";
  if (value < 0.01) return "<0.01";
  return (value < 1 ? hundredth : value < 100 ? tenth : whole).format(value);
}

export function latency(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds === 0) return "0";
  if (seconds < 1e-3) return `${whole.format(seconds * 1e6)}${NARROW}µs`;
  if (seconds < 1) return `${(seconds < 0.01 ? tenth : whole).format(seconds * 1e3)}${NARROW}ms`;
  return `${hundredth.format(seconds)}${NARROW}s`;
}

export function share(part, of) {
  if (!known(part) || !of) return `0${NARROW}%`;
  const percent = (part / of) * 100;
  if (percent > 0 && percent < 0.01) return `<0.01${NARROW}%`;
  return `${(percent < 1 ? hundredth : tenth).format(percent)}${NARROW}%`;
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
    ["s", 1],
  ];
  const at = units.findIndex(([, size]) => seconds >= size);
  if (at < 0) return `0${NARROW}s`;
  const [unit, size] = units[at];
  const first = `${Math.floor(seconds / size)}${NARROW}${unit}`;
  const [nextUnit, nextSize] = units[at + 1] ?? [];
  const rest = nextSize ? Math.floor((seconds % size) / nextSize) : 0;
  return rest ? `${first} ${rest}${NARROW}${nextUnit}` : first;
}

// Whole seconds from now until then, or null if nobody knows when.
export const secondsLeft = (then) =>
  then === null ? null : Math.max(0, Math.round((then - Date.now()) / 1_000));

const clocks = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

export const clock = (at) => (known(at) ? clocks.format(new Date(at)) : NONE);
export const minute = (at) => minutes.format(new Date(at));

// For the ticks of an axis, where there is little room.
export const short = (value) => (value < 10_000 ? rate(value) : compact.format(value));

// "1 tunnel", "37 tunnels".
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export function list(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
