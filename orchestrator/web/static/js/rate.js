/**
 * Tokens a second and joules a token while a window runs: from the first message that counts tokens to the newest, and
 * the trace between them. A preview: the result's own figures come from the exact window, shifted by the meter's lag.
 */

export class Rate {
  /** `power` is the page's PowerMemory. */
  constructor(power) {
    this.power = power;
    this.clear();
  }

  clear() {
    this.first = null;
    this.last = null;
  }

  /** Take one progress message; the next window that counts begins anew, until then or another run the last one stays. */
  take(progress) {
    const { run, step, tokens } = progress;
    if (!tokens) {
      if (this.last && this.last.run !== run) this.clear();
      return;
    }
    if (this.first?.run !== run || this.first?.step !== step || tokens < this.last.tokens) this.first = progress;
    this.last = progress;
  }

  /** {step, tokens, total, perSecond, joulesPerToken}, unknown ones null; null before the first of a run. */
  now() {
    if (!this.last) return null;
    const { step, tokens, tokens_total: total } = this.last;
    const from = this.first.utc_ns / 1e9;
    const to = this.last.utc_ns / 1e9;
    const counted = tokens - this.first.tokens;
    if (counted <= 0 || to <= from) return { step, tokens, total, perSecond: null, joulesPerToken: null };
    const joules = this.power.energy(from, to);
    return { step, tokens, total, perSecond: counted / (to - from), joulesPerToken: joules > 0 ? joules / counted : null };
  }
}
