/** Campaign: what the results say: one sentence, then a figure, the answers, the validity or the table, as chosen. */

import { DepthPlot, ScatterPlot, groupLegend } from "../charts/curve.js";
import { saveFigure } from "../charts/save_svg.js";
import { emulatedBadge, errorBox, segments } from "../components.js";
import { h, replaceWhen, setAttr, setText, show } from "../dom.js";
import { PERCENT, significant } from "../format.js";
import { icon } from "../icons.js";
import { describe, paretoFront, summary } from "../verdict.js";
import { answersPanel } from "./answers.js";
import { bestRepetition } from "./matrix.js";
import { resultTable } from "./result_table.js";
import { validityPanel } from "./validity.js";

const METRICS = {
  epi: {
    title: "EPI against the baseline of the same layout", value: (r) => (r.configuration.depth === 0 && r.epi !== null ? 1 : r.epi_ratio),
    low: (r) => r.epi_ratio_low, high: (r) => r.epi_ratio_high, format: changeTick, reference: 1,
  },
  energy: { title: "Energy per token in J", value: (r) => r.joules_per_token, format: (v) => significant(v, 3) },
  accuracy: { title: "Accuracy", value: (r) => r.accuracy_composite, format: (v) => `${Number((100 * v).toFixed(2))}${PERCENT}` },
};
const PANELS = [["epi", "EPI"], ["energy", "J/token"], ["accuracy", "Accuracy"], ["pareto", "Pareto"], ["answers", "Answers"], ["validity", "Validity"], ["table", "Table"]];
const DRAWN = new Set(["epi", "energy", "accuracy", "pareto"]);

/** Ticks lie on round percents. */
function changeTick(ratio) {
  const percents = Number((100 * (ratio - 1)).toFixed(2));
  return percents === 0 ? `0${PERCENT}` : `${percents < 0 ? "−" : "+"}${Math.abs(percents)}${PERCENT}`;
}

export function resultsCard(model) {
  let panel = "epi";
  const badge = emulatedBadge();
  const verdict = h("h2", { cls: "verdict" });
  const legend = groupLegend();
  const save = h("button", { cls: "button button--plain figures__save", type: "button", "aria-label": "Save figure", title: "Save figure", onclick: download }, icon("image"));
  const choice = segments("Figure", PANELS, panel, (value) => {
    panel = value;
    update();
  });
  const holder = h("div", { cls: "chart chart--curve" });
  const beside = [h("div", { cls: "chart" }), h("div", { cls: "chart" })];
  const figures = h("div", { cls: "figures" }, h("div", { cls: "figures__main" }, holder, save), h("div", { cls: "figures__beside" }, beside));
  const region = (label) => h("div", { tabindex: "0", role: "region", "aria-label": label });
  const answers = region("Answers");
  const validity = region("Validity");
  const table = h("div", { cls: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table of results" });
  const depth = new DepthPlot(holder, "Figures by experts dropped");
  const scatter = new ScatterPlot(holder, "Accuracy against energy");
  const energy = new DepthPlot(beside[0], "Energy per token by experts dropped");
  const accuracy = new DepthPlot(beside[1], "Accuracy by experts dropped");
  const node = h("section", { cls: "card card--curve", "aria-label": "Results" },
    h("header", { cls: "card__head" }, h("div", { cls: "curve__text" }, verdict, h("div", { cls: "row" }, badge, legend)), choice),
    figures, answers, validity, table);

  const href = (r) => `#/run/${r.configuration.id}/${bestRepetition(model.campaign.runs.filter((run) => run.configuration === r.configuration.id))}`;
  const emulated = () => model.campaign.emulated || model.results.some((r) => r.emulated);

  function download() {
    const title = `${model.campaign.id}: ${PANELS.find(([name]) => name === panel)[1]}`;
    saveFigure(holder.querySelector("svg"), { title, emulated: emulated(), name: `${model.campaign.id}_${panel}.svg` });
  }

  /** Answers and validity come from the analysis, which the orchestrator makes only when somebody looks. */
  async function fillFromAnalysis(place, make) {
    if (!place.firstChild) place.append(h("p", { cls: "muted", text: "Calculating." }));
    try {
      await model.loadAnalysis();
    } catch (error) {
      place.dataset.key = "error";
      place.replaceChildren(errorBox(error, update));
      return;
    }
    const { analysis } = model;
    if (analysis) replaceWhen(place, JSON.stringify([analysis, model.results]), () => make(analysis));
    else if (!model.offersAnalysis) {
      replaceWhen(place, "none", () => h("p", { cls: "empty", text: "This orchestrator does not offer hypotheses and operating points; the campaign's report holds them." }));
    }
  }

  function draw() {
    const results = model.results.filter((r) => r.epi !== null || r.joules_per_token !== null);
    const names = { href, describe };
    setAttr(figures, "class", panel === "epi" ? "figures figures--three" : "figures");
    show(save, results.length > 0);
    if (results.length === 0) depth.draw(() => h("p", { cls: "empty", text: "The first point appears when the first run is done." }));
    else if (panel === "pareto") scatter.show(results, METRICS.energy, METRICS.accuracy, paretoFront(results), names);
    else depth.show(results, METRICS[panel], names);
    if (panel !== "epi" || results.length === 0) return;
    energy.show(results, METRICS.energy, names);
    accuracy.show(results, METRICS.accuracy, names);
  }

  function update() {
    const drawn = DRAWN.has(panel);
    show(badge, emulated());
    setText(verdict, summary(model.campaign, model.results.filter((r) => r.epi !== null || r.joules_per_token !== null)));
    for (const [place, name] of [[answers, "answers"], [validity, "validity"], [table, "table"]]) show(place, panel === name);
    for (const one of [figures, legend]) show(one, drawn);
    if (drawn) draw();
    else if (panel === "answers") fillFromAnalysis(answers, (analysis) => answersPanel(analysis, emulated()));
    else if (panel === "validity") fillFromAnalysis(validity, (analysis) => validityPanel(analysis.validity, model.results, href));
    else replaceWhen(table, JSON.stringify(model.results), () => resultTable(model.results, href));
  }

  return {
    node,
    update,
    close() {
      for (const plot of [depth, scatter, energy, accuracy]) plot.destroy();
    },
  };
}
