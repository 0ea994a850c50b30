/**
 * The browser's session: signed in once with the token or a sign-in code, from then on a cookie that no script sees
 * stands for it. What scripts do have is the form token, which goes with every request that changes something.
 */

import { api, ApiError, setFormToken } from "./api.js";

export class Session {
  constructor() {
    this.untilUtcNs = null; // null: not signed in, or nobody needs to
    this.refused = ""; // why the last try to sign in failed
  }

  /** Sign in with what the address brought, if it brought something. */
  async begin() {
    const secret = globalThis.takeSecret();
    if (secret) await this.signIn(secret);
  }

  /** True when it opened the lab, else `refused` says why not. @param {string} secret the token or a sign-in code */
  async signIn(secret) {
    try {
      this.#told(await api.signIn(secret));
      this.refused = "";
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refused = error.status === 401 ? "That did not open the lab." : error.message;
    }
    return this.refused === "";
  }

  /** Ask what the cookie is worth; raises an ApiError, 401 where it is worth nothing. */
  async check() {
    this.#told(await api.session());
  }

  async signOut() {
    await api.signOut();
    this.#told({ form_token: "", until_utc_ns: null });
  }

  #told(answer) {
    setFormToken(answer.form_token);
    this.untilUtcNs = answer.until_utc_ns;
  }
}
