/** Campaign: the matrix filling, the curve, the table, and the controls. */

import { api } from "../api.js";
import { DepthPlot, ScatterPlot, groupLegend } from "../charts/curve.js";
import { emulatedBadge, errorBox, pill, segments } from "../components.js";
import { h, replaceWhen, saveBlob, setText, show } from "../dom.js";
import { PERCENT, change, configurationName, count, percent, significant } from "../format.js";
import { holdButton } from "../hold.js";
import { icon } from "../icons.js";
import { CAMPAIGN_STATES, REQUESTS, VALIDITY, comparison, isOver } from "../states.js";
import { describe, paretoFront, summary } from "../verdict.js";
import { answersPanel } from "./answers.js";
import { firstUse } from "./first_use.js";
import { bestRepetition, matrixTable } from "./matrix.js";

const METRICS = {
  epi: {
    title: "EPI against the baseline of the same layout", value: (r) => (r.configuration.depth === 0 && r.epi !== null ? 1 : r.epi_ratio),
    low: (r) => r.epi_ratio_low, high: (r) => r.epi_ratio_high, format: changeTick, reference: 1,
  },
  energy: { title: "Energy per token in J", value: (r) => r.joules_per_token, format: (v) => String(Number(v.toPrecision(4))) },
  accuracy: { title: "Accuracy", value: (r) => r.accuracy_composite, format: (v) => `${Number((100 * v).toFixed(2))}${PERCENT}` },
};
const SHORT = { lower: "lower", higher: "higher", similar: "no difference", clock: "no interval" };
const VALIDITY_SHORT = { PASS: "valid", FLAG: "notes", FAIL: "not valid" };
const PANELS = [["epi", "EPI"], ["energy", "J/token"], ["accuracy", "Accuracy"], ["pareto", "Pareto"], ["answers", "Answers"], ["table", "Table"]];

/** Ticks lie on round percents. */
function changeTick(ratio) {
  const percents = Number((100 * (ratio - 1)).toFixed(2));
  return percents === 0 ? `0${PERCENT}` : `${percents < 0 ? "−" : "+"}${Math.abs(percents)}${PERCENT}`;
}

