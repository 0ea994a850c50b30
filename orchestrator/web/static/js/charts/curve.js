/**
 * Figures per configuration as SVG: a value by surgery depth with intervals, or one value against another. Marks are
 * links to the run and carry their figures as text. Not here: live traces (power.js).
 */

import { h, s } from "../dom.js";
import { configurationName, groupName } from "../format.js";

const GROUPS = ["all", "early", "late"];
const SHAPES = { all: "circle", early: "square", late: "triangle" };
const MARGIN = { top: 34, right: 16, bottom: 46, left: 66 };
const MARK = 6;

/** Ticks at round numbers inside [low, high]. */
export function niceTicks(low, high, about = 5) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((one) => one >= raw) ?? 10 * power;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

/** @returns {[number, number]} */
function padded(values, include = []) {
  const all = [...values, ...include].filter((v) => typeof v === "number" && Number.isFinite(v));
  if (!all.length) return [0, 1];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const pad = (high - low) * 0.12 || Math.abs(high) * 0.05 || 0.5;
  return [low - pad, high + pad];
}

function mark(group, x, y) {
  if (SHAPES[group] === "square") return s("rect", { x: x - MARK + 0.5, y: y - MARK + 0.5, width: 2 * MARK - 1, height: 2 * MARK - 1, rx: 1 });
  if (SHAPES[group] === "triangle") return s("path", { d: `M${x} ${y - MARK - 0.5}L${x + MARK + 0.5} ${y + MARK - 1}H${x - MARK - 0.5}Z` });
  return s("circle", { cx: x, cy: y, r: MARK });
}

