/** The whole trace of a run with its windows; zoom by buttons, since fingers on a wall display are coarse. */

import { api } from "../api.js";
import { saveChart } from "../charts/save_png.js";
import { PowerChart, nodeLegend } from "../charts/power.js";
import { emulatedBadge, errorBox } from "../components.js";
import { h, setAttr } from "../dom.js";
import { age, clock, windowName } from "../format.js";
import { icon } from "../icons.js";
import { niceTicks } from "../charts/curve.js";
import { nanoseconds, traceColumns } from "../trace_view.js";

const MIN_SPAN_S = 0.5;

/** The result's windows are on the meter's time already; `markers`, as they were run, are shifted here by its lag. */
export function traceCard(where, epi, markers) {
  let nodes = [];
  let range = null;
  let whole = null;
  let asked = 0;
  const holder = h("div", { cls: "chart chart--trace", role: "img", "aria-label": "Power of this run over time" });
  const legend = h("div", {});
  const band = (window, lag = 0) => ({ label: window.label, start: window.start_utc_ns / 1e9 + lag, end: window.end_utc_ns / 1e9 + lag });
  const windows = [...epi.evaluation.windows.map((window) => band(window)), ...markers.map((window) => band(window, epi.evaluation.lag.lag_s))].sort((a, b) => a.start - b.start);
  const button = (name, word, act) => h("button", { cls: "button", type: "button", "aria-label": word, title: word, onclick: act }, icon(name));
  const tools = h("div", { cls: "row" },
    button("left", "Earlier", () => move(-0.4)), button("right", "Later", () => move(0.4)),
    button("zoomin", "Zoom in", () => zoom(0.5)), button("zoomout", "Zoom out", () => zoom(2)),
    button("whole", "Whole run", () => set(whole)), button("image", "Save figure", save));
  const jumps = h("div", { cls: "row" }, windows.map((window) => h("button", {
    cls: "button", type: "button", text: `${windowName(window.label)} ${age(window.end - window.start)}`,
    onclick: () => set([window.start - 0.08 * (window.end - window.start), window.end + 0.08 * (window.end - window.start)]),
  })));
  const node = h("section", { cls: "card", "aria-label": "Power trace" },
    h("header", { cls: "card__head" }, h("div", { cls: "row" }, h("h2", { text: "Power trace" }), epi.emulated ? emulatedBadge() : null, legend), h("div", { cls: "card__aside" }, jumps, tools)),
    holder);
  const chart = new PowerChart(holder, {
    xTicks: (from, to) => niceTicks(from - whole[0], to - whole[0], 8).map((t) => t + whole[0]),
    xLabel: (x) => `${Number((x - whole[0]).toFixed(2))} s`,
    bands: () => windows,
  });

  function set(next) {
    if (!whole || !next) return;
    const span = Math.min(whole[1] - whole[0], Math.max(MIN_SPAN_S, next[1] - next[0]));
    const start = Math.max(whole[0], Math.min(whole[1] - span, (next[0] + next[1] - span) / 2));
    range = [start, start + span];
    draw().catch(fail);
  }
  const zoom = (factor) => {
    if (!range) return;
    const centre = (range[0] + range[1]) / 2;
    const half = ((range[1] - range[0]) * factor) / 2;
    set([centre - half, centre + half]);
  };
  const move = (share) => {
    if (!range) return;
    const step = share * (range[1] - range[0]);
    set([range[0] + step, range[1] + step]);
  };

  /** Fetch what is to be seen, in as many columns as fit, and draw it, unless something else was asked for meanwhile. */
  async function draw() {
    asked += 1;
    const [mine, [from, to]] = [asked, range];
    const view = await power(from, to);
    if (mine !== asked) return;
    chart.draw(traceColumns(view), [from, to]);
    setAttr(holder, "aria-label", `Power of this run from ${clock(from, true)} to ${clock(to, true)}`);
  }

  const power = (from, to) => api.runPower(where.campaign, where.configuration, where.repetition, {
    columns: chart.columns, ...(from === undefined ? {} : { start_utc_ns: nanoseconds(from), end_utc_ns: nanoseconds(to) }),
  });

  function save() {
    const name = `${where.campaign}_${where.configuration}_${String(where.repetition).padStart(3, "0")}`;
    saveChart(holder.querySelector("canvas"), {
      title: `${where.configuration}, repetition ${where.repetition}, ${where.campaign}`, names: nodes, emulated: epi.emulated, name: `${name}_power.png`,
    });
  }

  const fail = (error) => holder.replaceChildren(errorBox(error, load));

  async function load() {
    try {
      const view = await power();
      nodes = view.nodes;
      whole = [view.start_utc_ns / 1e9, view.end_utc_ns / 1e9];
      legend.replaceChildren(nodeLegend(nodes));
      set(whole);
    } catch (error) {
      fail(error);
    }
  }
  load();
  return { node, close: () => chart.destroy() };
}
