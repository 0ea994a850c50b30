/** What is wrong in the lab and what to do about it, from what the agents and the meter say of themselves. */

import { age, bytes, count, seconds } from "./format.js";

/** @type {[number, string][]} */
const NOW_BITS = [
  [1 << 0, "under-voltage"],
  [1 << 1, "frequency capped"],
  [1 << 2, "throttled"],
  [1 << 3, "at the soft temperature limit"],
];
const SINCE_BOOT = 0xf0000;
const STALE_SAMPLE_S = 3;
const DAY_S = 86_400;
const OLD_CALIBRATION_S = 365 * DAY_S; // the validity rule's year; a month before it is time to plan
const SOON_OLD_S = 335 * DAY_S;
const LITTLE_DISK_BYTES = 1e9;
const LARGE_OFFSET_S = 0.05;

/** Words for `vcgencmd get_throttled`, or null when the node cannot tell. */
export function throttling(bits) {
  if (bits === null || bits === undefined) return null;
  const now = NOW_BITS.filter(([bit]) => bits & bit).map(([, word]) => word);
  return { now, before: (bits & SINCE_BOOT) !== 0 };
}

/** What a daemon says of itself in `GET /v1/health`. */
function ofHealth(name, health) {
  const failing = health?.status === "failing";
  return (health?.problems ?? []).map((what) => ({
    tone: failing ? "bad" : "warn", title: failing ? `${name} cannot do its work` : `${name} reports a problem`, what, todo: "", where: name,
  }));
}

function ofAgent(agent) {
  const found = [];
  const where = agent.name;
  if (agent.error) {
    found.push({
      tone: "bad",
      title: `${agent.name} does not answer`,
      what: agent.error.message,
      todo: agent.error.hint || "Check its power and its network, then its service.",
      where,
    });
  }
  if (agent.service !== "meter_bridge") found.push(...ofHealth(agent.name, agent.health)); // the meter's: see ofMeter
  const throttled = throttling(agent.facts?.throttled_bits);
  if (throttled?.now.length) {
    found.push({
      tone: "bad",
      title: `${agent.name} is slowed down`,
      what: throttled.now.join(", "),
      todo: "Check the power supply and the cooling; runs measured meanwhile are not valid.",
      where,
    });
  }
  if (agent.facts && agent.facts.disk_free_bytes < LITTLE_DISK_BYTES) {
    found.push({
      tone: "warn", title: `${agent.name} has little storage left`, what: `${bytes(agent.facts.disk_free_bytes)} free.`,
      todo: "Remove what nobody needs: `epi campaign list`, then its artifacts.", where,
    });
  }
  if (Math.abs(agent.facts?.clock_offset_s ?? 0) > LARGE_OFFSET_S) {
    found.push({
      tone: "warn", title: `The clock of ${agent.name} is off`, what: `By ${(1000 * agent.facts.clock_offset_s).toFixed(0)} ms.`,
      todo: "Check chrony on it: `chronyc tracking`.", where,
    });
  }
  const governor = agent.facts?.governor;
  if (governor && governor !== "performance") {
    found.push({
      tone: "warn",
      title: `${agent.name} uses the governor ${governor}`,
      what: "The clock may change inside a window.",
      todo: "Set the governor to performance.",
      where,
    });
  }
  return found;
}

function ofMeter(model) {
  const meter = model.lab?.meter;
  if (!model.lab) return [];
  if (!meter) {
    return [{
      tone: "bad", title: "The meter bridge does not answer", what: "No power is being measured.",
      todo: "Check the service meter_bridge.", where: "meter",
    }];
  }
  if (!meter.connected) {
    return [{
      tone: "bad", title: "The meter is not connected", what: "No power is being measured.",
      todo: "Check the USB cable of the meter; the bridge reconnects by itself.", where: "meter",
    }];
  }
  const found = [...ofCalibration(model, meter), ...meter.problems.map((what) => ({ tone: "warn", title: "The meter reports a problem", what, todo: "", where: "meter" }))];
  if (!meter.storing) {
    found.push({ tone: "bad", title: "The trace is not being stored", what: "", todo: "Check the disk of the meter bridge.", where: "meter" });
  }
  const old = Math.min(model.sampleAge(), model.now() - (seconds(meter.last_sample_utc_ns) ?? -Infinity));
  if (model.connection === "live" && old > STALE_SAMPLE_S && !model.lab.cached) {
    found.push({
      tone: "bad", title: "The meter is silent", what: `Last sample ${age(old)} ago.`,
      todo: "Check the meter; a window that is open now will not be valid.", where: "meter",
    });
  }
  return found;
}

/** Seconds since the calibration in force was made, or null without one. */
function calibratedFor(model) {
  const made = seconds(model.lab?.meter?.instrument.calibrated_utc_ns);
  return made === null ? null : model.now() - made;
}

/** The age of the calibration in force in words. */
export const calibrationAge = (model) => count(Math.floor(calibratedFor(model) / DAY_S), "day");

function ofCalibration(model, meter) {
  const old = calibratedFor(model);
  const where = "meter";
  if (old === null) {
    if (meter.instrument.kind !== "ac_meter" || meter.instrument.calibration_id) return [];
    return [{
      tone: "warn", title: "The meter is not calibrated", what: "Its watts may be wrong by 5 to 15 % per node.",
      todo: "Calibrate it with at least four known loads: `epi meter calibrate`.", where,
    }];
  }
  if (old < SOON_OLD_S || old > OLD_CALIBRATION_S) return []; // an older one the meter bridge reports by itself
  return [{
    tone: "warn", title: "The calibration is almost a year old", what: `Made ${calibrationAge(model)} ago; after a year every run carries a flag.`,
    todo: "Make a new one: `epi meter calibrate`; old runs can be read again with it.", where,
  }];
}

/** Machines of one lab that run different versions. */
function ofVersions(agents) {
  const versions = new Map();
  for (const { name, health } of agents) if (health) versions.set(health.version, [...(versions.get(health.version) ?? []), name]);
  if (versions.size < 2) return [];
  return [{
    tone: "warn", title: "Not all machines run the same version", what: [...versions].map(([version, names]) => `${version}: ${names.join(", ")}`).join("; "),
    todo: "Install one version everywhere.", where: "versions",
  }];
}

/** All problems, worst first. */
export function problems(model) {
  const found = [];
  if (model.connection === "lost") {
    found.push({
      tone: "bad", title: "The orchestrator does not answer", what: "The page shows what it last knew and keeps trying.",
      todo: "If it stays away: `epi up` starts it, `epi campaign resume` goes on.", where: "orchestrator",
    });
  }
  if (model.campaign?.state === "failed") {
    found.push({
      tone: "bad", title: "The campaign stopped", what: model.campaign.reason || "It failed.",
      todo: "When the cause is gone, press Resume in the Campaign view: finished runs are kept.", where: "campaign",
    });
  }
  found.push(...ofHealth("orchestrator", model.lab?.health));
  for (const agent of model.lab?.agents ?? []) found.push(...ofAgent(agent));
  found.push(...ofVersions(model.lab?.agents ?? []));
  found.push(...ofMeter(model));
  return found.sort((a, b) => (a.tone === b.tone ? 0 : a.tone === "bad" ? -1 : 1));
}
