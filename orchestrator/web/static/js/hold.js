/**
 * A button that acts only when it is held: nothing is cancelled by a brush of the sleeve. A short press says so.
 *
 * What ends a hold is the finger (lifted, or moved away from where it began), never the page: when something above
 * appears and the button slides from under the finger, the pointer stays captured and the hold goes on.
 */

import { h, setText } from "./dom.js";
import { icon } from "./icons.js";

const HOLD_MS = 1200; // as long as the fill in components.css takes
const REMINDER_MS = 2000;
const DRIFT_PX = 48; // a finger is never quite still; one that leaves by its own width wants out

const isPress = (event) => event.key === " " || event.key === "Enter";

/** `onConfirm()` is called once for each full hold by finger, mouse or key. */
export function holdButton(word, iconName, onConfirm) {
  const label = h("span", { text: word });
  const fill = h("span", { cls: "hold__fill" });
  const node = h(
    "button",
    { cls: "button button--danger hold", type: "button", "aria-description": "Press and hold for one second" },
    fill,
    icon(iconName),
    label,
  );
  let timer = null;
  let reminder = null;
  let from = null; // where the finger came down, in the window

  function begin() {
    if (timer !== null) return;
    clearTimeout(reminder);
    node.classList.add("hold--active");
    setText(label, "Keep holding");
    timer = setTimeout(() => {
      end(true);
      onConfirm();
    }, HOLD_MS);
  }

  function end(done = false) {
    from = null;
    if (timer === null) return;
    clearTimeout(timer);
    timer = null;
    node.classList.remove("hold--active");
    setText(label, done ? word : "Hold to confirm");
    if (!done) reminder = setTimeout(() => setText(label, word), REMINDER_MS);
  }

  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    node.setPointerCapture(event.pointerId);
    from = { x: event.clientX, y: event.clientY };
    begin();
  });
  node.addEventListener("pointermove", (event) => {
    if (from && Math.hypot(event.clientX - from.x, event.clientY - from.y) > DRIFT_PX) end();
  });
  for (const type of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) node.addEventListener(type, () => end());
  node.addEventListener("contextmenu", (event) => event.preventDefault());
  node.addEventListener("keydown", (event) => {
    if (!isPress(event)) return;
    event.preventDefault();
    if (!event.repeat) begin();
  });
  node.addEventListener("keyup", (event) => {
    if (isPress(event)) end();
  });
  return node;
}