export function campaignView(model) {
  let panel = "epi";
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
  const badges = [emulatedBadge(), emulatedBadge()];
  const matrix = matrixTable(badges[0]);
  const holder = h("div", { cls: "chart chart--curve" });
  const table = h("div", { cls: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table of results" });
  const answers = h("div", { tabindex: "0", role: "region", "aria-label": "Answers" }, h("p", { cls: "muted", text: "Calculating." }));
  const verdict = h("h2", { cls: "verdict" });
  const choice = segments("Figure", PANELS, panel, (value) => {
    panel = value;
    updateResults();
  });
  const legend = groupLegend();
  const depth = new DepthPlot(holder, "Figures by experts dropped");
  const scatter = new ScatterPlot(holder, "Accuracy against energy");
  const main = h("div", { cls: "campaign" }, head, message,
    h("section", { cls: "card card--matrix", "aria-label": "Matrix" }, matrix),
    h("section", { cls: "card card--curve", "aria-label": "Results" },
      h("header", { cls: "card__head" }, h("div", { cls: "curve__text" }, verdict, h("div", { cls: "row" }, badges[1], legend)), choice), holder, answers, table));
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
    setText(sub, [campaign.spec.description, campaign.spec.model, campaign.spec.quantization, count(campaign.spec.repetitions, "repetition")].filter(Boolean).join(" · "));
    show(save, campaign.runs_done > 0);
    const asked = campaign.request !== "none";
    show(pause, campaign.state === "running" && !asked);
    show(resume, ["paused", "failed", "cancelled"].includes(campaign.state) || (campaign.state === "running" && campaign.request === "pause"));
    show(cancel, !isOver(campaign.state) && campaign.request !== "cancel");
    const list = model.campaigns ?? [];
    show(picker, list.length > 1);
    replaceWhen(picker, list.map((one) => one.id + one.state).join() + campaign.id, () =>
      list.map((one) => h("option", { value: one.id, selected: one.id === campaign.id, text: `${one.id} (${CAMPAIGN_STATES[one.state].word.toLowerCase()})` })));
    matrix.update(campaign, model.results);
    updateResults();
  }

  async function askAnalysis() {
    try {
      await model.loadAnalysis();
    } catch (error) {
      answers.dataset.key = "error";
      answers.replaceChildren(errorBox(error, askAnalysis));
      return;
    }
    const { analysis } = model;
    if (analysis) {
      replaceWhen(answers, JSON.stringify(analysis), () => answersPanel(analysis, model.campaign.emulated || model.results.some((r) => r.emulated)));
    } else if (!model.offersAnalysis) {
      replaceWhen(answers, "none", () => h("p", { cls: "empty", text: "This orchestrator does not offer hypotheses and operating points; the campaign's report holds them." }));
    }
  }

  function href(r) {
    return `#/run/${r.configuration.id}/${bestRepetition(model.campaign.runs.filter((run) => run.configuration === r.configuration.id))}`;
  }

  function updateResults() {
    if (!model.campaign) return;
    const emulated = model.campaign.emulated || model.results.some((r) => r.emulated);
    for (const badge of badges) show(badge, emulated);
    const results = model.results.filter((r) => r.epi !== null || r.joules_per_token !== null);
    setText(verdict, summary(model.campaign, results));
    const drawn = panel !== "table" && panel !== "answers";
    show(table, panel === "table");
    show(answers, panel === "answers");
    show(holder, drawn);
    show(legend, drawn);
    if (panel === "answers") {
      askAnalysis();
    } else if (panel === "table") {
      replaceWhen(table, JSON.stringify(model.results), () => resultTable(model.results, href));
    } else if (results.length === 0) {
      depth.draw(() => h("p", { cls: "empty", text: "The first point appears when the first run is done." }));
    } else if (panel === "pareto") {
      scatter.show(results, METRICS.energy, METRICS.accuracy, paretoFront(results), { href, describe });
    } else depth.show(results, METRICS[panel], { href, describe });
  }

  const stop = [model.on(["campaign", "campaigns"], update), model.on(["results"], () => update())];
  update();
  return {
    node,
    close() {
      for (const off of stop) off();
      depth.destroy();
      scatter.destroy();
    },
  };
}

function resultTable(results, href) {
  const head = ["Configuration", "EPI", "Against baseline", "Interval", "Verdict", "J/token", "tokens/s", "Accuracy", "Runs", "Validity"];
  return h("table", { cls: "table" }, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col", text })))), h("tbody", {}, results.map((r) => {
    const verdict = r.configuration.depth > 0 ? comparison(r) : null;
    const validity = VALIDITY[r.validity];
    return h("tr", {},
      h("td", {}, h("a", { href: href(r), text: configurationName(r.configuration) })),
      h("td", { text: significant(r.epi, 4) }),
      h("td", { text: r.configuration.depth > 0 ? change(r.epi_ratio) : "reference" }),
      h("td", { text: r.configuration.depth > 0 && typeof r.epi_ratio_low === "number" ? `${change(r.epi_ratio_low)} … ${change(r.epi_ratio_high)}` : "–" }),
      h("td", {}, verdict ? pill({ ...verdict, word: SHORT[verdict.icon] }) : r.reason ? h("span", { cls: "muted", text: r.reason }) : "–"),
      h("td", { text: significant(r.joules_per_token, 3) }),
      h("td", { text: significant(r.tokens_per_second, 4) }),
      h("td", { text: percent(r.accuracy_composite) }),
      h("td", { text: String(r.repetitions) }),
      h("td", {}, validity ? pill({ ...validity, word: VALIDITY_SHORT[r.validity] }) : "–"));
  })));
}
