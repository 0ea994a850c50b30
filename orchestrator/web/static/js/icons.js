/** The page's own line icons on a 24 x 24 grid. Every state has one, so that no state is told by colour alone. */

import { s } from "./dom.js";

const PATHS = {
  now: ["M3 13h4l3-8 4 14 3-9 1.5 3H21"],
  campaign: ["M4 4h6v6H4z", "M14 4h6v6h-6z", "M4 14h6v6H4z", "M14 14h6v6h-6z"],
  run: ["M4 20V4", "M4 20h16", "M8 15l3-5 3 3 5-7"],
  lab: ["M9 3h6", "M10 3v6l-5 9a2 2 0 0 0 1.8 3h10.4A2 2 0 0 0 19 18l-5-9V3", "M7.5 15h9"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4"],
  moon: ["M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  ok: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M8 12.3l2.8 2.7L16 9.5"],
  warn: ["M12 4L2.8 20h18.4z", "M12 10v4.5", "M12 17.4v.1"],
  bad: ["M8.2 3h7.6L21 8.2v7.6L15.8 21H8.2L3 15.8V8.2z", "M12 8v5", "M12 16.2v.1"],
  cross: ["M6 6l12 12M18 6L6 18"],
  play: ["M7 4.5v15l12-7.5z"],
  pause: ["M8 5v14M16 5v14"],
  stop: ["M6 6h12v12H6z"],
  running: ["M12 3a9 9 0 1 0 9 9", "M12 7v5l3 2"],
  pending: ["M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16z"],
  half: ["M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16z", "M12 4v16", "M12 8h4M12 12h8M12 16h4"],
  clock: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 7v5.2l3.4 2"],
  flag: ["M5 21V4", "M5 5h12l-2.5 4L17 13H5"],
  heat: ["M10 13.6V5a2 2 0 1 1 4 0v8.6a4 4 0 1 1-4 0z"],
  bolt: ["M13 2L5 13.5h6L10 22l9-12.5h-6.2z"],
  link: ["M5 12.5a10 10 0 0 1 14 0", "M8 15.5a6 6 0 0 1 8 0", "M12 19v.1"],
  unlink: ["M3 3l18 18", "M5 12.5a10 10 0 0 1 4-2.4", "M14.5 10.3a10 10 0 0 1 4.5 2.2", "M12 19v.1"],
  node: ["M4 5h16v5H4z", "M4 14h16v5H4z", "M7.5 7.5v.1M7.5 16.5v.1"],
  meter: ["M4 17a8 8 0 1 1 16 0", "M12 17l4-5", "M4 17h16"],
  surgeon: ["M7 4v6M7 10a3 3 0 0 0 3 3h1v7", "M17 4v5a4 4 0 0 1-4 4h-2", "M5 4h4M15 4h4"],
  server: ["M4 4h16v6H4z", "M4 14h16v6H4z", "M8 7v.1M8 17v.1M12 7h4M12 17h4"],
  flask: ["M9 3h6", "M10 3v6l-5 9a2 2 0 0 0 1.8 3h10.4A2 2 0 0 0 19 18l-5-9V3"],
  down: ["M12 4v11M7 11l5 5 5-5", "M5 20h14"],
  lower: ["M12 5v14M6 13l6 6 6-6"],
  higher: ["M12 19V5M6 11l6-6 6 6"],
  similar: ["M4 10c2.5-3 5-3 8 0s5.500 3 8 0", "M4 16c2.500-3 5-3 8 0s5.500 3 8 0"],
  left: ["M15 5l-7 7 7 7"],
  right: ["M9 5l7 7-7 7"],
  zoomin: ["M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14z", "M16 16l5 5", "M8 11h6M11 8v6"],
  zoomout: ["M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14z", "M16 16l5 5", "M8 11h6"],
  whole: ["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"],
  next: ["M4 12h14M12 6l6 6-6 6"],
  plus: ["M12 5v14M5 12h14"],
  bulb: ["M9 18h6M10 21h4", "M12 3a6 6 0 0 0-3.800 10.700c.6.5.8 1.300.8 2.300h6c0-1 .2-1.800.8-2.300A6 6 0 0 0 12 3z"],
  image: ["M4 5h16v14H4z", "M4 16l5-5 4 4 3-3 4 4", "M15.5 9v.1"],
  key: ["M8 12a4 4 0 1 0 0 .1", "M12 12h9M18 12v4"],
  table: ["M4 5h16v14H4z", "M4 10h16M4 14.500h16M10 10v9"],
};

/** Return the icon as an SVG element, hidden from screen readers: the word stands beside it. */
export function icon(name, cls = "") {
  const paths = (PATHS[name] ?? PATHS.pending).map((d) => s("path", { d }));
  return s("svg", { cls: `icon ${cls}`.trim(), viewBox: "0 0 24 24", "aria-hidden": "true", "data-icon": name }, paths);
}

/** Swap the icon inside `holder` when its name differs. */
export function setIcon(holder, name) {
  if (holder.firstElementChild?.dataset.icon !== name) holder.replaceChildren(icon(name));
}
