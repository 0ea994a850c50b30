/** Reads a run's power trace (timestamp,node,watts) into columns for the chart. Not here: drawing it. */

const HEADER = "timestamp,node,watts";
const GAP_S = 2.5;

/** UTC seconds of "2026-01-31T12:00:00.123456789Z"; Date alone would cut the nanoseconds off. */
function utcSeconds(stamp) {
  const dot = stamp.indexOf(".");
  if (dot < 0) return Date.parse(stamp) / 1000;
  return Date.parse(`${stamp.slice(0, dot)}Z`) / 1000 + Number(`0${stamp.slice(dot, -1)}`);
}

/** Return {nodes, times, power: Map(node -> watts at each time, null where it sent none)}. */
export function parseTrace(text) {
  const lines = text.split("\n");
  if (lines[0].trim() !== HEADER) throw new Error(`the trace must begin with ${HEADER}`);
  const times = [];
  const power = new Map();
  let last = null;
  for (let i = 1; i < lines.length; i += 1) {
    if (lines[i] === "") continue;
    const [stamp, node, watts] = lines[i].split(",");
    if (stamp !== last) {
      last = stamp;
      times.push(utcSeconds(stamp));
      for (const column of power.values()) column.push(null);
    }
    if (!power.has(node)) power.set(node, new Array(times.length).fill(null));
    power.get(node)[times.length - 1] = Number(watts);
  }
  return { nodes: [...power.keys()].sort(), times, power };
}

/** Columns of the stacked chart between two times, in at most about `columns` columns (see PowerMemory.view). */
export function traceView(trace, from, to, columns) {
  const { nodes, times, power } = trace;
  const out = Array.from({ length: nodes.length + 4 }, () => []);
  const width = (to - from) / columns;
  const source = nodes.map((node) => power.get(node));
  let k = times.findIndex((t) => t >= from - 1);
  if (k < 0) return out;
  let previous = null;
  while (k < times.length && times[k] <= to + 1) {
    const end = times[k] + width;
    const sums = new Array(nodes.length).fill(0);
    let n = 0;
    let time = 0;
    let low = Infinity;
    let high = -Infinity;
    do {
      let cluster = 0;
      for (let j = 0; j < source.length; j += 1) {
        const watts = source[j][k] ?? 0;
        sums[j] += watts;
        cluster += watts;
      }
      low = Math.min(low, cluster);
      high = Math.max(high, cluster);
      time += times[k];
      n += 1;
      k += 1;
    } while (k < times.length && times[k] < end);
    time /= n;
    if (previous !== null && time - previous > Math.max(GAP_S, 3 * width)) {
      out[0].push((time + previous) / 2);
      for (let j = 1; j < out.length; j += 1) out[j].push(null);
    }
    previous = time;
    out[0].push(time);
    let stack = 0;
    for (let j = 0; j < sums.length; j += 1) {
      stack += sums[j] / n;
      out[1 + j].push(stack);
    }
    out[nodes.length + 1].push(low);
    out[nodes.length + 2].push(high);
    out[nodes.length + 3].push(stack);
  }
  return out;
}
