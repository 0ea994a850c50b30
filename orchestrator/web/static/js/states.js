/** Every state with its word, its icon and its tone: the one table behind all pills, cells and the status strip. */

export const CAMPAIGN_STATES = {
  created: { word: "Waiting to start", icon: "clock", tone: "calm" },
  running: { word: "Running", icon: "play", tone: "live" },
  paused: { word: "Paused", icon: "pause", tone: "warn" },
  finished: { word: "Finished", icon: "ok", tone: "good" },
  failed: { word: "Stopped by a failure", icon: "bad", tone: "bad" },
  cancelled: { word: "Cancelled", icon: "stop", tone: "calm" },
};

export const REQUESTS = {
  none: "",
  pause: "Pausing after this run",
  cancel: "Cancelling after this run",
};

export const RUN_STATES = {
  pending: { word: "Waiting", icon: "pending", tone: "calm" },
  running: { word: "Running", icon: "play", tone: "live" },
  done: { word: "Done", icon: "check", tone: "good" },
  failed: { word: "Failed", icon: "cross", tone: "bad" },
};

export const OUTCOMES = {
  done: { word: "Done", icon: "check", tone: "good" },
  failed: { word: "Failed", icon: "cross", tone: "bad" },
  interrupted: { word: "Interrupted", icon: "warn", tone: "warn" },
};

export const VALIDITY = {
  PASS: { word: "Valid", icon: "check", tone: "good" },
  FLAG: { word: "Valid, with notes", icon: "flag", tone: "warn" },
  FAIL: { word: "Not valid", icon: "cross", tone: "bad" },
};

export const CONNECTION = {
  connecting: { word: "Connecting", icon: "clock", tone: "calm" },
  live: { word: "Live", icon: "link", tone: "good" },
  lost: { word: "Not connected", icon: "unlink", tone: "bad" },
};

const VERDICTS = {
  better: { word: "Lower than the baseline", icon: "lower", tone: "good" },
  worse: { word: "Higher than the baseline", icon: "higher", tone: "bad" },
  "not distinguishable": { word: "Not distinguishable", icon: "similar", tone: "calm" },
  unknown: { word: "No interval yet", icon: "clock", tone: "calm" },
};

/** The API's verdict on a ratio to the baseline; it corrects for many comparisons, so intervals alone do not decide. */
export function comparison(result) {
  if (!result || typeof result.epi_ratio !== "number") return null;
  return VERDICTS[result.verdict] ?? VERDICTS.unknown;
}

export const isOver = (state) => state === "finished" || state === "failed" || state === "cancelled";
