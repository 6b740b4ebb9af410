// What an operator does to Burdock from this page: asks what is meant, does it, says what came of it.

import { instancePath, send } from "./api.js";
import { element } from "./dom.js";
import { askWeight, confirmChange, say, tellReload } from "./dialogs.js";
import { count, list, plural } from "./format.js";
import { takesNew } from "./standing.js";

const what = (it) => list([plural(it.sessions, "session"), plural(it.tunnels, "tunnel")]);

// Says nothing of what there is none of.
const of = (n, one, says) => (n > 0 ? `${plural(n, one)} ${says}` : null);
const sentences = (...parts) => parts.filter(Boolean).join(" ");
const inFlight = (it) => of(it.requests, "request", "in flight may finish.");

// How a change is asked for: what becomes of whom, told by what there is now.
const ASKS = {
  draining: (it) => ({
    verb: "Drain",
    deadline: true,
    sentences: [
      `${what(it)} will move.`,
      sentences(
        "It gets no new sessions from now on.",
        of(
          it.sessions,
          "session",
          "may stay until the deadline; then the next request of each moves it.",
        ),
        of(
          it.tunnels,
          "tunnel",
          "will get a Close with code 1012, spread over the end of that time.",
        ),
        inFlight(it),
      ),
    ],
  }),
  disabled: (it) => ({
    verb: "Disable",
    danger: true,
    sentences: [
      `${what(it)} will move now.`,
      sentences(
        "It gets nothing new from now on.",
        of(it.sessions, "session", "will move with the next request of each."),
        of(it.tunnels, "tunnel", "will get a Close with code 1012 within a second."),
        inFlight(it),
        "To let sessions stay for a while, drain it instead.",
      ),
    ],
  }),
  active: (it) => ({
    verb: "Enable",
    sentences: [
      sentences(
        "It takes new sessions as soon as its checks and its breaker let it. Sessions that have moved stay where they are now.",
        of(it.sessions, "session", "that it still has will stay."),
      ),
    ],
  }),
};

const DONE = { draining: "drains", disabled: "is disabled", active: "is enabled" };

export class Changes {
  #store;

  constructor(store) {
    this.#store = store;
  }

  async state(id, state) {
    const it = this.#store.instances.get(id);
    if (!it) return;
    const { verb, ...rest } = ASKS[state](it);
    const title = [`${verb} `, element("bdi", { textContent: it.name }), "?"];
    const shortage = state === "active" ? {} : this.#shortage(it);
    const danger = rest.danger || shortage.nobody;
    const answer = await confirmChange({
      title,
      confirm: verb,
      ...rest,
      danger,
      warning: shortage.text,
    });
    if (answer) await this.#patch(it, { state, ...answer }, DONE[state]);
  }

  async weight(id) {
    const it = this.#store.instances.get(id);
    if (!it) return;
    const weight = await askWeight(it);
    if (weight !== undefined)
      await this.#patch(
        it,
        { weight },
        weight === null ? "has the file's weight" : `has weight ${count(weight)}`,
      );
  }

  // Where the sessions would go, when that is nowhere or crowded.
  #shortage({ id, service, version }) {
    const others = this.#store
      .list()
      .filter((it) => it.id !== id && it.service === service && it.version === version);
    const able = others.filter(takesNew);
    if (able.length === 0)
      return {
        nobody: true,
        text: `No other instance of ${service}/${version} takes new sessions: its clients would get 503 no_instance.`,
      };
    return able.length === 1
      ? { text: `All of it would go to one instance, ${able[0].name}.` }
      : {};
  }

  async #patch(it, body, done) {
    try {
      this.#store.adopt(await send("PATCH", instancePath(it), body));
      say(`${it.name} ${done}.`);
      this.#store.look();
    } catch (problem) {
      say(`${it.name} is as it was: ${problem.message}`, "bad");
    }
  }

  // Whoever holds it is told why it is over.
  async endDrill() {
    const drill = this.#store.status?.drill;
    if (!drill) return;
    const answer = await confirmChange({
      title: ["End the drill ", element("bdi", { textContent: drill.name }), "?"],
      confirm: "End it",
      danger: true,
      sentences: [`${plural(drill.faults.length, "fault")} will be undone now.`],
    });
    if (!answer) return;
    try {
      await send("DELETE", "drill");
      say(`The drill ${drill.name} is over.`);
    } catch (problem) {
      say(`The drill was not ended: ${problem.message}`, "bad");
    }
    this.#store.look();
  }

  async reload() {
    const file = this.#store.status?.config.file ?? "the file";
    const answer = await confirmChange({
      title: ["Reload?"],
      confirm: "Reload",
      sentences: [
        `Reads ${file} again. If there is a problem in it nothing changes. What was changed here or by the API stays as it is.`,
      ],
    });
    if (!answer) return;
    try {
      const { generation, changes = [], warnings = [] } = await send("POST", "reload");
      await tellReload({
        title: `Generation ${count(generation)} is served`,
        lines: [...changes, ...warnings.map((warning) => `warning: ${warning.message ?? warning}`)],
        tone: "good",
      });
    } catch (problem) {
      const lines = problem.problems?.length > 0 ? problem.problems : [problem.message];
      await tellReload({ title: "The file was rejected, nothing has changed", lines, tone: "bad" });
    }
    this.#store.look();
  }
}
