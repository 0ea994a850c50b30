/** Lab: what is wrong and what to do, every agent, the meter, this display. */

import { card, emulatedBadge, pill, segments } from "../components.js";
import { h, replaceWhen, setText, show } from "../dom.js";
import { age, bytes, clock, seconds } from "../format.js";
import { icon } from "../icons.js";
import { problems, throttling } from "../problems.js";
import { chooseTheme, themeChoice } from "../theme.js";
import { nodeMarks } from "./node_marks.js";
import { facts } from "./run_cards.js";

const ICONS = { node_agent: "node", surgeon: "surgeon", meter_bridge: "meter", orchestrator: "server" };
const SERVICES = { node_agent: "Node", surgeon: "Surgeon", meter_bridge: "Meter bridge", orchestrator: "Orchestrator" };

export function labView(model) {
  const head = h("div", { cls: "problems", role: "status" });
  const ageNote = h("span", { cls: "muted" });
  const badge = emulatedBadge();
  const agents = h("div", { cls: "agents" });
  const meter = h("div", {});
  const meterCard = card("Meter", { aside: badge, cls: "card--meter" }, meter);
  const display = card("This display", { cls: "card--display" },
    h("div", { cls: "row" }, segments("Theme", [["dark", "Dark"], ["light", "Light"], ["system", "As the system"]], themeChoice(), chooseTheme)));
  const node = h("div", { cls: "view lab" }, card("Health", { aside: ageNote, cls: "card--health" }, head), card("Machines", { cls: "card--machines" }, agents), h("div", { cls: "lab__side" }, meterCard, display));

  function update() {
    const found = problems(model);
    replaceWhen(head, JSON.stringify([model.lab === null, found.map(({ title, todo, tone }) => [title, todo, tone])]), () => {
      if (!model.lab) return [h("p", { cls: "muted", text: "Asking the lab." })];
      if (found.length === 0) return [h("div", { cls: "notice tone-good" }, icon("ok"), h("div", { cls: "notice__text" }, h("strong", { text: "Everything answers, nothing is wrong." })))];
      return found.map((one) => h("div", { cls: `notice tone-${one.tone}` }, icon(one.tone === "bad" ? "bad" : "warn"), h("div", { cls: "notice__text" }, h("strong", { text: one.title }), one.what ? h("span", { text: one.what }) : null, one.todo ? h("span", { cls: "muted", text: one.todo }) : null)));
    });
    const { lab } = model;
    if (!lab) return;
    setText(ageNote, `Asked ${age(Math.max(0, model.now() - seconds(lab.utc_ns)))} ago${lab.cached ? "; not again while a window is open" : ""}`);
    replaceWhen(agents, JSON.stringify(lab.agents), () => lab.agents.map(agentCard));
    show(badge, lab.emulated);
    replaceWhen(meter, JSON.stringify([lab.meter, Math.round(model.sampleAge())]), () => meterFacts(model));
  }

  const stop = model.on(["lab", "campaign", "connection", "tick"], update);
  update();
  model.refreshLab();
  return { node, close: stop };
}

function agentCard(agent) {
  const f = agent.facts;
  const throttled = throttling(f?.throttled_bits);
  const state = agent.error ? { word: "Not reachable", icon: "unlink", tone: "bad" }
    : agent.health && !agent.health.ok ? { word: "In trouble", icon: "warn", tone: "warn" }
    : throttled?.now.length ? { word: "Slowed down", icon: "warn", tone: "warn" }
    : { word: "Answering", icon: "check", tone: "good" };
  return h("article", { cls: "agent", "aria-label": agent.name },
    h("header", { cls: "agent__head" }, icon(ICONS[agent.service] ?? "server"), h("div", { cls: "grow" }, h("h3", { text: agent.name }), h("p", { cls: "muted", text: SERVICES[agent.service] ?? agent.service })), pill(state)),
    agent.error ? h("p", { cls: "muted", text: `${agent.error.message}${agent.error.hint ? `; ${agent.error.hint}` : ""}` }) : null,
    h("div", { cls: "agent__marks" }, f ? nodeMarks(f) : h("span", { cls: "quiet" }, agent.health ? `version ${agent.health.version}` : agent.url)),
    h("details", { cls: "agent__more" }, h("summary", { text: "Details" }), facts([
      ["Board", f?.board ?? f?.cpu_model], ["Clock", typeof f?.cpu_mhz === "number" ? `${f.cpu_mhz.toFixed(0)} MHz` : null],
      ["Throttling", throttled === null ? null : throttled.now.length ? throttled.now.join(", ") : throttled.before ? "none now, some since boot" : "none"],
      ["Clock offset", typeof f?.clock_offset_s === "number" ? `${(1000 * f.clock_offset_s).toFixed(2)} ms` : null],
      ["Memory", f ? bytes(f.memory_bytes) : null], ["Disk free", f ? bytes(f.disk_free_bytes) : null], ["Load", f ? f.load_1min.toFixed(2) : null],
      ["Kernel", f?.kernel], ["Engine", f?.engine_build], ["Version", agent.health?.version], ["Address", agent.url],
    ])));
}

function meterFacts(model) {
  const { meter } = model.lab;
  if (!meter) return [h("p", { cls: "muted", text: "The meter bridge does not answer." })];
  const i = meter.instrument;
  const counts = [["gap", meter.gaps], ["reconnect", meter.reconnects], ["malformed line", meter.malformed], ["duplicate", meter.duplicates], ["restart", meter.resets]]
    .filter(([, n]) => n > 0).map(([word, n]) => `${n} ${word}${n === 1 ? "" : "s"}`);
  return [
    h("div", { cls: "row" }, pill(meter.connected ? { word: "Connected", icon: "check", tone: "good" } : { word: "Not connected", icon: "unlink", tone: "bad" })),
    facts([
      ["Instrument", i.name], ["Measures at", i.measurement_point], ["Last sample", Number.isFinite(model.sampleAge()) ? `${age(Math.round(model.sampleAge()))} ago` : meter.last_sample_utc_ns ? clock(seconds(meter.last_sample_utc_ns), true) : "none yet"],
      ["Rate", i.sample_rate_hz === null ? null : `${i.sample_rate_hz} Hz`], ["Channels", meter.nodes.join(", ")], ["Firmware", i.firmware],
      ["Calibration", i.calibration_id ?? "none"], ["Uncertainty, 1 σ", i.relative_uncertainty === null ? "unknown" : `${(100 * i.relative_uncertainty).toFixed(1)} %`],
      ["Frames", meter.frames.toLocaleString("en")], ["Faults", counts.join(", ") || "none"], ["Storing", meter.storing ? "yes" : "no"],
    ]),
  ];
}
