/**
 * What the page knows: the lab, the campaign in focus, its results, the live trace. It asks the API and tells the views
 * what changed; it draws nothing.
 *
 * Topics: auth, connection, power, progress, lab, campaigns, campaign, results, analysis, windows, tick.
 */

import { api, ApiError } from "./api.js";
import { LiveFeed } from "./live.js";
import { seconds } from "./format.js";
import { Rate } from "./rate.js";
import { PowerMemory } from "./ring.js";
import { formatRun, parseRun } from "./run_reference.js";
import { Session } from "./session.js";
import { isOver } from "./states.js";
import { Windows } from "./windows.js";

const PAST_S = 600;
const MAX_RECENT_RUNS = 6;
const MAX_WAITING = 300;
const LAB_EVERY_MS = 10_000;

export class Model {
  constructor() {
    this.listeners = new Map();
    this.power = new PowerMemory();
    this.connection = "connecting";
    this.needsToken = false;
    this.lab = null;
    this.campaigns = null;
    this.campaign = null;
    this.results = [];
    this.analysis = null;
    this.offersAnalysis = null;
    this.progress = null;
    this.rate = new Rate(this.power);
    this.windows = new Windows();
    this.error = null;
    this.chosen = null; // a campaign that the user picked; null follows the newest that is not over
    this.clockOffset = 0; // server minus browser, seconds
    this.heardPower = -Infinity;
    this.pending = new Set();
    this.waiting = null; // power messages that came while the past is being fetched
    this.session = new Session();
    this.feed = new LiveFeed(this.session, {
      message: (message) => this.#receive(message),
      state: (state) => this.#set("connection", state),
      open: () => this.#opened(),
      unauthorized: () => this.#signedOut(),
    });
  }

  on(topics, listener) {
    for (const topic of topics) {
      if (!this.listeners.has(topic)) this.listeners.set(topic, new Set());
      this.listeners.get(topic).add(listener);
    }
    return () => topics.forEach((topic) => this.listeners.get(topic).delete(listener));
  }

  tell(topic) {
    for (const listener of this.listeners.get(topic) ?? []) listener(topic);
  }

