/**
 * Fixed-size memory of the power feed: ten minutes at full rate and twelve hours by the second, however long the page
 * stays open. Not here: drawing (charts/power.js).
 *
 * Columns are typed arrays; a column per node is added when a node first speaks, up to MAX_NODES.
 */

export const MAX_NODES = 16;
const FINE = 6600; // ten minutes at 10 Hz and a little more
const COARSE = 43_200; // twelve hours at 1 Hz
const GAP_S = 2.5; // a longer silence is drawn as a gap, not as a line

class Ring {
  constructor(capacity) {
    this.capacity = capacity;
    this.t = new Float64Array(capacity);
    this.low = new Float32Array(capacity);
    this.mean = new Float32Array(capacity);
    this.high = new Float32Array(capacity);
    this.nodes = new Map();
    this.head = 0; // next place to write
    this.size = 0;
  }

  column(node) {
    let column = this.nodes.get(node);
    if (!column && this.nodes.size < MAX_NODES) {
      column = new Float32Array(this.capacity).fill(NaN);
      this.nodes.set(node, column);
    }
    return column;
  }

  push(t, low, mean, high, nodes) {
    const i = this.head;
    this.t[i] = t;
    this.low[i] = low;
    this.mean[i] = mean;
    this.high[i] = high;
    for (const column of this.nodes.values()) column[i] = NaN;
    for (const [name, value] of nodes) {
      const column = this.column(name);
      if (column) column[i] = value;
    }
    this.head = (i + 1) % this.capacity;
    this.size = Math.min(this.size + 1, this.capacity);
  }

  /** Index in the arrays of the k-th oldest entry. */
  at(k) {
    return (this.head - this.size + k + 2 * this.capacity) % this.capacity;
  }

  /** How many entries are older than `t`. */
  before(t) {
    let low = 0;
    let high = this.size;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.t[this.at(middle)] < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  clear() {
    this.head = 0;
    this.size = 0;
  }
}

export class PowerMemory {
  constructor() {
    this.fine = new Ring(FINE);
    this.coarse = new Ring(COARSE);
    this.last = null;
    this.bucket = null;
  }

  get nodeNames() {
    return [...this.fine.nodes.keys()].sort();
  }

  /** Take one `LivePower` message. Messages that are not newer than the last are dropped: a resumed feed may repeat. */
  push(message) {
    const t = message.utc_ns / 1e9;
    if (this.last && t <= this.last.t) return false;
    let low = 0;
    let high = 0;
    const nodes = [];
    for (const [name, power] of Object.entries(message.nodes)) {
      low += power.min_w;
      high += power.max_w;
      nodes.push([name, power.mean_w]);
    }
    this.fine.push(t, low, message.cluster_w, high, nodes);
    this.#coarsen(t, low, message.cluster_w, high, nodes);
    this.last = { t, message };
    return true;
  }

  #coarsen(t, low, mean, high, nodes) {
    const second = Math.floor(t);
    if (this.bucket && this.bucket.second !== second) this.#flush();
    this.bucket ??= { second, n: 0, low: Infinity, sum: 0, high: -Infinity, nodes: new Map() };
    const bucket = this.bucket;
    bucket.n += 1;
    bucket.low = Math.min(bucket.low, low);
    bucket.sum += mean;
    bucket.high = Math.max(bucket.high, high);
    for (const [name, value] of nodes) bucket.nodes.set(name, (bucket.nodes.get(name) ?? 0) + value);
  }

  #flush() {
    const { second, n, low, sum, high, nodes } = this.bucket;
    const means = [...nodes].map(([name, total]) => [name, total / n]);
    this.coarse.push(second + 0.5, low, sum / n, high, means);
    this.bucket = null;
  }

  /** Forget everything, for example after the recent past was fetched again. */
  clear() {
    this.fine.clear();
    this.coarse.clear();
    this.last = null;
    this.bucket = null;
  }

  /**
   * Return [times, node 1, nodes 1+2, ..., low, high, mean] between two times in about `columns` columns: the nodes
   * stacked, then the cluster's envelope and mean. Times are relative to `origin`; null is a gap.
   */
  view(from, to, columns, origin, into) {
    const forgotten = this.fine.size === FINE && from < this.fine.t[this.fine.at(0)];
    const ring = forgotten ? this.coarse : this.fine;
    const names = this.nodeNames;
    const out = into ?? [];
    while (out.length < 4 + names.length) out.push([]);
    out.length = 4 + names.length;
    for (const column of out) column.length = 0;
    const width = (to - from) / columns;
    const first = ring.before(from);
    const last = ring.before(to + 1e-6);
    const perColumn = (last - first) / columns;
    const source = names.map((name) => ring.nodes.get(name));
    const sums = new Float64Array(names.length);
    let k = Math.max(0, first - 1);
    let previous = null;
    while (k < last) {
      const start = ring.t[ring.at(k)];
      // Buckets lie on a fixed raster of absolute time, or the drawn shape would shimmer while it moves.
      const end = perColumn > 1.5 ? (Math.floor(start / width) + 1) * width : start;
      let n = 0;
      let low = Infinity;
      let high = -Infinity;
      let mean = 0;
      let time = 0;
      sums.fill(0);
      do {
        const i = ring.at(k);
        low = Math.min(low, ring.low[i]);
        high = Math.max(high, ring.high[i]);
        mean += ring.mean[i];
        time += ring.t[i];
        for (let j = 0; j < source.length; j += 1) sums[j] += source[j]?.[i] || 0;
        n += 1;
        k += 1;
      } while (k < last && ring.t[ring.at(k)] < end);
      time /= n;
      if (previous !== null && time - previous > Math.max(GAP_S, 3 * width)) {
        out[0].push((time + previous) / 2 - origin);
        for (let j = 1; j < out.length; j += 1) out[j].push(null);
      }
      previous = time;
      out[0].push(time - origin);
      let stack = 0;
      for (let j = 0; j < sums.length; j += 1) {
        stack += sums[j] / n;
        out[1 + j].push(stack);
      }
      out[sums.length + 1].push(low);
      out[sums.length + 2].push(high);
      out[sums.length + 3].push(mean / n);
    }
    return out;
  }

  /** Energy in joules between two times by the trapezoid rule over what this page saw: a preview, not a result. */
  energy(from, to) {
    const ring = this.fine;
    let total = 0;
    for (let k = Math.max(1, ring.before(from)); k < ring.size; k += 1) {
      const a = ring.at(k - 1);
      const b = ring.at(k);
      if (ring.t[a] < from) continue;
      if (ring.t[b] > to) break;
      const dt = ring.t[b] - ring.t[a];
      if (dt <= GAP_S) total += (dt * (ring.mean[a] + ring.mean[b])) / 2;
    }
    return total;
  }
}
