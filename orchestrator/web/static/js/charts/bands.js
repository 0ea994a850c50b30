/** uPlot plug-in: the windows of a run as bands behind the trace, with their name or, when narrow, its first letter. */

import { windowName } from "../format.js";
import { colour } from "../theme.js";

const LABEL_PX = 14;

/** `bands()` returns [{label, start, end}] in the chart's x unit; `end` null lasts until the right edge. */
export function bandsPlugin(bands) {
  function draw(u) {
    const { ctx, bbox } = u;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.font = `600 ${LABEL_PX * ratio}px ${colour("font")}`;
    ctx.textBaseline = "top";
    ctx.textAlign = "left";
    let freeFrom = -Infinity;
    for (const { label, start, end } of bands()) {
      const left = Math.max(u.valToPos(start, "x", true), bbox.left);
      const right = end === null ? bbox.left + bbox.width : Math.min(u.valToPos(end, "x", true), bbox.left + bbox.width);
      if (right <= left) continue;
      ctx.fillStyle = colour(`band-${label}`);
      ctx.fillRect(left, bbox.top, Math.max(right - left, ratio), bbox.height);
      const name = windowName(label);
      const margin = 4 * ratio;
      const room = right - left - 2 * margin;
      const text = ctx.measureText(name).width <= room ? name : name[0];
      const width = ctx.measureText(text).width;
      if (width <= room && left + margin > freeFrom) {
        ctx.fillStyle = colour("muted");
        ctx.fillText(text, left + margin, bbox.top + margin);
        freeFrom = left + width + margin;
      }
    }
    ctx.restore();
  }
  return { hooks: { drawClear: draw } };
}
