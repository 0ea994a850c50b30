/**
 * The power trace: nodes stacked to the cluster's sum, its envelope, and the windows behind it. Draws at most once a
 * frame and only what changed. Not here: where the data comes from (ring.js, views/run.js).
 */

import { h } from "../dom.js";
import { colour, onTheme } from "../theme.js";
import { bandsPlugin } from "./bands.js";
import { loadUplot, missingChart } from "./uplot.js";

const NODE_COLOURS = 6;

export const nodeColour = (index) => `node-${(index % NODE_COLOURS) + 1}`;

/** Round the upper end of the axis up to a calm number that changes rarely. */
function niceMaximum(value) {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  for (const factor of [1, 1.5, 2, 3, 4, 5, 6, 8, 10]) if (value <= factor * step) return factor * step;
  return 10 * step;
}

export class PowerChart {
  /**
   * `holder`: the element to fill. `xLabel(x)`: text of a tick. `bands()`: windows in x units.
   */
  constructor(holder, { xLabel, xTicks, bands }) {
    this.holder = holder;
    this.xLabel = xLabel;
    this.xTicks = xTicks;
    this.bands = bands;
    this.plot = null;
    this.nodes = 0;
    this.data = null;
    this.range = [0, 1];
    this.top = 0;
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(holder);
    this.forgetTheme = onTheme(() => this.#rebuild());
    this.ready = loadUplot().then((Uplot) => {
      this.Uplot = Uplot;
      if (!Uplot) holder.replaceChildren(missingChart());
      else this.#rebuild();
    });
  }

  destroy() {
    this.observer.disconnect();
    this.forgetTheme();
    this.plot?.destroy();
    this.plot = null;
    this.Uplot = null;
  }

  /** How many columns are worth handing over: about one for two pixels. */
  get columns() {
    return Math.max(60, Math.min(900, Math.round((this.plot?.bbox.width ?? 800) / devicePixelRatio / 2)));
  }

  /** `data` as PowerMemory.view returns it; `range` is [from, to] of the x axis. */
  draw(data, range) {
    this.data = data;
    this.range = range;
    if (!this.Uplot) return;
    if (data.length - 4 !== this.nodes || !this.plot) this.#rebuild();
    if (!this.plot) return;
    const top = this.#top();
    this.plot.batch(() => {
      this.plot.setData(data, false);
      this.plot.setScale("x", { min: range[0], max: range[1] });
      this.plot.setScale("y", { min: 0, max: top });
    });
  }

  /** The axis grows at once and shrinks only when the trace fits well below. */
  #top() {
    let peak = 0;
    for (const value of this.data[this.nodes + 2]) if (value > peak) peak = value;
    const wanted = niceMaximum(peak * 1.12);
    if (wanted > this.top || wanted < 0.6 * this.top) this.top = wanted;
    return this.top;
  }

  #resize() {
    const { width, height } = this.#size();
    if (this.plot && width > 0 && height > 0 && (width !== this.plot.width || height !== this.plot.height)) {
      this.plot.setSize({ width, height });
    } else if (!this.plot && this.Uplot) this.#rebuild();
  }

  #size() {
    return { width: Math.floor(this.holder.clientWidth), height: Math.floor(this.holder.clientHeight) };
  }

  #rebuild() {
    const { width, height } = this.#size();
    if (!this.Uplot || !this.data?.length || width < 40 || height < 40) return;
    this.plot?.destroy();
    this.nodes = this.data.length - 4;
    this.top = 0;
    this.holder.replaceChildren();
    this.plot = new this.Uplot(this.#options(width, height), this.data, this.holder);
    this.draw(this.data, this.range);
  }

  #options(width, height) {
    const text = colour("muted");
    const grid = { stroke: colour("grid"), width: 1 };
    const font = `500 14px ${colour("font")}`;
    const axis = { stroke: text, font, grid, ticks: { show: false }, border: { show: false } };
    const line = { points: { show: false }, spanGaps: false, stroke: "transparent", width: 0 };
    const series = [{}];
    const bands = [];
    for (let i = 0; i < this.nodes; i += 1) {
      series.push({ ...line, fill: i === 0 ? colour(nodeColour(0)) : undefined });
      if (i > 0) bands.push({ series: [i + 1, i], fill: colour(nodeColour(i)) });
    }
    const low = this.nodes + 1;
    series.push({ ...line }, { ...line }, { ...line, stroke: colour("trace"), width: 2 });
    bands.push({ series: [low + 1, low], fill: colour("envelope") });
    return {
      width,
      height,
      padding: [8, 22, 0, 0],
      pxAlign: false,
      legend: { show: false },
      cursor: { show: false },
      select: { show: false },
      scales: { x: { time: false, auto: false }, y: { auto: false } },
      axes: [
        {
          ...axis,
          size: 38,
          gap: 10, // clear of "0 W" in the corner
          grid: { show: false },
          splits: this.xTicks ? (u) => this.xTicks(u.scales.x.min, u.scales.x.max) : undefined,
          values: (u, ticks) => ticks.map((tick) => this.xLabel(tick)),
        },
        { ...axis, size: 58, space: 44, values: (u, ticks) => ticks.map((tick) => `${tick} W`) },
      ],
      series,
      bands,
      plugins: [bandsPlugin(this.bands)],
    };
  }
}

/** A row that says which colour is which node. */
export function nodeLegend(names) {
  return h(
    "ul",
    { cls: "legend", "aria-label": "Nodes in the chart" },
    names.map((name, i) => h("li", { cls: "legend__item" }, h("span", { cls: `swatch swatch--${nodeColour(i)}` }), name)),
  );
}
