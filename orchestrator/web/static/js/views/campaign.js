/** Campaign: its controls, the matrix filling, and what the results say (campaign_results.js). */

import { api } from "../api.js";
import { emulatedBadge, errorBox, pill } from "../components.js";
import { h, replaceWhen, saveBlob, setText, show } from "../dom.js";
import { count } from "../format.js";
import { holdButton } from "../hold.js";
import { icon } from "../icons.js";
import { CAMPAIGN_STATES, REQUESTS, isOver } from "../states.js";
import { resultsCard } from "./campaign_results.js";
import { firstUse } from "./first_use.js";
import { matrixTable } from "./matrix.js";

export function campaignView(model) {
  let asking = Promise.resolve();
  const statePill = pill(CAMPAIGN_STATES.created);
  const title = h("h1", {});
  const sub = h("p", { cls: "muted" });
  const message = h("div", { cls: "campaign__message" });
  const picker = h("select", { cls: "input picker", "aria-label": "Campaign", onchange: () => model.choose(picker.value) });
  const pause = h("button", { cls: "button", type: "button", onclick: () => ask("pause") }, icon("pause"), "Pause");
  const resume = h("button", { cls: "button button--primary", type: "button", onclick: () => ask("resume") }, icon("play"), "Resume");
  const create = h("a", { cls: "button", href: "#/new" }, icon("plus"), "New");
  const save = h("button", { cls: "button", type: "button", onclick: exportAll, title: "Export all results as one archive" }, icon("down"), "Export");
  const cancel = holdButton("Hold to cancel", "stop", () => ask("cancel"));
  const head = h("header", { cls: "campaign__head" }, h("div", { cls: "campaign__title" }, h("div", { cls: "row" }, title, statePill), sub),
    h("div", { cls: "row" }, picker, save, create, pause, resume, cancel));
  const badge = emulatedBadge();
  const matrix = matrixTable(badge);
  const results = resultsCard(model);
  const main = h("div", { cls: "campaign" }, head, message,
    h("section", { cls: "card card--matrix", "aria-label": "Matrix" }, matrix),
    results.node);
  const start = h("section", { cls: "card card--start", "aria-label": "First use" }, firstUse());
  const node = h("div", { cls: "view" }, main, start);

  /** Requests go out one after another. No button is disabled meanwhile: that would take the focus and swallow a hold. */
  function ask(what) {
    asking = asking.then(async () => {
      message.replaceChildren();
      try {
        await model.ask(what);
      } catch (error) {
        message.replaceChildren(errorBox(error));
      }
    });
  }

  async function exportAll() {
    save.disabled = true;
    message.replaceChildren();
    try {
      saveBlob(await api.export(model.campaign.id), `${model.campaign.id}.tar.gz`);
    } catch (error) {
      message.replaceChildren(errorBox(error));
    }
    save.disabled = false;
  }

  function update() {
    const { campaign } = model;
    show(start, campaign === null && model.campaigns !== null);
    show(main, campaign !== null);
    if (!campaign) return;
    setText(title, campaign.id);
    statePill.update({ ...CAMPAIGN_STATES[campaign.state], word: REQUESTS[campaign.request] || CAMPAIGN_STATES[campaign.state].word });
    setText(sub, [campaign.spec.model, campaign.spec.quantization, count(campaign.spec.repetitions, "repetition"), campaign.spec.description].filter(Boolean).join(" · "));
    show(save, campaign.runs_done > 0);
    const asked = campaign.request !== "none";
    show(pause, campaign.state === "running" && !asked);
    show(resume, ["paused", "failed", "cancelled"].includes(campaign.state) || (campaign.state === "running" && campaign.request === "pause"));
    show(cancel, !isOver(campaign.state) && campaign.request !== "cancel");
    const list = model.campaigns ?? [];
    show(picker, list.length > 1);
    replaceWhen(picker, list.map((one) => one.id + one.state).join() + campaign.id, () =>
      list.map((one) => h("option", {
        value: one.id, selected: one.id === campaign.id, disabled: one.readable === false, title: one.reason,
        text: `${one.id} (${one.readable === false ? "cannot be read" : CAMPAIGN_STATES[one.state].word.toLowerCase()})`,
      })));
    show(badge, campaign.emulated || model.results.some((r) => r.emulated));
    matrix.update(campaign, model.results);
    results.update();
  }

  const stop = model.on(["campaign", "campaigns", "results"], update);
  update();
  return {
    node,
    close() {
      stop();
      results.close();
    },
  };
}
