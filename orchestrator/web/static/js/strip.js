/** The status strip above every view: what runs, when it ends, whether the lab is healthy. */

import { emulatedBadge, pill } from "./components.js";
import { h, setAttr, setText, show } from "./dom.js";
import { age, clock, configurationName, count, duration, stepName } from "./format.js";
import { icon, setIcon } from "./icons.js";
import { problems } from "./problems.js";
import { formatRun } from "./run_reference.js";
import { CAMPAIGN_STATES, CONNECTION, REQUESTS } from "./states.js";

function item(cls, href, label) {
  const holder = h("span", { cls: "strip__icon" }, icon("clock"));
  const main = h("span", { cls: "strip__main" });
  const sub = h("span", { cls: "strip__sub" });
  const node = h("a", { cls: `strip__item ${cls}`, href }, holder, h("span", { cls: "strip__text" }, h("span", { cls: "visually-hidden", text: `${label}: ` }), main, " ", sub));
  node.set = (iconName, tone, mainText, subText) => {
    setIcon(holder, iconName);
    setAttr(holder, "class", `strip__icon ink tone-${tone}`);
    setText(main, mainText);
    setText(sub, subText);
  };
  return node;
}

/** The run that is going on, as the campaign lists it, or null between runs. */
export function currentRun(model) {
  const { campaign, progress } = model;
  if (campaign?.state !== "running") return null;
  const live = progress ? campaign.runs.find((run) => formatRun(run) === progress.run) : null;
  return live ?? campaign.runs.find((run) => run.state === "running") ?? null;
}

/** What is being done now: {step, fraction, message}. */
export function currentStep(model) {
  const { campaign, progress } = model;
  if (!campaign) return { step: "", fraction: 0, message: "" };
  // The status writes "drop3_late/rep-2: decode"; the live feed has the parts.
  return progress ?? { step: campaign.step.split(": ").at(-1), fraction: campaign.progress, message: campaign.message };
}

export function configurationOf(model, id) {
  return model.campaign?.configurations.find((one) => one.id === id) ?? null;
}

/** "Drop 3, late layers · 2 of 3" */
export function runTitle(model, run) {
  const name = configurationName(configurationOf(model, run.configuration)) || run.configuration;
  const total = model.campaign.spec.repetitions;
  // "2 of 3" stays together where the title wraps.
  return total > 1 ? `${name} · ${run.repetition}\u00a0of\u00a0${total}` : name;
}

function setRun(node, model) {
  const { campaign } = model;
  if (!campaign && model.campaigns === null) {
    node.set("clock", "calm", "Asking", "What runs is not known yet");
    return;
  }
  if (!campaign) {
    node.set("pending", "calm", "No campaign", "Nothing is running");
    return;
  }
  const state = CAMPAIGN_STATES[campaign.state];
  const run = currentRun(model);
  if (campaign.state === "running") {
    const { step, message } = currentStep(model);
    const asked = REQUESTS[campaign.request];
    node.set(state.icon, state.tone, run ? runTitle(model, run) : stepName(step) || state.word, asked || (run ? stepName(step) : message) || state.word);
  } else {
    node.set(state.icon, state.tone, state.word, campaign.reason || campaign.id);
  }
}

const NO_END = {
  created: "Waiting to start",
  running: "End not known yet",
  paused: "Resume goes on from here",
  finished: "Nothing left to run",
  failed: "Resume goes on from here",
  cancelled: "Ended before its end",
};

function setEnd(node, model) {
  const { campaign } = model;
  if (!campaign) {
    node.set("clock", "calm", "–", model.campaigns === null ? "" : "No end to wait for");
    return;
  }
  const done = `${campaign.runs_done} of ${count(campaign.runs_total, "run")}`;
  const eta = model.progress?.eta_s ?? campaign.eta_s;
  if (campaign.state === "running" && typeof eta === "number") {
    node.set("flag", "calm", `Ends ${clock(model.now() + eta)}`, `in ${duration(eta)} · ${done}`);
  } else node.set("flag", "calm", done, NO_END[campaign.state]);
}

function setHealth(node, model) {
  if (!model.lab) {
    node.set("clock", "calm", "Asking the lab", "");
    return;
  }
  const found = problems(model);
  const bad = found.filter((one) => one.tone === "bad").length;
  const sample = Number.isFinite(model.sampleAge()) ? `Last sample ${age(model.sampleAge())} ago` : "No sample yet";
  if (found.length === 0) node.set("ok", "good", "Healthy", sample);
  else if (bad === 0) node.set("warn", "warn", count(found.length, "note"), found[0].title);
  else node.set("bad", "bad", count(found.length, "problem"), found[0].title);
}

/** Build the strip; it keeps itself up to date. */
export function statusStrip(model) {
  const run = item("strip__item--run", "#/now", "Running");
  const end = item("", "#/campaign", "End");
  const health = item("", "#/lab", "Health");
  const badge = emulatedBadge();
  const connection = pill(CONNECTION.connecting);
  const node = h("header", { cls: "strip" }, run, end, health, h("div", { cls: "strip__badges", "aria-live": "polite" }, badge, connection));
  const update = () => {
    setRun(run, model);
    setEnd(end, model);
    setHealth(health, model);
    show(badge, model.emulated);
    connection.update(CONNECTION[model.connection]);
  };
  model.on(["campaign", "campaigns", "progress", "lab", "connection", "tick"], update);
  update();
  return node;
}
