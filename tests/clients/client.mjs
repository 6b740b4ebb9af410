// One socket.io client: sends numbered messages, checks every acknowledgement, and records each
// error, disconnection and move to another instance.

import { io } from "socket.io-client";
import { BrowserCookies } from "./cookies.mjs";

// Without randomization the client's own waiting can be taken out of the time that it was away.
export const RECONNECTION_DELAY = 200;

export class Client {
  sequence = 0;
  acknowledged = 0;
  unacknowledged = new Map();
  resent = 0;
  pushes = 0;
  outOfOrder = 0;
  mismatched = 0;
  moves = 0;
  disconnects = 0;
  reconnects = 0;
  instances = [];
  errors = [];
  outages = [];

  #lostAt = null;
  #attempts = 0;
  #sinceReconnect = null;
  #sending = true;
  #ready = false;
  #connectionSequence = 0;
  #expectedPush = 1;

  constructor({ id, url, transports, interval, messages, forgetful, report, progress }) {
    this.id = id;
    this.messages = messages;
    this.report = report;
    this.progress = progress;
    this.cookies = new BrowserCookies();
    this.socket = io(url, {
      transports: forgetful ? transports : this.cookies.transports(transports),
      forceNew: true,
      withCredentials: !forgetful,
      reconnectionDelay: RECONNECTION_DELAY,
      reconnectionDelayMax: RECONNECTION_DELAY,
      randomizationFactor: 0,
      timeout: 5000,
    });
    this.socket.on("hello", (name) => this.#connected(name));
    this.socket.on("push", (number) => this.#pushed(number));
    this.socket.on("disconnect", (reason, details) => this.#disconnected(reason, details));
    this.socket.on("connect_error", (error) => this.#failed("connect", error));
    this.socket.io.on("reconnect_attempt", () => this.#attempts++);
    this.timer = setInterval(() => this.#send(), interval);
  }

  get errorCount() {
    return this.errors.length;
  }

  get cookieCount() {
    return this.cookies.names.size;
  }

  get settled() {
    const pushed = this.pushes >= this.acknowledged || this.disconnects > 0;
    return this.unacknowledged.size === 0 && pushed;
  }

  get transport() {
    return this.socket.io.engine?.transport?.name ?? "none";
  }

  stopSending() {
    this.#sending = false;
  }

  close() {
    clearInterval(this.timer);
    this.socket.removeAllListeners();
    this.socket.disconnect();
  }

  #connected(name) {
    const from = this.instances.at(-1);
    if (name !== from) {
      this.instances.push(name);
      if (from !== undefined) this.moves++;
    }
    this.#ready = true;
    this.#connectionSequence = 0;
    this.#expectedPush = 1;
    if (this.#lostAt === null) {
      this.report("connected", { client: this.id, instance: name });
    } else {
      this.#reconnected(from, name);
    }
    // An acknowledgement that the lost connection took with it leaves open whether the message
    // arrived, so the application says it again.
    for (const message of this.unacknowledged.values()) {
      this.resent++;
      this.#emit(message);
    }
  }

  #reconnected(from, to) {
    const away = Math.round(performance.now() - this.#lostAt);
    const outage = away - this.#attempts * RECONNECTION_DELAY;
    this.reconnects++;
    this.outages.push(outage);
    this.#lostAt = null;
    this.#sinceReconnect = 0;
    this.report("reconnected", { client: this.id, from, to, outage_ms: outage, away_ms: away });
  }

  #disconnected(reason, details) {
    this.disconnects++;
    this.#ready = false;
    if (this.#lostAt === null) {
      this.#lostAt = performance.now();
      this.#attempts = 0;
    }
    this.#failed(reason, details);
  }

  #failed(what, error) {
    // The body of a refused long-polling request says more than "xhr poll error".
    const { status, responseText } = error?.context ?? {};
    const refusal = responseText && `${status} ${responseText}`;
    const text = refusal || error?.description?.message || error?.message || error?.description;
    const message = `${what}: ${text ?? "no detail"}`;
    this.errors.push(message);
    this.report("error", { client: this.id, instance: this.instances.at(-1), message });
    this.progress();
  }

  #send() {
    const finished = this.messages > 0 && this.sequence >= this.messages;
    if (!this.#sending || finished || !this.#ready) return;
    const sequence = ++this.sequence;
    const message = { sequence, payload: `client ${this.id} says ${sequence}` };
    this.unacknowledged.set(sequence, message);
    this.#emit(message);
  }

  #emit(message) {
    this.socket.emit("echo", message, (answer) => this.#acknowledgement(message, answer));
  }

  #acknowledgement(message, answer) {
    const known = this.unacknowledged.delete(message.sequence);
    const same =
      answer.message.sequence === message.sequence && answer.message.payload === message.payload;
    if (!known || !same || answer.name !== this.instances.at(-1)) this.mismatched++;
    if (answer.previous !== this.#connectionSequence) this.outOfOrder++;
    this.#connectionSequence = message.sequence;
    this.acknowledged++;
    if (this.#sinceReconnect !== null && ++this.#sinceReconnect === 3) {
      this.report("resumed", { client: this.id, instance: answer.name });
      this.#sinceReconnect = null;
    }
    this.progress();
  }

  #pushed(number) {
    if (number !== this.#expectedPush) this.outOfOrder++;
    this.#expectedPush = number + 1;
    this.pushes++;
  }
}
