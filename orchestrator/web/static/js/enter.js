/**
 * Runs before anything else of the page: takes the token or the sign-in code out of the address (`#token=...`,
 * `#code=...`), so that no other script, no reload and no bookmark has it. Who signs in with it: session.js.
 */
"use strict";
(() => {
  let secret = "";
  const look = () => {
    const found = /[#&](?:token|code)=([^&]+)/.exec(location.hash);
    if (!found) return;
    secret = decodeURIComponent(found[1]);
    history.replaceState(null, "", location.pathname + location.search);
    dispatchEvent(new Event("epi-secret"));
  };
  globalThis.takeSecret = () => {
    const taken = secret;
    secret = "";
    return taken;
  };
  addEventListener("hashchange", look);
  look();
})();
