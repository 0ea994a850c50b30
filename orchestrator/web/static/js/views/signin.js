/** Asks for the token when nobody is signed in, or what the address brought was refused. */

import { command } from "../components.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";

export function signInView(model) {
  const input = h("input", {
    cls: "input", id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "token-hint",
  });
  const refusal = h("div", { role: "alert" });
  const button = h("button", { cls: "button button--primary", type: "submit" }, "Open the lab");
  const form = h(
    "form",
    {
      cls: "card signin",
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        const isIn = await model.signIn(input.value.trim());
        button.disabled = false;
        if (!isIn) tell();
      },
    },
    icon("key"),
    h("h1", { text: "Who is asking?" }),
    refusal,
    h("p", { cls: "muted", text: "This lab opens with its token. The browser does not keep it: a cookie stands for it until you sign out." }),
    h(
      "label",
      { cls: "field", for: "token" },
      h("span", { cls: "field__label", text: "Token" }),
      input,
      h("span", { cls: "field__hint", id: "token-hint", text: "`epi up` prints where it lies. A link that signs in by itself:" }),
    ),
    command("epi dashboard"),
    button,
  );

  function tell() {
    const { refused } = model.session;
    const text = h("div", { cls: "notice__text" }, h("strong", { text: refused }), h("span", { text: "A link opens it once, within an hour." }));
    refusal.replaceChildren(...(refused ? [h("div", { cls: "notice tone-bad" }, icon("bad"), text)] : []));
  }

  tell();
  return { node: h("div", { cls: "view view--centre" }, form), close() {}, opened: () => input.focus() };
}
