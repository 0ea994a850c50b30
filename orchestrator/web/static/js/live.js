/**
 * The live feed: one WebSocket, reconnecting with back-off and going on after the last journal entry it saw. Not here:
 * what the messages mean (model.js).
 */

import { api, ApiError } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const SILENCE_MS = 12_000; // then the server is asked over REST whether it is still there

export class LiveFeed {
  /** `on`: message(object), state("connecting" | "live" | "lost"), open(), unauthorized(); `session` opens it. */
  constructor(session, on) {
    this.session = session;
    this.on = on;
    this.lastSeq = null;
    this.wait = FIRST_WAIT_MS;
    this.heard = 0;
    this.socket = null;
    this.timer = null;
    this.stopped = true;
  }

  start() {
    if (!this.stopped) return;
    this.stopped = false;
    this.watch = setInterval(() => this.#checkSilence(), 4000);
    this.#connect();
  }

  stop() {
    this.stopped = true;
    clearInterval(this.watch);
    clearTimeout(this.timer);
    this.socket?.close();
    this.socket = null;
  }

  async #connect() {
    if (this.stopped) return;
    this.on.state("connecting");
    try {
      await this.session.check(); // a WebSocket that is refused does not say why
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.stop();
        this.on.unauthorized();
      } else this.#retry();
      return;
    }
    if (this.stopped) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const since = this.lastSeq === null ? "" : `?since=${this.lastSeq}`;
    const socket = new WebSocket(`${scheme}://${location.host}/v1/live${since}`);
    this.socket = socket;
    socket.onopen = () => {
      this.wait = FIRST_WAIT_MS;
      this.heard = performance.now();
      this.on.state("live");
      this.on.open();
    };
    socket.onmessage = (event) => {
      this.heard = performance.now();
      const message = JSON.parse(event.data);
      if (message.type === "entry") this.lastSeq = Math.max(this.lastSeq ?? 0, message.entry.seq);
      this.on.message(message);
    };
    socket.onclose = () => {
      if (this.socket === socket) {
        this.socket = null;
        this.#retry();
      }
    };
  }

  #retry() {
    if (this.stopped) return;
    this.on.state("lost");
    clearTimeout(this.timer);
    // Half of the wait is random: after a restart not all displays come back in the same instant.
    this.timer = setTimeout(() => this.#connect(), this.wait * (0.5 + Math.random() / 2));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS);
  }

  /** A cable that was pulled closes no socket. Without a meter silence is normal, so ask before giving up. */
  async #checkSilence() {
    const socket = this.socket;
    if (!socket || socket.readyState !== WebSocket.OPEN || performance.now() - this.heard < SILENCE_MS) return;
    this.heard = performance.now();
    try {
      await api.health();
    } catch {
      if (this.socket !== socket) return;
      this.socket = null;
      socket.onclose = null;
      socket.close();
      this.#retry();
    }
  }
}
