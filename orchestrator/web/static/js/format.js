/** Numbers, times and names as people read them. Unknown is an en dash, never a zero. */

export const UNKNOWN = "–";
export const PERCENT = "\u202f%"; // a narrow space at which no line breaks

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Watts with a steady number of digits. */
export function watts(value) {
  if (!known(value)) return UNKNOWN;
  return Math.abs(value) >= 1000 ? value.toFixed(0) : Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(2);
}

/** A number with `digits` significant digits, without an exponent where it can be read without. */
export function significant(value, digits = 3) {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return value.toExponential(digits - 1).replace("e", " e");
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(decimals, 8));
}

export function percent(value, digits = 1) {
  return known(value) ? `${(100 * value).toFixed(digits)}${PERCENT}` : UNKNOWN;
}

/** A ratio to the baseline as a change: 0.93 -> "−7.0 %". */
export function change(ratio) {
  if (!known(ratio)) return UNKNOWN;
  const delta = 100 * (ratio - 1);
  const text = Math.abs(delta) >= 100 ? Math.abs(delta).toFixed(0) : Math.abs(delta).toFixed(1);
  return `${delta < 0 ? "−" : "+"}${text}${PERCENT}`;
}

export function joules(value) {
  if (!known(value)) return UNKNOWN;
  return Math.abs(value) >= 1e5 ? `${significant(value / 1000, 4)} kJ` : `${significant(value, 4)} J`;
}

/** Seconds as a length of time: "40 s", "12 min", "1 h 05 min", "3 d 4 h". */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** The age of something, short and steady. */
export function age(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  return duration(seconds);
}

const pad = (n) => String(n).padStart(2, "0");

/** UTC seconds -> "23:41", with the date when it is not today. */
export function clock(utcSeconds, withSeconds = false) {
  if (!known(utcSeconds)) return UNKNOWN;
  const date = new Date(utcSeconds * 1000);
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}${withSeconds ? `:${pad(date.getSeconds())}` : ""}`;
  const days = Math.round((new Date(date).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86_400_000);
  // Twenty minutes past midnight is "00:20", not "tomorrow".
  if (days === 0 || Math.abs(utcSeconds - Date.now() / 1000) < 12 * 3600) return time;
  if (days === 1) return `tomorrow ${time}`;
  return `${date.getDate()} ${date.toLocaleString("en", { month: "short" })} ${time}`;
}

export const seconds = (utcNs) => (utcNs === null || utcNs === undefined ? null : utcNs / 1e9);

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  return value >= 1e9 ? `${(value / 1e9).toFixed(1)} GB` : `${(value / 1e6).toFixed(0)} MB`;
}

export function count(n, one, many = `${one}s`) {
  return `${n} ${n === 1 ? one : many}`;
}

const GROUPS = { all: "all layers", early: "early layers", late: "late layers" };

/** A configuration in words: "Drop 3, late layers". Its id stands beside it where it matters. */
export function configurationName(configuration) {
  if (!configuration) return "";
  const { depth, group, layout, id } = configuration;
  if (id === "baseline_biased") return "Baseline, biased layout";
  if (depth === 0) return layout === "biased" ? "Baseline, biased layout" : id === "baseline" ? "Baseline" : id;
  return `Drop ${depth}, ${GROUPS[group] ?? group}`;
}

export const groupName = (group) => GROUPS[group] ?? group;

const STEPS = {
  prepare: "Preparing the model",
  observe: "Observing the experts",
  search: "Searching for the experts to keep",
  fetch_base: "Bringing the model to the root node",
  start_workers: "Starting the workers",
  plan: "Planning the surgery",
  apply: "Operating on the model",
  verify: "Proving what was done",
  validate: "Checking the model",
  deploy: "Deploying",
  start_engine: "Starting the engine",
  steady_state: "Waiting until all is steady",
  idle: "Measuring idle power",
  marker: "Marking the trace",
  prefill: "Measuring prefill",
  decode: "Measuring decode",
  score: "Scoring the benchmarks",
  evaluate: "Evaluating",
};

const WINDOWS = { idle: "Idle", marker: "Marker", prefill: "Prefill", decode: "Decode", score: "Score" };

/** A window's label in words. */
export const windowName = (label) => WINDOWS[label] ?? label;

/** A step in words. */
export function stepName(step) {
  if (!step) return "";
  return STEPS[step] ?? step.replaceAll("_", " ");
}
