/** Temperature, governor and throttling of a node, quiet when all is well. */

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { throttling } from "../problems.js";

const HOT_C = 75; // the Pi 5 slows down at 80

/** Return the marks of `NodeFacts`; what the node cannot tell is left out. */
export function nodeMarks({ temperature_c: celsius, governor, throttled_bits: bits }) {
  const throttled = throttling(bits);
  const mark = (tone, name, text) => h("span", { cls: tone ? `badge badge--${tone}` : "quiet" }, icon(name), text);
  const found = [
    celsius === null ? null : mark(celsius >= HOT_C ? "warn" : "", "heat", `${celsius.toFixed(0)} °C`),
    governor === null ? null : governor === "performance" ? mark("", "bolt", governor) : mark("warn", "warn", governor),
    throttled === null ? null
      : throttled.now.length ? mark("bad", "bad", throttled.now[0])
      : throttled.before ? mark("warn", "flag", "throttled before") : mark("", "check", "full speed"),
  ].filter(Boolean);
  return found.length ? found : [h("span", { cls: "quiet", text: "temperature not readable here" })];
}
