/** Lab: the instrument, how well it speaks, and the calibration it is read with. */

import { pill } from "../components.js";
import { h } from "../dom.js";
import { age, clock, seconds } from "../format.js";
import { calibrationAge } from "../problems.js";
import { facts } from "./run_cards.js";

const FAULTS = [["gaps", "gap"], ["reconnects", "reconnect"], ["malformed", "malformed line"], ["duplicates", "duplicate"], ["resets", "restart"]];

/** What stands in the meter's card. */
export function meterFacts(model) {
  const { meter } = model.lab;
  if (!meter) return [h("p", { cls: "muted", text: "The meter bridge does not answer." })];
  const i = meter.instrument;
  const counts = FAULTS.filter(([name]) => meter[name] > 0).map(([name, word]) => `${meter[name]} ${word}${meter[name] === 1 ? "" : "s"}`);
  return [
    h("div", { cls: "row" }, pill(meter.connected ? { word: "Connected", icon: "check", tone: "good" } : { word: "Not connected", icon: "unlink", tone: "bad" })),
    facts([
      ["Instrument", i.name], ["Measures at", i.measurement_point],
      ["Last sample", Number.isFinite(model.sampleAge()) ? `${age(Math.round(model.sampleAge()))} ago` : meter.last_sample_utc_ns ? clock(seconds(meter.last_sample_utc_ns), true) : "none yet"],
      ["Rate", i.sample_rate_hz === null ? null : `${i.sample_rate_hz} Hz`], ["Channels", meter.nodes.join(", ")], ["Firmware", i.firmware],
      ...calibration(model),
      ["Uncertainty, 1 σ", i.relative_uncertainty === null ? "unknown" : `${(100 * i.relative_uncertainty).toFixed(1)} %`],
      ["Room", room(meter.ambient)], ["Clock drift", meter.clock ? `${meter.clock.drift_ppm.toFixed(1)} ppm` : null],
      ["Frames", meter.frames.toLocaleString("en")], ["Faults", counts.join(", ") || "none"], ["Storing", meter.storing ? "yes" : "no"],
    ]),
  ];
}

function room(ambient) {
  if (!ambient) return null;
  const { temperature_c: celsius, humidity_percent: humidity } = ambient;
  return [typeof celsius === "number" ? `${celsius.toFixed(1)} °C` : "", typeof humidity === "number" ? `${humidity.toFixed(0)} % humidity` : ""].filter(Boolean).join(", ");
}

function calibration(model) {
  const { emulated, calibration_id: id, calibrated_utc_ns: made } = model.lab.meter.instrument;
  if (id === null || id === undefined) return [["Calibration", emulated ? "not needed: emulated" : "none"]];
  return [["Calibration", id], ["Calibrated", made ? `${calibrationAge(model)} ago` : "date unknown"]];
}
