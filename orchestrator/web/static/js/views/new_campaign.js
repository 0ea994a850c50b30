/**
 * A new campaign by finger: which configurations, how often, how many questions. Everything else is taken from the
 * campaign in view, so that the two can be compared.
 */

import { errorBox } from "../components.js";
import { h, setAttr, setText } from "../dom.js";
import { count, duration, groupName } from "../format.js";
import { icon } from "../icons.js";

const DEPTHS = [1, 2, 3, 4, 5, 6, 7, 8];
const GROUPS = ["all", "early", "late"];
const MAX_REPETITIONS = 100;

export function newCampaignView(model) {
  const template = model.campaign?.spec;
  if (!template) {
    location.replace("#/campaign");
    return { node: h("div", { cls: "view" }), close() {} };
  }
  const chosen = new Set();
  const name = h("input", { cls: "input", id: "name", value: freshName(template.id, model.campaigns), pattern: "[a-z0-9][a-z0-9_.\\-]{0,63}", required: true, spellcheck: "false", autocomplete: "off" });
  const repetitions = stepper("Repetitions", template.repetitions, 1, MAX_REPETITIONS, 1, update);
  const asked = (template.tasks ?? template.accuracy).questions;
  const questions = asked === null ? null : stepper("Questions per task", asked, 5, 10_000, 5, update);
  const askedAs = (tasks) => ({ ...tasks, questions: questions ? questions.value() : null });
  const toggles = new Map();
  const estimate = h("p", { cls: "verdict" });
  const failure = h("div", {});
  const start = h("button", { cls: "button button--primary button--large", type: "submit" }, icon("play"), "Start");

  const form = h("form", { cls: "card create", onsubmit: submit },
    h("header", { cls: "card__head" }, h("h1", { text: "New campaign" }), h("a", { cls: "button button--plain", href: "#/campaign" }, icon("left"), "Back")),
    h("p", { cls: "muted", text: `Model, windows, tasks and rules as in ${template.id}. Baselines come along by themselves.` }),
    h("div", { cls: "create__fields" },
      h("label", { cls: "field", for: "name" }, h("span", { cls: "field__label", text: "Name" }), name), repetitions.node, questions?.node),
    h("fieldset", { cls: "choose" }, h("legend", { cls: "field__label", text: "Configurations" }),
      h("div", { cls: "row" },
        h("button", { cls: "button", type: "button", onclick: () => pick(() => true) }, "Everything"),
        GROUPS.map((group) => h("button", { cls: "button", type: "button", onclick: () => pick((_, other) => other === group) }, sentenceCase(groupName(group)))),
        h("button", { cls: "button", type: "button", onclick: () => pick(() => false) }, "None")),
      h("div", { cls: "choose__grid" }, GROUPS.map((group) => [
        h("span", { cls: "choose__group", text: groupName(group) }),
        DEPTHS.map((depth) => toggle(`drop${depth}_${group}`, depth, group)),
      ]))),
    failure,
    h("footer", { cls: "create__foot" }, estimate, start));

  function toggle(id, depth, group) {
    const mark = h("span", { cls: "choose__mark" }, icon("plus"));
    const node = h("button", { cls: "choose__cell", type: "button", "aria-pressed": "false", onclick: () => set(id, !chosen.has(id)) },
      mark, h("span", { "aria-hidden": "true", text: depth }), h("span", { cls: "visually-hidden", text: `Drop ${depth}, ${groupName(group)}` }));
    toggles.set(id, { node, mark, depth, group });
    return node;
  }

  function set(id, on) {
    if (on) chosen.add(id);
    else chosen.delete(id);
    const { node, mark } = toggles.get(id);
    setAttr(node, "aria-pressed", String(on));
    mark.replaceChildren(icon(on ? "check" : "plus"));
    update();
  }

  function pick(wanted) {
    for (const [id, { depth, group }] of toggles) set(id, wanted(depth, group));
  }

  function update() {
    const groups = new Set([...chosen].map((id) => toggles.get(id).group));
    const baselines = (groups.has("all") || groups.size === 0 ? 1 : 0) + (groups.has("early") || groups.has("late") ? 1 : 0);
    const runs = (chosen.size + baselines) * repetitions.value();
    const each = meanRunSeconds(model.campaign);
    const share = questions && asked ? questions.value() / asked : 1;
    const time = each === null ? "" : `, about ${duration(runs * each)}${share === 1 ? "" : " at the present number of questions"}`;
    setText(estimate, `${count(runs, "run")} with ${baselines === 1 ? "its baseline" : "both baselines"}${time}`);
  }

  async function submit(event) {
    event.preventDefault();
    failure.replaceChildren();
    start.disabled = true;
    const ids = [...toggles.keys()].filter((id) => chosen.has(id));
    const spec = {
      ...template,
      id: name.value.trim(),
      configurations: ids.length === toggles.size ? "all" : ["baseline", ...ids].join(","),
      repetitions: repetitions.value(),
      ...(template.tasks ? { tasks: askedAs(template.tasks) } : { accuracy: askedAs(template.accuracy) }),
    };
    try {
      await model.create(spec);
      location.hash = "#/now";
    } catch (error) {
      failure.replaceChildren(errorBox(error));
      start.disabled = false;
    }
  }

  update();
  return { node: h("div", { cls: "view" }, form), close() {} };
}

/** A number with − and +, both big enough for a finger. */
function stepper(word, initial, low, high, step, onChange) {
  const input = h("input", { cls: "input stepper__input", type: "number", inputmode: "numeric", min: low, max: high, value: initial, "aria-label": word, oninput: onChange });
  const move = (by) => {
    input.value = Math.max(low, Math.min(high, Math.round((Number(input.value) + by) / step) * step || low));
    onChange();
  };
  const button = (text, by, label) => h("button", { cls: "button", type: "button", "aria-label": label, onclick: () => move(by) }, text);
  const node = h("div", { cls: "field" }, h("span", { cls: "field__label", text: word }),
    h("div", { cls: "stepper" }, button("−", -step, `Fewer: ${word}`), input, button("+", step, `More: ${word}`)));
  return { node, value: () => Math.max(low, Math.min(high, Math.floor(Number(input.value)) || low)) };
}

const sentenceCase = (text) => text[0].toUpperCase() + text.slice(1);

/** "demo-2" -> "demo-3": the next free name. */
function freshName(id, campaigns) {
  const taken = new Set((campaigns ?? []).map((one) => one.id));
  const stem = id.replace(/-\d{1,3}$/, "").slice(0, 58);
  let n = 2;
  while (taken.has(`${stem}-${n}`)) n += 1;
  return `${stem}-${n}`;
}

/** Mean seconds of the campaign's finished attempts, or null. */
function meanRunSeconds(campaign) {
  const done = campaign.runs.flatMap((run) => run.attempts).filter((one) => one.outcome === "done" && one.ended_utc_ns);
  if (done.length === 0) return null;
  return done.reduce((sum, one) => sum + (one.ended_utc_ns - one.started_utc_ns) / 1e9, 0) / done.length;
}
