/** Lab: one card for each agent; a card stays while its agent does, so that what was opened stays open. */

import { api } from "../api.js";
import { pill } from "../components.js";
import { h, replaceWhen, setText, show } from "../dom.js";
import { bytes } from "../format.js";
import { icon } from "../icons.js";
import { throttling } from "../problems.js";
import { nodeMarks } from "./node_marks.js";
import { facts } from "./run_cards.js";

const SERVICES = { node_agent: ["Node", "node"], scorer: ["Scorer", "server"], surgeon: ["Surgeon", "surgeon"], meter_bridge: ["Meter bridge", "meter"], orchestrator: ["Orchestrator", "server"] };
const WAYS = { led: ["Blink LED", "bulb", "Its LED blinks for ten seconds."], channel: ["Find channel", "meter", "A load is switched on and off on it; the meter is watched."] };

/** Build the list; `update(agents)` keeps the cards of those that stay. */
export function agentList() {
  const node = h("div", { cls: "agents" });
  const cards = new Map();
  node.update = (agents) => {
    for (const { name, service } of agents) if (!cards.has(name)) cards.set(name, agentCard(name, service));
    replaceWhen(node, agents.map((agent) => agent.name).join(), () => agents.map((agent) => cards.get(agent.name).node));
    for (const agent of agents) cards.get(agent.name).update(agent);
  };
  return node;
}

/** @param {{ error?: any, health?: any, facts?: any }} agent */
function stateOf({ error, health, facts: f }) {
  if (error) return { word: "Not reachable", icon: "unlink", tone: "bad" };
  if (health?.status === "failing") return { word: "Failing", icon: "warn", tone: "bad" };
  if (health?.status === "degraded") return { word: "In trouble", icon: "warn", tone: "warn" };
  if (throttling(f?.throttled_bits)?.now.length) return { word: "Slowed down", icon: "warn", tone: "warn" };
  return { word: "Answering", icon: "check", tone: "good" };
}

function agentCard(name, service) {
  const [word, iconName] = SERVICES[service] ?? [service, "server"];
  const state = pill(stateOf({}));
  const failure = h("p", { cls: "muted" });
  const marks = h("div", { cls: "agent__marks" });
  const more = h("div", {});
  const identify = service === "node_agent" ? identifyTools(name) : null;
  const node = h("article", { cls: "agent", "aria-label": name },
    h("header", { cls: "agent__head" }, icon(iconName), h("div", { cls: "grow" }, h("h3", { text: name }), h("p", { cls: "muted", text: word })), state),
    failure, marks, identify, h("details", { cls: "more" }, h("summary", { text: "Details" }), more));
  const update = (agent) => {
    const f = agent.facts;
    state.update(stateOf(agent));
    setText(failure, agent.error ? [agent.error.message, agent.error.hint].filter(Boolean).join("; ") : "");
    show(failure, Boolean(agent.error));
    if (identify) show(identify, !agent.error);
    replaceWhen(marks, JSON.stringify([f?.temperature_c, f?.governor, f?.throttled_bits, agent.health?.version, agent.url, !f]), () =>
      (f ? nodeMarks(f) : h("span", { cls: "quiet" }, agent.health ? `version ${agent.health.version}` : agent.url)));
    replaceWhen(more, JSON.stringify([f, agent.health?.version]), () => facts(details(agent)));
  };
  return { node, update };
}

function details(agent) {
  const f = agent.facts;
  const throttled = throttling(f?.throttled_bits);
  return [
    ["Board", f?.board ?? f?.cpu_model], ["CPU clock", typeof f?.cpu_mhz === "number" ? `${f.cpu_mhz.toFixed(0)} MHz` : null],
    ["Throttling", throttled === null ? null : throttled.now.length ? throttled.now.join(", ") : throttled.before ? "none now, some since boot" : "none"],
    ["Clock offset", f ? (typeof f.clock_offset_s === "number" ? `${(1000 * f.clock_offset_s).toFixed(2)} ms` : "not readable here") : null],
    ["Memory", f ? bytes(f.memory_bytes) : null], ["Storage free", f ? bytes(f.disk_free_bytes) : null], ["Load", f ? f.load_1min.toFixed(2) : null],
    ["Kernel", f?.kernel], ["Engine", f?.engine_build], ["Version", agent.health?.version], ["Release", agent.health?.build?.release], ["Code", agent.health?.build?.code_sha256.slice(0, 12)], ["Packages", agent.health?.build?.packages_sha256.slice(0, 12)], ["Address", agent.url],
  ];
}

/** Buttons by which a node makes itself known, and what came of it. */
function identifyTools(name) {
  const said = h("p", { cls: "muted", role: "status", hidden: true });
  const tell = (text) => {
    setText(said, text);
    show(said, text !== "");
  };
  let busy = false;
  async function ask(by) {
    if (busy) return;
    busy = true;
    tell(WAYS[by][2]);
    try {
      tell((await api.findNode(name, by)).sentence);
    } catch (error) {
      tell([error.message, error.hint].filter(Boolean).join("; "));
    }
    busy = false;
  }
  const buttons = Object.entries(WAYS).map(([by, [word, iconName]]) =>
    h("button", { cls: "button", type: "button", "aria-label": `${word} of ${name}`, onclick: () => ask(by) }, icon(iconName), word));
  return h("div", { cls: "agent__identify" }, h("div", { cls: "row" }, buttons), said);
}
