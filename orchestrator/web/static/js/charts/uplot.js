/** Loads uPlot, which npm installs and the orchestrator serves; a page without it says which command brings it. */

import { h } from "../dom.js";
import { icon } from "../icons.js";

let loading = null;

/** Return the uPlot class, or null when it is not installed. */
export function loadUplot() {
  // @ts-ignore: served by the orchestrator, not a file beside this one
  loading ??= import("/vendor/uplot/uPlot.esm.js").then((module) => module.default).catch(() => null);
  return loading;
}

/** What stands in a chart's place without uPlot. */
export function missingChart() {
  return h(
    "div",
    { cls: "empty empty--inline" },
    icon("warn"),
    h("p", {}, h("strong", { text: "The chart library is not installed. " }), "Run ", h("code", { text: "make web" }),
      " in the project's folder and restart the orchestrator; the figures beside the chart are complete."),
  );
}
