/**
 * The measurement windows behind the live trace, newest last: guessed from the progress while a run goes on, exact once
 * its result is there.
 */

import { seconds } from "./format.js";

const LABELS = new Set(["idle", "marker", "prefill", "decode", "score"]);
const MOST = 96;

export class Windows {
  constructor() {
    this.list = []; // {label, run, start, end} in UTC seconds; `end` null while it goes on
  }

  clear() {
    this.list = [];
  }

  /** The window that goes on now, or null. */
  get open() {
    const last = this.list.at(-1);
    return last && last.end === null ? last : null;
  }

  /** Take a progress message that came at `now`; true when a window began or ended. */
  progressed(progress, now) {
    const label = progress.window_open && LABELS.has(progress.step) ? progress.step : null;
    const { open } = this;
    if (open ? open.label === label && open.run === progress.run : !label) return false;
    if (open) open.end = now;
    if (label) this.#add({ label, run: progress.run, start: now, end: null });
    return true;
  }

  /** A step begins with settling; its first call, which the journal tells, begins the window itself. */
  called(entry) {
    const { open } = this;
    if (!open || open.called || entry.kind !== "intent" || entry.step !== open.label || entry.run !== open.run) return false;
    open.called = true;
    open.start = seconds(entry.utc_ns);
    return true;
  }

  /** Put a run's windows as its result has them in the place of the guessed ones. */
  replace(run, windows) {
    this.list = this.list.filter((window) => window.run !== run);
    for (const { label, start_utc_ns: start, end_utc_ns: end } of windows) this.#add({ label, run, start: seconds(start), end: seconds(end) });
    this.list.sort((a, b) => a.start - b.start);
  }

  #add(window) {
    this.list.push(window);
    if (this.list.length > MOST) this.list.shift();
  }
}
