/** How long this browser stays signed in, and signing it out: held, since a display on a wall has no keyboard. */

import { errorBox } from "../components.js";
import { h, setText, show } from "../dom.js";
import { duration, seconds } from "../format.js";
import { holdButton } from "../hold.js";

/** `update()` follows the session. */
export function sessionRow(model) {
  const note = h("p", { cls: "muted" });
  const problem = h("div", {});
  const leave = () => model.signOut().catch((error) => problem.replaceChildren(errorBox(error)));
  const node = h("div", { cls: "session" }, note, holdButton("Sign out", "key", leave), problem);
  node.update = () => {
    const { untilUtcNs } = model.session;
    show(node, untilUtcNs !== null);
    if (untilUtcNs !== null) setText(note, `Signed in; ends ${duration(seconds(untilUtcNs) - model.now())} from now if it is not used.`);
  };
  node.update();
  return node;
}