/** The three groups with their marks. */
export function groupLegend() {
  return h("ul", { cls: "legend", "aria-label": "Layer groups" }, GROUPS.map((group) =>
    h("li", { cls: "legend__item" }, s("svg", { cls: `mark mark--${group}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, mark(group, 0, 0)), groupName(group))));
}

class Plot {
  constructor(holder, label) {
    this.holder = holder;
    this.label = label;
    this.make = null;
    this.observer = new ResizeObserver(() => this.render());
    this.observer.observe(holder);
  }

  destroy() {
    this.observer.disconnect();
  }

  /** `make(frame)` returns the marks; the frame has the size and the scales. */
  draw(make) {
    this.make = make;
    this.render();
  }

  render() {
    const width = Math.floor(this.holder.clientWidth);
    const height = Math.floor(this.holder.clientHeight);
    if (!this.make || width < 80 || height < 80) return;
    const box = { left: MARGIN.left, top: MARGIN.top, right: width - MARGIN.right, bottom: height - MARGIN.bottom };
    const content = this.make(box);
    this.holder.replaceChildren(content instanceof SVGElement || Array.isArray(content)
      ? s("svg", { cls: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": this.label }, content)
      : content);
  }
}

function scale([from, to], [a, b]) {
  return (value) => a + ((value - from) / (to - from)) * (b - a);
}

function yAxis(box, domain, y, format, title) {
  return [
    niceTicks(...domain).map((tick) => [
      s("line", { cls: "plot__grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      s("text", { cls: "plot__tick", x: box.left - 10, y: y(tick), "text-anchor": "end", "dominant-baseline": "central", text: format(tick) }),
    ]),
    s("text", { cls: "plot__title", x: 4, y: 16, text: title }),
  ];
}

function point(group, x, y, describe, href, emphasis) {
  return s(
    "a",
    { href, cls: `plot__point plot__point--${group} ${emphasis}`.trim(), "aria-label": describe },
    s("title", { text: describe }),
    s("circle", { cls: "plot__touch", cx: x, cy: y, r: 24 }),
    mark(group, x, y),
  );
}

/**
 * A value by depth. `metric`: {title, value(r), low(r), high(r), format, reference?}; `href(r)`: where a mark leads;
 * `describe(r)`: its figures in words.
 */
export class DepthPlot extends Plot {
  show(results, metric, { href, describe }) {
    const shown = results.filter((r) => typeof metric.value(r) === "number");
    this.draw((box) => {
      const depths = results.map((r) => r.configuration.depth);
      const deepest = Math.max(1, ...depths);
      const domain = padded(shown.flatMap((r) => [metric.value(r), metric.low?.(r), metric.high?.(r)]), metric.reference === undefined ? [] : [metric.reference]);
      const y = scale(domain, [box.bottom, box.top]);
      const x = scale([-0.4, deepest + 0.4], [box.left, box.right]);
      const nodes = [yAxis(box, domain, y, metric.format, metric.title)];
      for (let depth = 0; depth <= deepest; depth += 1) {
        nodes.push(s("text", { cls: "plot__tick", x: x(depth), y: box.bottom + 18, "text-anchor": "middle", text: depth === 0 ? "base" : depth }));
      }
      nodes.push(s("text", { cls: "plot__title", x: (box.left + box.right) / 2, y: box.bottom + 40, "text-anchor": "middle", text: "Experts dropped per layer" }));
      if (metric.reference !== undefined) {
        nodes.push(s("line", { cls: "plot__reference", x1: box.left, x2: box.right, y1: y(metric.reference), y2: y(metric.reference) }));
      }
      const groups = GROUPS.filter((group) => shown.some((r) => r.configuration.group === group && r.configuration.depth > 0));
      // Groups stand side by side, so that their intervals do not hide one another.
      const shift = (group) => (groups.length > 1 ? (groups.indexOf(group) - (groups.length - 1) / 2) * 0.2 : 0);
      for (const group of groups) {
        const own = shown.filter((r) => r.configuration.depth > 0 && r.configuration.group === group);
        const base = shown.find((r) => r.configuration.id === own[0].reference);
        const line = [...(base ? [base] : []), ...own].sort((a, b) => a.configuration.depth - b.configuration.depth);
        const at = (r) => x(r.configuration.depth + (r.configuration.depth ? shift(group) : 0));
        if (line.length > 1) {
          nodes.push(s("path", { cls: `plot__line plot__line--${group}`, d: `M${line.map((r) => `${at(r).toFixed(1)} ${y(metric.value(r)).toFixed(1)}`).join("L")}` }));
        }
      }
      for (const r of shown) {
        const { depth, group, layout } = r.configuration;
        const px = x(depth + (depth ? shift(group) : layout === "biased" ? 0.12 : 0));
        const low = metric.low?.(r);
        const high = metric.high?.(r);
        const ranged = typeof low === "number" && typeof high === "number";
        if (ranged) nodes.push(s("line", { cls: `plot__range plot__range--${group}`, x1: px, x2: px, y1: y(low), y2: y(high) }));
        const bare = metric.high && !ranged && depth > 0 ? "plot__point--bare" : "";
        nodes.push(point(depth ? group : "all", px, y(metric.value(r)), describe(r), href(r), bare));
      }
      return nodes;
    });
  }
}

/** One value against another: `xs`, `ys`: {title, value(r), format}; `better`: ids on the front, joined by a line. */
export class ScatterPlot extends Plot {
  show(results, xs, ys, front, { href, describe }) {
    const shown = results.filter((r) => typeof xs.value(r) === "number" && typeof ys.value(r) === "number");
    this.draw((box) => {
      const xDomain = padded(shown.map(xs.value));
      const yDomain = padded(shown.map(ys.value));
      const x = scale(xDomain, [box.left, box.right]);
      const y = scale(yDomain, [box.bottom, box.top]);
      const nodes = [yAxis(box, yDomain, y, ys.format, ys.title)];
      for (const tick of niceTicks(...xDomain, 6)) {
        nodes.push(s("text", { cls: "plot__tick", x: x(tick), y: box.bottom + 18, "text-anchor": "middle", text: xs.format(tick) }));
      }
      nodes.push(s("text", { cls: "plot__title", x: (box.left + box.right) / 2, y: box.bottom + 40, "text-anchor": "middle", text: xs.title }));
      const line = shown.filter((r) => front.has(r.configuration.id)).sort((a, b) => xs.value(a) - xs.value(b));
      if (line.length > 1) {
        nodes.push(s("path", { cls: "plot__line plot__line--front", d: `M${line.map((r) => `${x(xs.value(r)).toFixed(1)} ${y(ys.value(r)).toFixed(1)}`).join("L")}` }));
      }
      for (const r of shown) {
        nodes.push(point(r.configuration.group, x(xs.value(r)), y(ys.value(r)), describe(r), href(r), front.has(r.configuration.id) ? "plot__point--front" : ""));
      }
      return nodes;
    });
  }
}

export const nameOf = (r) => configurationName(r.configuration);
