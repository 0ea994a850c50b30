/** What results say, in words: one line for a mark, one sentence for the curve, and which results lie on the front. */

import { change, configurationName, count, percent, significant } from "./format.js";
import { comparison, isOver } from "./states.js";

/** A result's figures in one line of words. */
export function describe(r) {
  return [
    configurationName(r.configuration),
    r.epi === null ? "" : `EPI ${significant(r.epi, 4)}`,
    r.epi_ratio === null || r.configuration.depth === 0 ? "" : `${change(r.epi_ratio)} against its baseline${interval(r)}`,
    `${significant(r.joules_per_token, 3)} J per token`,
    `accuracy ${percent(r.accuracy_composite)}`,
    r.configuration.depth > 0 ? comparison(r)?.word : "",
  ].filter(Boolean).join(", ");
}

/** The interval of the ratio, in brackets, or nothing. */
function interval(r) {
  return typeof r.epi_ratio_low === "number" && typeof r.epi_ratio_high === "number" ? ` (${change(r.epi_ratio_low)} to ${change(r.epi_ratio_high)})` : "";
}

/** What the curve says, in one sentence; where intervals hold the baseline nothing is ranked. */
export function summary(campaign, results) {
  const variants = results.filter((r) => r.configuration.depth > 0 && typeof r.epi_ratio === "number");
  const so = isOver(campaign.state) ? "" : " so far";
  const barred = results.filter((r) => r.configuration.depth > 0 && typeof r.epi_ratio !== "number");
  if (variants.length === 0 && barred.length) return `Nothing can be compared${so}: ${configurationName(barred[0].configuration)} ${barred[0].reason || "has no EPI"}.`;
  if (variants.length === 0) return results.length ? `Only the baseline is measured${so}.` : "No result yet.";
  const judged = variants.filter((r) => typeof r.epi_ratio_low === "number" && typeof r.epi_ratio_high === "number");
  if (judged.length === 0) {
    const why = campaign.spec.repetitions === 1 ? "one repetition gives no interval" : "intervals need a second repetition";
    return `${count(variants.length, "configuration")} measured${so}; ${why}, so nothing is ranked.`;
  }
  const lower = judged.filter((r) => r.verdict === "better").sort((a, b) => a.epi_ratio - b.epi_ratio);
  const higher = judged.filter((r) => r.verdict === "worse");
  const same = judged.length - lower.length - higher.length;
  const of = `${same} of ${judged.length} not distinguishable`;
  if (lower.length) return `Lowest EPI${so}: ${configurationName(lower[0].configuration)}, ${change(lower[0].epi_ratio)}${interval(lower[0])}. ${of}.`;
  if (higher.length) return `No configuration has a lower EPI than its baseline${so}; ${higher.length} higher, ${of}.`;
  return `No significant difference${so}: ${of} from their baseline.`;
}

/** Ids of results that no other beats in both energy and accuracy. */
export function paretoFront(results) {
  const known = results.filter((r) => typeof r.joules_per_token === "number" && typeof r.accuracy_composite === "number");
  const beats = (a, b) => a.joules_per_token <= b.joules_per_token && a.accuracy_composite >= b.accuracy_composite && (a.joules_per_token < b.joules_per_token || a.accuracy_composite > b.accuracy_composite);
  return new Set(known.filter((r) => !known.some((other) => beats(other, r))).map((r) => r.configuration.id));
}
