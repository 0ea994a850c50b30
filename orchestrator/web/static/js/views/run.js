/** Run: one run in full: figures, trace, energy, tokens, questions, validity, provenance, attempts, downloads. */

import { api } from "../api.js";
import { emulatedBadge, empty, errorBox, figure, pill } from "../components.js";
import { h, replaceWhen, setText, show } from "../dom.js";
import { configurationName, percent, significant } from "../format.js";
import { icon } from "../icons.js";
import { RUN_STATES, VALIDITY } from "../states.js";
import { configurationOf, currentRun } from "../strip.js";
import { firstUse } from "./first_use.js";
import { attemptsCard, downloadsCard, energyCard, othersCard, provenanceCard, tokensCard, validityCard } from "./run_cards.js";
import { questionsCard } from "./run_questions.js";
import { traceCard } from "./run_trace.js";

/** `rest` of the address: [configuration, repetition]; without it the last that is done, else the one that goes on. */
export function runView(model, rest) {
  let wanted = rest.length >= 2 ? { configuration: rest[0], repetition: Number(rest[1]) } : null;
  let shown = "";
  let trace = null;
  let closed = false;

  const title = h("h1", {});
  const sub = h("p", { cls: "muted" });
  const statePill = pill(RUN_STATES.pending);
  const badge = emulatedBadge();
  const back = h("a", { cls: "button button--plain", href: "#/campaign", "aria-label": "Back to the campaign" }, icon("left"), "Campaign");
  const picker = h("select", { cls: "input picker", "aria-label": "Run", onchange: () => { location.hash = `#/run/${picker.value}`; } });
  const figures = [figure("EPI"), figure("Energy per token"), figure("Decode speed"), figure("Accuracy"), figure("Cluster, mean"), figure("Cluster, peak")];
  const figureCard = h("section", { cls: "card card--figures run__figures", "aria-label": "Figures", hidden: true }, figures);
  const body = h("div", { cls: "run__body" });
  const node = h("div", { cls: "view run" },
    h("header", { cls: "run__head" }, back, h("div", { cls: "run__title" }, h("div", { cls: "row" }, title, statePill, badge), sub), picker),
    figureCard, body);

  function choose() {
    if (wanted) return wanted;
    const { campaign } = model;
    if (!campaign) return null;
    const done = campaign.runs.filter((run) => run.state === "done");
    done.sort((a, b) => (a.attempts.at(-1)?.ended_utc_ns ?? 0) - (b.attempts.at(-1)?.ended_utc_ns ?? 0));
    return done.at(-1) ?? currentRun(model) ?? campaign.runs[0] ?? null;
  }

  async function update() {
    const { campaign } = model;
    if (!campaign) {
      if (model.campaigns !== null) replaceWhen(body, "none", () => h("section", { cls: "card" }, firstUse()));
      for (const one of node.children) show(one, one === body);
      return;
    }
    show(node.firstElementChild, true);
    const run = choose();
    wanted ??= run && { configuration: run.configuration, repetition: run.repetition };
    const status = run && campaign.runs.find((one) => one.configuration === run.configuration && one.repetition === run.repetition);
    if (!status) {
      setText(title, wanted ? `${wanted.configuration}, repetition ${wanted.repetition}` : "No run");
      replaceWhen(body, "missing", () => empty("run", "No such run", h("p", { text: `The campaign ${campaign.id} does not have it.` })));
      return;
    }
    const configuration = configurationOf(model, status.configuration);
    setText(title, configurationName(configuration));
    setText(sub, `${status.configuration} · repetition ${status.repetition} of ${campaign.spec.repetitions} · ${configuration.layout} layout · ${configuration.quantization}`);
    statePill.update(RUN_STATES[status.state]);
    const here = `${status.configuration}/${status.repetition}`;
    replaceWhen(picker, campaign.runs.map((one) => one.state).join() + here, () => campaign.runs.map((one) => {
      const value = `${one.configuration}/${one.repetition}`;
      return h("option", { value, selected: value === here, text: `${configurationName(configurationOf(model, one.configuration))} · ${one.repetition} (${RUN_STATES[one.state].word.toLowerCase()})` });
    }));
    const key = JSON.stringify([campaign.id, status]);
    if (key === shown) return;
    shown = key;
    try {
      const detail = await api.run(campaign.id, status.configuration, status.repetition);
      if (!closed && key === shown) fill(campaign, detail);
    } catch (error) {
      shown = "";
      if (!closed) body.replaceChildren(errorBox(error, update));
    }
  }

  function fill(campaign, detail) {
    const { epi, status } = detail;
    const from = (value, unit, note) => [value, value === "–" ? "" : unit, note];
    const basis = epi ? epi.token_basis.replaceAll("_", " ") : "";
    const tokens = epi?.energy.total_tokens;
    const speed = tokens && epi.energy.duration_seconds ? tokens / epi.energy.duration_seconds : null;
    const n = Object.values(epi?.evaluation.accuracy.n_questions ?? {}).reduce((a, b) => a + b, 0);
    figures[0].set(...from(significant(epi?.epi.value, 4), "J", epi ? epi.no_epi_reason || "per token and accuracy" : ""));
    figures[1].set(...from(significant(epi?.epi.joules_per_token, 4), "J", basis));
    figures[2].set(...from(significant(speed, 4), "tokens/s", tokens ? `${tokens} tokens` : ""));
    figures[3].set(...from(percent(epi?.accuracy.composite), "", n ? `${n} questions` : ""));
    figures[4].set(...from(significant(epi?.energy.avg_watts_cluster, 4), "W", epi ? "decode" : ""));
    figures[5].set(...from(significant(epi?.energy.peak_watts_cluster, 4), "W", epi ? "decode" : ""));
    const judged = epi ? detail.validity ?? epi.evaluation.validity : null;
    const validity = judged ? VALIDITY[judged.verdict] : null;
    statePill.update(validity && status.state === "done" ? validity : RUN_STATES[status.state]);
    show(badge, epi?.emulated ?? model.emulated);
    trace?.close();
    trace = null;
    show(figureCard, epi !== null);
    const attempts = attemptsCard(status);
    if (!epi) {
      body.replaceChildren(waiting(status), attempts);
      return;
    }
    const where = { campaign: campaign.id, configuration: status.configuration, repetition: status.repetition };
    trace = traceCard(where, epi, detail.windows.filter((window) => window.label === "marker"));
    body.replaceChildren(
      trace.node,
      energyCard(epi),
      ...[othersCard(detail)].filter(Boolean),
      h("div", { cls: "run__columns" }, tokensCard(epi), validityCard(epi, judged), attempts),
      questionsCard(where, epi),
      h("div", { cls: "run__columns" }, provenanceCard(epi), downloadsCard(where, detail.files)),
    );
  }

  function waiting(status) {
    const texts = {
      pending: ["clock", "This run has not started", "Its trace and figures appear here when it is done."],
      running: ["running", "This run is being measured", "The page asks the nodes nothing meanwhile. The live trace is in Now."],
      failed: ["bad", "This run failed", status.attempts.at(-1)?.reason || "The attempts below say why."],
    };
    const [name, head, text] = texts[status.state] ?? texts.pending;
    return h("section", { cls: "card" }, empty(name, head, h("p", { text }),
      status.state === "running" ? h("div", { cls: "row row--centre" }, h("a", { cls: "button", href: "#/now", text: "Show the live trace" })) : null));
  }

  const stop = model.on(["campaign", "campaigns"], update);
  show(badge, model.emulated);
  update();
  return {
    node,
    close() {
      closed = true;
      stop();
      trace?.close();
    },
  };
}
