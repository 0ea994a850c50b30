/** Asks for the token when there is none or it was refused. */

import { command } from "../components.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";

export function signInView(model) {
  const input = h("input", {
    cls: "input", id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "token-hint",
  });
  const form = h(
    "form",
    {
      cls: "card signin",
      onsubmit: (event) => {
        event.preventDefault();
        model.signIn(input.value.trim());
      },
    },
    icon("key"),
    h("h1", { text: "Who is asking?" }),
    h("p", { cls: "muted", text: "This lab opens with its token. It stays in this tab only." }),
    h(
      "label",
      { cls: "field", for: "token" },
      h("span", { cls: "field__label", text: "Token" }),
      input,
      h("span", { cls: "field__hint", id: "token-hint", text: "It is part of the address that `epi up` and `make demo` print:" }),
    ),
    command("http://127.0.0.1:PORT/#token=…"),
    h("button", { cls: "button button--primary", type: "submit" }, "Open the lab"),
  );
  return { node: h("div", { cls: "view view--centre" }, form), close() {}, opened: () => input.focus() };
}
