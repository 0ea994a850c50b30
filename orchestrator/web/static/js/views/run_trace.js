/** The whole trace of a run with its windows; zoom by buttons, since fingers on a wall display are coarse. */

import { api } from "../api.js";
import { saveChart } from "../charts/save_png.js";
import { PowerChart, nodeLegend } from "../charts/power.js";
import { emulatedBadge, errorBox } from "../components.js";
import { h, setAttr } from "../dom.js";
import { age, clock, windowName } from "../format.js";
import { icon } from "../icons.js";
import { niceTicks } from "../charts/curve.js";
import { parseTrace, traceView } from "../trace_file.js";

const MIN_SPAN_S = 0.5;

/** The result's windows are on the meter's time already; `markers`, as they were run, are shifted here by its lag. */
export function traceCard(where, epi, markers) {
  let trace = null;
  let range = null;
  let whole = null;
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
    const span = Math.min(whole[1] - whole[0], Math.max(MIN_SPAN_S, next[1] - next[0]));
    const start = Math.max(whole[0], Math.min(whole[1] - span, (next[0] + next[1] - span) / 2));
    range = [start, start + span];
    draw();
  }
  const zoom = (factor) => {
    const centre = (range[0] + range[1]) / 2;
    const half = ((range[1] - range[0]) * factor) / 2;
    set([centre - half, centre + half]);
  };
  const move = (share) => {
    const step = share * (range[1] - range[0]);
    set([range[0] + step, range[1] + step]);
  };

  function draw() {
    chart.draw(traceView(trace, range[0], range[1], chart.columns), range);
    setAttr(holder, "aria-label", `Power of this run from ${clock(range[0], true)} to ${clock(range[1], true)}`);
  }

  function save() {
    const name = `${where.campaign}_${where.configuration}_${String(where.repetition).padStart(3, "0")}`;
    saveChart(holder.querySelector("canvas"), {
      title: `${where.configuration}, repetition ${where.repetition}, ${where.campaign}`, names: trace.nodes, emulated: epi.emulated, name: `${name}_power.png`,
    });
  }

  async function load() {
    try {
      const file = await api.file(where.campaign, where.configuration, where.repetition, "power_trace");
      trace = parseTrace(await file.text());
      if (trace.times.length < 2) throw new Error("the trace is empty");
      whole = [trace.times[0], trace.times.at(-1)];
      legend.replaceChildren(nodeLegend(trace.nodes));
      set(whole);
    } catch (error) {
      holder.replaceChildren(errorBox(error, load));
    }
  }
  load();
  return { node, close: () => chart.destroy() };
}
