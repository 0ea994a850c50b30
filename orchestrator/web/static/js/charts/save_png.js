/** Saves a power chart as a picture of its own: title, legend and the mark of emulated power above the trace. */

import { saveBlob } from "../dom.js";
import { colour } from "../theme.js";
import { nodeColour } from "./power.js";

const HEAD_PX = 72;

/** `names`: nodes in the order of their colours. */
export function saveChart(chart, { title, names, emulated, name }) {
  const ratio = devicePixelRatio;
  const picture = document.createElement("canvas");
  picture.width = chart.width;
  picture.height = chart.height + HEAD_PX * ratio;
  const ctx = picture.getContext("2d");
  ctx.fillStyle = colour("surface");
  ctx.fillRect(0, 0, picture.width, picture.height);
  ctx.drawImage(chart, 0, HEAD_PX * ratio);
  ctx.scale(ratio, ratio);
  const width = picture.width / ratio;
  const write = (text, x, y, ink, weight, align) => {
    ctx.font = `${weight} 16px ${colour("font")}`;
    ctx.textAlign = align;
    ctx.fillStyle = colour(ink);
    ctx.fillText(text, x, y);
    return ctx.measureText(text).width;
  };
  write(title, 16, 28, "text", 600, "left");
  if (emulated) write("Emulated: not measured by an AC meter", width - 16, 56, "note", 600, "right");
  let x = 16;
  names.forEach((node, i) => {
    ctx.fillStyle = colour(nodeColour(i));
    ctx.fillRect(x, 44, 14, 14);
    x += 20 + write(node, x + 20, 56, "muted", 500, "left") + 20;
  });
  picture.toBlob((blob) => saveBlob(blob, name), "image/png");
}
