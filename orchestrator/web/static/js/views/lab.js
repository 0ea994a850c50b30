/** Lab: what is wrong and what to do, every agent, the meter, this display. */

import { card, emulatedBadge, segments } from "../components.js";
import { h, replaceWhen, setText, show } from "../dom.js";
import { age, seconds } from "../format.js";
import { icon } from "../icons.js";
import { problems } from "../problems.js";
import { chooseTheme, themeChoice } from "../theme.js";
import { agentList } from "./lab_agents.js";
import { meterFacts } from "./lab_meter.js";
import { sessionRow } from "./session_row.js";

export function labView(model) {
  const head = h("div", { cls: "problems", role: "status" });
  const ageNote = h("span", { cls: "muted" });
  const badge = emulatedBadge();
  const agents = agentList();
  const meter = h("div", {});
  const meterCard = card("Meter", { aside: badge, cls: "card--meter" }, meter);
  const session = sessionRow(model);
  const display = card("This display", { cls: "card--display" },
    h("div", { cls: "row" }, segments("Theme", [["dark", "Dark"], ["light", "Light"], ["system", "As the system"]], themeChoice(), chooseTheme)), session);
  const node = h("div", { cls: "view lab" }, card("Health", { aside: ageNote, cls: "card--health" }, head), card("Machines", { cls: "card--machines" }, agents), h("div", { cls: "lab__side" }, meterCard, display));

  function update() {
    session.update();
    const found = problems(model);
    replaceWhen(head, JSON.stringify([model.lab === null, found.map(({ title, todo, tone }) => [title, todo, tone])]), () => {
      if (!model.lab) return [h("p", { cls: "muted", text: "Asking the lab." })];
      if (found.length === 0) return [h("div", { cls: "notice tone-good" }, icon("ok"), h("div", { cls: "notice__text" }, h("strong", { text: "Everything answers, nothing is wrong." })))];
      return found.map((one) => h("div", { cls: `notice tone-${one.tone}` }, icon(one.tone === "bad" ? "bad" : "warn"), h("div", { cls: "notice__text" }, h("strong", { text: one.title }), one.what ? h("span", { text: one.what }) : null, one.todo ? h("span", { cls: "muted", text: one.todo }) : null)));
    });
    const { lab } = model;
    if (!lab) return;
    setText(ageNote, `Asked ${age(Math.max(0, model.now() - seconds(lab.utc_ns)))} ago${lab.cached ? "; not again while a window is open" : ""}`);
    agents.update(lab.agents);
    show(badge, lab.emulated);
    replaceWhen(meter, JSON.stringify([lab.meter, Math.round(model.sampleAge())]), () => meterFacts(model));
  }

  const stop = model.on(["lab", "campaign", "connection", "tick"], update);
  update();
  model.refreshLab();
  return { node, close: stop };
}
