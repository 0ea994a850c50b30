/** From a run's `PowerView` to the columns of the chart. Not here: fetching and drawing it. */

/** UTC nanoseconds, as the API takes them, of UTC seconds: a number cannot hold them all. */
export const nanoseconds = (seconds) => `${Math.round(seconds * 1e6)}000`;

/** Return [times, node 1, nodes 1+2, ..., low, high, sum] as `PowerMemory.view` does; null is a gap. */
export function traceColumns({ nodes, utc_s: times, mean_w: means, cluster_low_w: low, cluster_high_w: high }) {
  const stacked = [];
  let below = times.map(() => 0);
  for (const node of nodes) {
    below = means[node].map((watts, k) => (watts === null ? null : watts + below[k]));
    stacked.push(below);
  }
  return [times, ...stacked, low, high, below];
}
