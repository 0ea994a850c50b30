/** Pieces that several views share: pills, badges, cards, empty states, errors. Hold-to-confirm: hold.js. */

import { h, setAttr, setText } from "./dom.js";
import { icon, setIcon } from "./icons.js";

/** A state as icon and word; `update` swaps both. */
export function pill({ word, icon: name, tone }) {
  const holder = h("span", { cls: "pill__icon" }, icon(name));
  const text = h("span", { text: word });
  const node = h("span", { cls: `pill tone-${tone}` }, holder, text);
  node.update = (state) => {
    setIcon(holder, state.icon);
    setText(text, state.word);
    setAttr(node, "class", `pill tone-${state.tone}`);
  };
  return node;
}

/** The permanent mark of power that no AC meter measured. */
export function emulatedBadge() {
  return h(
    "span",
    { cls: "badge badge--emulated", title: "The power was calculated by the meter emulator, not measured." },
    icon("flask"),
    "Emulated",
  );
}

/** A titled card; `aside` stands at the right of the title. */
export function card(title, { aside = null, cls = "", id = null } = {}, ...children) {
  return h(
    "section",
    { cls: `card ${cls}`.trim(), "aria-label": title, id },
    h("header", { cls: "card__head" }, h("h2", { text: title }), h("div", { cls: "card__aside" }, aside)),
    children,
  );
}

/** A number with what it is; `set(value, unit)`. */
export function figure(label, { unit = "", cls = "", note = "" } = {}) {
  const value = h("span", { cls: "figure__value", text: "–" });
  const unitNode = h("span", { cls: "figure__unit", text: unit });
  const noteNode = h("span", { cls: "figure__note", text: note });
  const node = h(
    "div",
    { cls: `figure ${cls}`.trim() },
    h("span", { cls: "figure__label", text: label }),
    h("span", { cls: "figure__line" }, value, unitNode),
    noteNode,
  );
  node.set = (text, newUnit = unit, newNote = note) => {
    setText(value, text);
    setText(unitNode, newUnit);
    setText(noteNode, newNote);
  };
  return node;
}

/** Nothing here yet: what that means and what to do. */
export function empty(name, title, ...children) {
  return h("div", { cls: "empty" }, icon(name), h("h2", { text: title }), h("div", { cls: "empty__text" }, children));
}

/** A command that can be typed as it stands. */
export const command = (text) => h("pre", { cls: "command", tabindex: "0" }, h("code", { text }));

/** An error of the API: what happened, to what, what to do. */
export function errorBox(error, retry = null) {
  return h(
    "div",
    { cls: "notice tone-bad", role: "alert" },
    icon("bad"),
    h(
      "div",
      { cls: "notice__text" },
      h("strong", { text: error.message }),
      error.where ? h("span", { cls: "notice__where", text: error.where }) : null,
      error.hint ? h("span", { text: error.hint }) : null,
    ),
    retry ? h("button", { cls: "button", onclick: retry, text: "Try again" }) : null,
  );
}

/** One of a few choices; `choices` is [[value, word, hint?]]. */
export function segments(label, choices, chosen, onChoose) {
  const buttons = choices.map(([value, word]) =>
    h("button", {
      cls: "segments__button",
      type: "button",
      "aria-pressed": String(value === chosen),
      "data-value": value,
      text: word,
      onclick: () => {
        node.choose(value);
        onChoose(value);
      },
    }),
  );
  const node = h("div", { cls: "segments", role: "group", "aria-label": label }, buttons);
  node.choose = (value) => {
    for (const button of buttons) setAttr(button, "aria-pressed", String(button.dataset.value === String(value)));
  };
  return node;
}
