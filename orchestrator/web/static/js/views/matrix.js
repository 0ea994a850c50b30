/** The matrix as a table of depth x layer group; each cell is a configuration with its state and EPI. */

import { h, setAttr, setText, show } from "../dom.js";
import { change, configurationName, groupName, significant } from "../format.js";
import { icon, setIcon } from "../icons.js";
import { RUN_STATES, comparison } from "../states.js";

const GROUPS = ["all", "early", "late"];

/** One state for all repetitions of a configuration. */
export function cellState(runs) {
  const done = runs.filter((run) => run.state === "done").length;
  if (runs.some((run) => run.state === "running")) return { name: "running", done };
  if (done === runs.length && done > 0) return { name: "done", done };
  if (runs.some((run) => run.state === "failed")) return { name: "failed", done };
  if (done > 0) return { name: "partly", done };
  return { name: "pending", done };
}

const WORDS = { ...RUN_STATES, partly: { word: "Partly done", icon: "half", tone: "calm" } };

/** Which repetition a tap opens: the one that runs, else the last that is done, else the first. */
export function bestRepetition(runs) {
  const running = runs.find((run) => run.state === "running");
  const done = runs.filter((run) => run.state === "done").at(-1);
  return (running ?? done ?? runs[0])?.repetition ?? 1;
}

function makeCell(configuration) {
  const holder = h("span", { cls: "cell__icon" }, icon("pending"));
  const main = h("span", { cls: "cell__main" });
  const note = h("span", { cls: "cell__note" });
  const spoken = h("span", { cls: "visually-hidden" });
  const seen = h("span", { cls: "cell__seen", "aria-hidden": "true" }, h("span", { cls: "cell__top" }, holder, main), note);
  const flag = h("span", { cls: "cell__flag tone-warn", hidden: true, title: "Valid, with notes" }, icon("flag", "ink"));
  seen.append(flag);
  const node = h("a", { cls: "cell" }, seen, spoken);
  const update = (campaign, result) => {
    const runs = campaign.runs.filter((run) => run.configuration === configuration.id);
    const { name, done } = cellState(runs);
    const state = WORDS[name];
    const verdict = done > 0 && configuration.depth > 0 ? comparison(result) : null;
    const isBase = configuration.depth === 0;
    const figure = done === 0 || !result ? "" : isBase ? significant(result.epi, 3) : change(result.epi_ratio);
    const failed = result?.validity === "FAIL";
    const tone = name === "running" || name === "failed" ? state.tone : failed ? "bad" : verdict?.tone ?? "calm";
    const judged = verdict && (verdict.icon === "lower" || verdict.icon === "higher");
    setIcon(holder, name === "running" || name === "failed" ? state.icon : failed ? "warn" : judged || (verdict && name === "done") ? verdict.icon : state.icon);
    setText(main, figure || (name === "pending" ? "" : state.word));
    const reps = runs.length > 1 ? `${done} of ${runs.length}` : "";
    setText(note, name === "pending" ? "" : name === "done" ? (failed ? "not valid" : isBase ? "EPI" : short(verdict)) : name === "running" ? reps : `${name === "failed" ? "failed" : ""} ${reps}`.trim());
    show(flag, result?.validity === "FLAG" && done > 0);
    setAttr(node, "class", `cell cell--${name} tone-${tone}`);
    setAttr(node, "href", `#/run/${configuration.id}/${bestRepetition(runs)}`);
    setText(spoken, [configurationName(configuration), state.word, figure && (isBase ? `EPI ${figure}` : `EPI ${figure} against its baseline`), verdict?.word, failed ? "not valid" : result?.validity === "FLAG" ? "valid, with notes" : ""].filter(Boolean).join(", "));
  };
  return { node, update };
}

const short = (verdict) => (!verdict ? "" : verdict.icon === "similar" ? "no difference" : verdict.icon === "lower" ? "lower" : verdict.icon === "higher" ? "higher" : "no interval");

/** Build the table; `update(campaign, results)` fills it and rebuilds when the configurations change. */
export function matrixTable(corner) {
  const node = h("div", { cls: "matrix" });
  let cells = new Map();
  let key = "";
  node.update = (campaign, results) => {
    const wanted = campaign.configurations.map((one) => one.id).join();
    if (wanted !== key) {
      key = wanted;
      cells = new Map(campaign.configurations.map((one) => [one.id, makeCell(one)]));
      node.replaceChildren(...layout(campaign.configurations, cells, corner));
    }
    const byId = new Map(results.map((result) => [result.configuration.id, result]));
    for (const [id, cell] of cells) cell.update(campaign, byId.get(id));
  };
  return node;
}

function layout(configurations, cells, corner) {
  const inMatrix = (depth, group) => configurations.find((one) => one.depth === depth && one.group === group && one.id === `drop${depth}_${group}`);
  const depths = [...new Set(configurations.filter((one) => one.depth > 0).map((one) => one.depth))].sort((a, b) => a - b);
  const groups = GROUPS.filter((group) => depths.some((depth) => inMatrix(depth, group)));
  const placed = new Set(["baseline", "baseline_biased"]);
  const cell = (id) => (cells.has(id) ? cells.get(id).node : null);
  const head = h("tr", {}, h("td", { cls: "matrix__corner" }, corner),
    h("th", { scope: "col", text: "Baseline" }), depths.map((depth) => h("th", { scope: "col", text: `Drop ${depth}` })));
  const biased = groups.filter((group) => group !== "all");
  const rows = (groups.length ? groups : ["all"]).map((group) => {
    const base = group === "all" ? h("td", {}, cell("baseline"))
      : group === biased[0] ? h("td", { rowspan: biased.length }, cell("baseline_biased")) : null;
    return h("tr", {}, h("th", { scope: "row", text: groupName(group) }), base,
      depths.map((depth) => {
        const one = inMatrix(depth, group);
        if (one) placed.add(one.id);
        return h("td", {}, one ? cell(one.id) : h("span", { cls: "cell cell--none", "aria-label": "not in this campaign" }));
      }));
  });
  const table = h("table", { cls: "matrix__table" }, h("caption", { cls: "visually-hidden", text: "EPI of every configuration against its baseline, by experts dropped and layer group" }), h("thead", {}, head), h("tbody", {}, rows));
  const others = configurations.filter((one) => !placed.has(one.id));
  if (!groups.includes("all") && groups.length && cells.has("baseline")) others.unshift(configurations.find((one) => one.id === "baseline"));
  return [
    h("div", { cls: "matrix__scroll" }, table),
    others.length ? h("div", { cls: "matrix__others" }, others.map((one) => h("div", { cls: "matrix__other" }, h("span", { cls: "muted", text: one.id }), cells.get(one.id).node))) : null,
  ].filter(Boolean);
}
