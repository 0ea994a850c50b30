/** REST client of the orchestrator: the form token, the one error shape, time-outs. Not here: the WebSocket (live.js). */

let formToken = "";

/** An error as the API tells it: what happened, to what, what to do. */
export class ApiError extends Error {
  constructor(status, payload) {
    super(payload.message || `the orchestrator answered ${status}`);
    this.status = status;
    this.where = payload.where || "";
    this.hint = payload.hint || "";
    this.code = payload.code || "";
  }
}

/** The cookie opens the lab; that this page asks, and not another one in its name, this shows. */
export function setFormToken(token) {
  formToken = token;
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{ body?: unknown, secret?: string, timeoutMs?: number, raw?: boolean }} options
 */
async function request(method, path, { body, secret, timeoutMs = 15_000, raw = false } = {}) {
  const headers = { Accept: "application/json" };
  if (secret) headers.Authorization = `Bearer ${secret}`;
  if (method !== "GET" && formToken) headers["X-EPI-Form-Token"] = formToken;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      signal: AbortSignal.timeout(timeoutMs),
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(0, {
      code: "unreachable",
      message: late ? "the orchestrator did not answer in time" : "the orchestrator cannot be reached",
      where: path,
      hint: "is it running? `epi up` starts it",
    });
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(response.status, answer.error ?? {});
  }
  return raw ? response.blob() : response.json();
}

const part = encodeURIComponent;
const campaign = (id) => `/v1/campaigns/${part(id)}`;
const run = (id, configuration, repetition) => `${campaign(id)}/runs/${part(configuration)}/${repetition}`;

export const api = {
  health: () => request("GET", "/v1/health", { timeoutMs: 5000 }),
  signIn: (secret) => request("POST", "/v1/session", { secret }),
  session: () => request("GET", "/v1/session", { timeoutMs: 5000 }),
  signOut: () => request("DELETE", "/v1/session"),
  lab: () => request("GET", "/v1/lab"),
  campaigns: () => request("GET", "/v1/campaigns"),
  campaign: (id) => request("GET", campaign(id)),
  create: (spec) => request("POST", "/v1/campaigns", { body: spec }),
  ask: (id, what) => request("POST", `${campaign(id)}/${what}`),
  results: (id) => request("GET", `${campaign(id)}/results`),
  export: (id) => request("GET", `${campaign(id)}/export`, { raw: true, timeoutMs: 300_000 }),
  analysis: (id) => request("GET", `${campaign(id)}/analysis`, { timeoutMs: 60_000 }),
  offers: async (path) => path in (await request("GET", "/openapi.json")).paths,
  run: (id, configuration, repetition) => request("GET", run(id, configuration, repetition)),
  runPower: (id, configuration, repetition, query) =>
    request("GET", `${run(id, configuration, repetition)}/power?${new URLSearchParams(query)}`, { timeoutMs: 60_000 }),
  file: (id, configuration, repetition, kind) =>
    request("GET", `${run(id, configuration, repetition)}/files/${part(kind)}`, { raw: true, timeoutMs: 60_000 }),
  findNode: (node, by) => request("POST", `/v1/lab/nodes/${part(node)}/find`, { body: { by }, timeoutMs: 150_000 }),
  power: (seconds) => request("GET", `/v1/power?seconds=${Math.ceil(seconds)}`),
};