  #set(name, value) {
    if (this[name] === value) return;
    this[name] = value;
    this.tell(name);
  }

  /** The server's time now in UTC seconds. */
  now() {
    return Date.now() / 1000 + this.clockOffset;
  }

  /** Seconds since the last power message arrived; Infinity before the first. */
  sampleAge() {
    return (performance.now() - this.heardPower) / 1000;
  }

  get emulated() {
    return this.power.last?.message.emulated ?? this.lab?.emulated ?? this.campaign?.emulated ?? false;
  }

  async start() {
    const begin = () => this.session.begin().then(() => this.#enter());
    window.addEventListener("epi-secret", begin);
    await begin();
    setInterval(() => this.refreshLab(), LAB_EVERY_MS);
  }

  /** Sign in with what somebody typed; false when it does not open the lab. */
  async signIn(secret) {
    const isIn = await this.session.signIn(secret);
    if (isIn) this.#enter();
    return isIn;
  }

  async signOut() {
    this.feed.stop();
    await this.session.signOut();
    this.#signedOut();
  }

  #enter() {
    this.needsToken = false;
    this.tell("auth");
    this.feed.stop();
    this.feed.start();
  }

  #signedOut() {
    this.needsToken = true;
    this.tell("auth");
  }

  async #opened() {
    this.waiting = [];
    await this.#guard(async () => {
      const before = Date.now();
      const health = await api.health();
      this.clockOffset = health.utc_ns / 1e9 - (before + Date.now()) / 2000;
    });
    await Promise.all([this.#fillTrace(), this.refreshLab(), this.refreshCampaigns()]);
  }

  /** Run a refresh; a 401 asks to sign in, anything else is shown as the page's error. */
  async #guard(work) {
    try {
      await work();
      this.#set("error", null);
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) {
        this.feed.stop();
        this.#signedOut();
      } else this.#set("error", error);
      return false;
    }
  }

  /** Fetch what was missed while the feed was away; what comes in meanwhile waits, so that the order is kept. */
  async #fillTrace() {
    const missing = Math.min(PAST_S, this.now() - (this.power.last?.t ?? -Infinity) + 2);
    await this.#guard(async () => {
      for (const message of await api.power(missing)) this.power.push(message);
    });
    for (const message of this.waiting ?? []) this.power.push(message);
    this.waiting = null;
    this.tell("power");
  }

  async refreshLab() {
    if (this.needsToken || this.pending.has("lab")) return;
    this.pending.add("lab");
    await this.#guard(async () => this.#set("lab", await api.lab()));
    this.pending.delete("lab");
  }

  async refreshCampaigns() {
    await this.#guard(async () => {
      const list = await api.campaigns();
      // The list is told last: "no campaign" is shown only when it is known that there is none.
      await this.refreshCampaign(list);
      this.#set("campaigns", list);
    });
  }

  /** Show another campaign; null follows the one that runs. */
  async choose(id) {
    this.chosen = id;
    await this.#guard(() => this.refreshCampaign());
  }

  async refreshCampaign(list = this.campaigns ?? []) {
    const shown = list.filter((one) => one.readable !== false);
    const id = (this.chosen ?? shown.find((one) => !isOver(one.state))?.id ?? shown[0]?.id) || null;
    if (id === null) {
      this.#set("campaign", null);
      this.#set("results", []);
      return;
    }
    const campaign = await api.campaign(id);
    const other = this.campaign?.id !== campaign.id;
    if (other) {
      this.windows.clear();
      this.rate.clear();
    }
    // Results are estimated anew by the orchestrator each time: ask only when a run has been added.
    const grown = other || this.campaign.runs_done !== campaign.runs_done;
    const results = grown ? await api.results(id) : this.results;
    if (this.progress && (this.progress.campaign !== id || campaign.state !== "running")) this.progress = null;
    this.#set("campaign", campaign);
    this.#set("results", results);
    if (grown) this.#set("analysis", null);
    if (other && this.progress) this.#progressed(this.progress);
    if (other) this.#guard(() => this.#recentWindows(campaign));
  }

  /** The windows of the runs that ended while the trace in memory was recorded: a page opened now knows them too. */
  async #recentWindows(campaign) {
    const since = this.now() - PAST_S;
    const recent = campaign.runs.filter((run) => run.state === "done" && seconds(run.attempts.at(-1)?.ended_utc_ns) > since);
    for (const run of recent.slice(-MAX_RECENT_RUNS)) await this.#exactWindows(run);
  }

  /** What the campaign says as a whole; asked only when somebody looks. Null where the orchestrator does not offer it. */
  async loadAnalysis() {
    this.offersAnalysis ??= await api.offers("/v1/campaigns/{campaign_id}/analysis");
    if (!this.offersAnalysis || !this.campaign || this.analysis) return;
    const { id } = this.campaign;
    const analysis = await api.analysis(id);
    if (this.campaign?.id === id) this.#set("analysis", analysis);
  }

  /** A run's windows as its result has them replace those that were guessed from its progress. */
  async #exactWindows(run) {
    const detail = await api.run(this.campaign.id, run.configuration, run.repetition);
    if (detail.windows.length === 0) return;
    this.windows.replace(formatRun(run), detail.windows);
    this.tell("windows");
  }

  async ask(what) {
    const status = await api.ask(this.campaign.id, what);
    this.#set("campaign", status);
    this.#later("campaigns", () => this.refreshCampaigns());
    return status;
  }

  /** Start a campaign from a spec and show it. */
  async create(spec) {
    const status = await api.create(spec);
    this.chosen = null;
    await this.refreshCampaigns();
    return status;
  }

  #receive(message) {
    if (message.type === "power") {
      this.heardPower = performance.now();
      if (this.waiting) {
        this.waiting.push(message.power);
        if (this.waiting.length > MAX_WAITING) this.waiting.shift();
      } else if (this.power.push(message.power)) this.tell("power");
    } else if (message.type === "progress") this.#progressed(message.progress);
    else if (message.type === "entry") this.#entered(message.entry);
  }

  #progressed(progress) {
    if (this.campaign && progress.campaign !== this.campaign.id) return;
    this.progress = progress;
    this.rate.take(progress);
    if (this.windows.progressed(progress, this.now())) this.tell("windows");
    this.tell("progress");
  }

  #entered(entry) {
    if (entry.kind === "result" && entry.step === "evaluate" && entry.campaign === this.campaign?.id) {
      setTimeout(() => this.#guard(() => this.#exactWindows(parseRun(entry.run))), 1500);
    }
    if (this.windows.called(entry)) this.tell("windows");
    // Inside a run only its begin and its end matter here; the steps come with the progress.
    if (["state", "attempt", "failure"].includes(entry.kind) || (entry.kind === "result" && entry.step === "evaluate")) {
      const all = entry.kind === "state" || !this.campaigns?.some((one) => one.id === entry.campaign);
      this.#later("campaigns", () => (all ? this.refreshCampaigns() : this.#guard(() => this.refreshCampaign())));
    }
  }

  /** Entries come in bursts: ask once for all of them. */
  #later(name, work) {
    if (this.pending.has(name)) return;
    this.pending.add(name);
    setTimeout(async () => {
      this.pending.delete(name);
      await work();
    }, 400);
  }
}
