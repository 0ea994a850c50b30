/** The cards of a run's result file: energy, tokens, validity, provenance, attempts, downloads. */

import { api } from "../api.js";
import { card, errorBox, pill } from "../components.js";
import { h, saveBlob } from "../dom.js";
import { age, clock, joules, percent, seconds, significant, stepName, watts, windowName } from "../format.js";
import { icon } from "../icons.js";
import { OUTCOMES, VALIDITY } from "../states.js";
import { findingsList } from "./validity.js";

const table = (label, head, rows) =>
  h("div", { cls: "table-scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", { cls: "table" }, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col", text })))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));

/** Pairs of name and value. */
export const facts = (pairs) =>
  h("dl", { cls: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) =>
    h("div", { cls: "facts__row" }, h("dt", { text: name }), h("dd", {}, value))));

export function energyCard({ evaluation }) {
  const { lag, windows } = evaluation;
  const nodes = [...new Set(windows.flatMap((window) => Object.keys(window.nodes)))].sort();
  const rows = windows.map((window) => [
    windowName(window.label),
    age(window.duration_seconds),
    window.total_joules === null ? window.reason : joules(window.total_joules),
    joules(window.net_joules),
    watts(window.avg_watts),
    ...nodes.map((node) => joules(window.nodes[node]?.total_joules)),
  ]);
  return card("Energy per window and node", {},
    table("Energy per window and node", ["Window", "Length", "Cluster", "Over idle", "Mean W", ...nodes], rows),
    h("p", { cls: "muted card__foot", text: lag.accepted
      ? `Windows shifted by the meter's lag of ${significant(1000 * lag.lag_s, 3)} ± ${significant(1000 * lag.uncertainty_s, 2)} ms.`
      : `Windows not shifted: ${lag.reason || "no lag was found"}.` }));
}

/** What programs other than engine and agent did on the nodes, and how far the clocks moved; null for earlier versions. */
export function othersCard({ other_load: loads, clocks }) {
  if (loads.length === 0) return null;
  const nodes = [...new Set(loads.flatMap((window) => Object.keys(window.nodes)))].sort();
  const cell = (load) => (load ? h("span", { title: load.programs.map(([name, share]) => `${name}: ${share.toFixed(2)}`).join("\n"), text: load.cpu_share.toFixed(2) }) : "–");
  const rows = loads.map((window) => {
    const steal = Math.max(...Object.values(window.nodes).map((load) => load.steal_share ?? 0));
    const busiest = Object.values(window.nodes).flatMap((load) => load.programs).sort((a, b) => b[1] - a[1])[0];
    return [windowName(window.label), ...nodes.map((node) => cell(window.nodes[node])), percent(steal, 1), busiest ? `${busiest[0]} ${busiest[1].toFixed(2)}` : "–"];
  });
  const moved = Object.entries(clocks).map(([node, { before, after }]) => `${node} ${significant((after.offset_ns - before.offset_ns) / 1e6, 2)} ms`);
  return card("Other programs", {},
    table("Other programs", ["Window", ...nodes.map((node) => `${node}, cores`), "Host took", "Busiest"], rows),
    h("p", { cls: "muted card__foot", text: `CPU time that neither engine nor agent used, from the gap before each window to its end. Clocks moved: ${moved.join(", ")}.` }));
}

export function tokensCard({ evaluation }) {
  const rows = Object.entries(evaluation.phases).map(([label, phase]) => {
    const { generated, prompt, cached, scored } = phase.ledger;
    return [windowName(label), generated, prompt, cached, scored].map(String);
  });
  const bases = Object.entries(evaluation.epi_by_basis).map(([basis, value]) => [`EPI, ${basis.replaceAll("_", " ")}`, value.value === null ? value.reason : significant(value.value, 4)]);
  return card("Tokens", {}, table("Token ledgers", ["Window", "Generated", "Prompt", "Cached", "Scored"], rows),
    facts([...bases, ["J per question", significant(evaluation.joules_per_question, 4)], ["J per correct answer", significant(evaluation.joules_per_correct, 4)], ["J per token over idle", significant(evaluation.net_joules_per_token, 4)]]));
}

export function validityCard({ evaluation }, validity) {
  const { uncertainty } = evaluation;
  const { verdict, findings } = validity;
  return card("Validity", { aside: pill(VALIDITY[verdict]) },
    findingsList(findings),
    facts([["Uncertainty of EPI, 1 σ", percent(uncertainty.combined, 2)], ["of the accuracy", percent(uncertainty.accuracy, 2)], ["of the instrument", percent(uncertainty.instrument, 2)]]));
}

const hash = (value) => (value ? h("code", { cls: "hash", title: value, text: value.slice(0, 16) }) : null);

const build = (one) => `${one.version}${one.revision ? ` git ${one.revision.slice(0, 12)}${one.changed ? " (changed)" : ""}` : ""}${one.release ? ` release ${one.release}` : ""}, code ${one.code_sha256.slice(0, 12)}, packages ${one.packages_sha256.slice(0, 12)}`;
const FLAGS = { openmp: "OpenMP", repack: "repack", kleidiai: "KleidiAI", rpc: "RPC" };
const engineBuild = (one) => [one.build, one.ggml_commit && `ggml ${one.ggml_commit}`, ...Object.keys(FLAGS).map((flag) => `${one[flag] ? "" : "no "}${FLAGS[flag]}`), one.features.join(" "), `libraries ${one.libraries_sha256.slice(0, 12)}`].filter(Boolean).join(", ");
const TRUST = { known: "the published set", first_use: "trusted on first use", own: "the task's own files" };

/** Equal builds once, with everybody who has them; more than one group of code or of engines is said to differ. */
function groups(builds, words, same) {
  const rows = new Map();
  for (const [name, one] of Object.entries(builds ?? {})) rows.set(words(one), [...(rows.get(words(one)) ?? []), name]);
  const differ = new Set(Object.values(builds ?? {}).map(same)).size > 1;
  return [...rows].map(([text, names]) => [names.join(", "), differ ? `${text} (they differ)` : text]);
}

/** What ran and what was asked: a pair of name and value each. */
function builds(p, sets) {
  return [
    ...groups(p.software, build, (one) => one.code_sha256), ...groups(p.engines, engineBuild, (one) => one.libraries_sha256).map(([names, text]) => [`llama.cpp on ${names}`, text]),
    ...sets.map((one) => [`Questions of ${one.task}`, `${one.asked} of ${one.available}, ${one.shots} shots, SHA-256 ${one.docs_sha256.slice(0, 16)} (${TRUST[one.trust]})`]),
  ];
}

export function provenanceCard(epi) {
  const p = epi.provenance;
  const sets = p.question_sets ?? [];
  return card("Provenance", {}, facts([
    ["Model", epi.model], ["Model file", hash(p.model_sha256)], ["Base model", hash(p.base_sha256)], ["Surgery plan", hash(p.plan_sha256)],
    ["Expert statistics", hash(p.statistics_sha256)], ["Campaign spec", hash(p.spec_sha256)], ["Generated tokens", hash(p.output_sha256)],
    ["Experts dropped", epi.surgery_detail.experts_dropped === null ? null : `${epi.surgery_detail.experts_dropped} by ${epi.surgery_detail.method}`],
    ["Engine", [p.engine, p.engine_build].filter(Boolean).join(" ")], ["lm-eval", p.lm_eval_version], ["EPI Factory", p.epi_factory_version],
    ["Instrument", epi.instrument], ["Measured at", epi.measurement_point], ["Hardware", epi.hardware], ["Governor", epi.environment.frequency_governor],
    ["Measured", epi.run_metadata.timestamp_utc], ["Accuracy", epi.accuracy_detail.note],
    ...builds(p, sets),
  ]));
}

export function attemptsCard(status) {
  return card("Attempts", {}, status.attempts.length === 0
    ? h("p", { cls: "muted", text: "None yet." })
    : h("ol", { cls: "findings" }, status.attempts.map((one) => {
      const outcome = one.outcome ? OUTCOMES[one.outcome] : { word: stepName(one.step) || "Running", icon: "play", tone: "live" };
      const took = one.ended_utc_ns ? age(seconds(one.ended_utc_ns) - seconds(one.started_utc_ns)) : "";
      return h("li", { cls: `findings__item tone-${outcome.tone}` }, icon(outcome.icon, "ink"), h("div", {},
        h("strong", { text: `Attempt ${one.number}: ${outcome.word}` }),
        h("p", { cls: "muted", text: [`started ${clock(seconds(one.started_utc_ns), true)}`, took && `took ${took}`, one.reason].filter(Boolean).join(" · ") })));
    })));
}

const FILES = { epi: ["Result", "JSON"], run: ["Run record", "JSON"], benchmark: ["Questions and answers", "JSON"], power_trace: ["Power trace", "CSV"] };

export function downloadsCard(where, files) {
  const failure = h("div", {});
  async function download(kind) {
    failure.replaceChildren();
    try {
      const blob = await api.file(where.campaign, where.configuration, where.repetition, kind);
      const number = String(where.repetition).padStart(3, "0");
      saveBlob(blob, `${where.campaign}_${where.configuration}_${kind}_${number}.${FILES[kind][1].toLowerCase()}`);
    } catch (error) {
      failure.replaceChildren(errorBox(error));
    }
  }
  return card("Downloads", {}, files.length === 0 ? h("p", { cls: "muted", text: "No file yet." })
    : h("div", { cls: "downloads" }, files.filter((kind) => FILES[kind]).map((kind) => h("button", { cls: "button", type: "button", onclick: () => download(kind) }, icon("down"), `${FILES[kind][0]} (${FILES[kind][1]})`))), failure);
}

