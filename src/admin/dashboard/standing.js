// What to make of an instance, by its four axes: one word, one shape and one tone, worst first. Pure.

import { list, plural } from "./format.js";

// In order of how much they want a look. Tones are colours of style.css, icons shapes of index.html.
export const STANDINGS = {
  dead: { tone: "bad", icon: "dead", says: "dead" },
  open: { tone: "bad", icon: "open", says: "breaker open" },
  unready: { tone: "warn", icon: "unready", says: "unready" },
  "half-open": { tone: "warn", icon: "half", says: "breaker half-open" },
  unknown: { tone: "idle", icon: "unknown", says: "no verdict yet" },
  removed: { tone: "moving", icon: "draining", says: "removed" },
  draining: { tone: "moving", icon: "draining", says: "draining" },
  drained: { tone: "moving", icon: "draining", says: "drained" },
  disabled: { tone: "idle", icon: "disabled", says: "disabled" },
  ready: { tone: "good", icon: "ready", says: "ready" },
};

const RANKS = Object.fromEntries(Object.keys(STANDINGS).map((key, rank) => [key, rank]));
// These are failures; the others are somebody's wish, or all is well.
const TROUBLE = ["dead", "open", "unready", "half-open"];

export function standing(instance) {
  // What an operator took out on purpose is no trouble, whatever its checks say.
  if (instance.admin === "disabled") return "disabled";
  if (instance.health === "dead") return "dead";
  if (instance.membership === "removed") return "removed";
  if (instance.admin === "draining" || instance.admin === "drained") return instance.admin;
  if (instance.breaker === "open") return "open";
  if (instance.health === "unready") return "unready";
  if (instance.breaker === "half-open") return "half-open";
  return instance.health === "unknown" ? "unknown" : "ready";
}

export const rank = (instance) => RANKS[standing(instance)];
export const isTrouble = (instance) => TROUBLE.includes(standing(instance));
export const isAside = (instance) => !["ready", ...TROUBLE].includes(standing(instance));

// Whether it may be given new sessions, also between two answers of /status.
export const takesNew = (instance) => instance.takes?.new ?? standing(instance) === "ready";

// How many instances there are of each standing, worst first.
export function tally(instances) {
  const counts = new Map();
  for (const instance of instances) {
    const key = standing(instance);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].sort(([a], [b]) => RANKS[a] - RANKS[b]);
}

// The page's first sentence: { tone, icon, text, about }, where `about` is what to look at.
export function verdict(status, instances) {
  if (status.burdock.phase === "draining")
    return {
      tone: "moving",
      icon: "draining",
      text: "Burdock is stopping: it finishes what is under way.",
    };
  if (instances.length === 0)
    return {
      tone: "idle",
      icon: "unknown",
      text: "No instance is configured: every request gets a 503.",
    };
  const served = new Set(instances.filter(takesNew).map((it) => `${it.service}/${it.version}`));
  const paths = status.services.flatMap((service) =>
    service.versions.map((version) => `${service.name}/${version.name}`),
  );
  const cut = paths.filter((path) => !served.has(path));
  if (cut.length > 0)
    return {
      tone: "bad",
      icon: "dead",
      text: `No instance of ${list(cut.length > 3 ? [...cut.slice(0, 3), `${cut.length - 3} more`] : cut)} takes new sessions.`,
      about: "trouble",
    };
  const counts = tally(instances);
  const troubled = counts.filter(([key]) => TROUBLE.includes(key));
  const aside = counts.filter(([key]) => key !== "ready" && !TROUBLE.includes(key));
  const words = (of) =>
    list(of.map(([key, n]) => `${n.toLocaleString("en")} ${STANDINGS[key].says}`));
  if (troubled.length > 0) {
    const sum = troubled.reduce((all, [, n]) => all + n, 0);
    const tone = troubled.some(([key]) => STANDINGS[key].tone === "bad") ? "bad" : "warn";
    const text = `${sum.toLocaleString("en")} of ${plural(instances.length, "instance")} ${sum === 1 ? "needs" : "need"} a look: ${words(troubled)}.`;
    return { tone, icon: tone === "bad" ? "dead" : "unready", text, about: "trouble" };
  }
  if (aside.length > 0)
    return {
      tone: "good",
      icon: "ready",
      text: `Nothing fails; of ${plural(instances.length, "instance")}, ${words(aside)}.`,
      about: "aside",
    };
  const all =
    instances.length === 1
      ? "The only instance is ready."
      : `All ${plural(instances.length, "instance")} are ready.`;
  return { tone: "good", icon: "ready", text: all };
}
