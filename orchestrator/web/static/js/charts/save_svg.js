/** Saves a figure of the page as a picture of its own: title, mark of emulated power, colours that need no style sheet. */

import { s, saveBlob } from "../dom.js";
import { colour } from "../theme.js";

const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "font-size", "font-weight"];
const HEAD_PX = 72;
const LEGEND = [["all", "● all layers"], ["early", "■ early layers"], ["late", "▲ late layers"]];

/** `name`: of the file. The copy carries the computed styles, since the page's style sheet stays behind. */
export function saveFigure(svg, { title, emulated, name }) {
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  const copy = svg.cloneNode(true);
  const originals = svg.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((node, i) => {
    const style = getComputedStyle(originals[i]);
    for (const one of STYLES) node.style.setProperty(one, style.getPropertyValue(one));
  });
  // Links lead to addresses of this page: in a file they lead nowhere.
  for (const link of copy.querySelectorAll("a")) link.removeAttribute("href");
  const text = (x, y, anchor, content, fill, weight) =>
    s("text", { x, y, "text-anchor": anchor, fill, "font-size": 18, "font-weight": weight, text: content });
  const picture = s("svg", { width, height: height + HEAD_PX, viewBox: `0 0 ${width} ${height + HEAD_PX}`, "font-family": "Inter, system-ui, sans-serif" },
    s("rect", { width: "100%", height: "100%", fill: colour("surface") }),
    text(16, 28, "start", title, colour("text"), 600),
    LEGEND.map(([group, words], i) => text(16 + 140 * i, 58, "start", words, colour(`group-${group}`), 500)),
    emulated ? text(width - 16, 58, "end", "Emulated: not measured by an AC meter", colour("note"), 600) : null,
    s("g", { transform: `translate(0 ${HEAD_PX})` }, [...copy.childNodes]));
  saveBlob(new Blob([new XMLSerializer().serializeToString(picture)], { type: "image/svg+xml" }), name);
}
