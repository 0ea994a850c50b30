/** Now: a row for each node: its power, its share of the cluster's, temperature, governor and throttling. */

import { nodeColour } from "../charts/power.js";
import { h, replaceWhen, setAttr, setText } from "../dom.js";
import { watts } from "../format.js";
import { icon } from "../icons.js";
import { nodeMarks } from "./node_marks.js";

/** {node, update(), paint(message, stale)}: who is there, and what the newest message says of each. */
export function nodeList(model) {
  const node = h("ul", { cls: "nodes", "aria-label": "Nodes" });
  const rows = new Map();

  function update() {
    const agents = (model.lab?.agents ?? []).filter((agent) => agent.service === "node_agent");
    const inChart = model.power.nodeNames;
    const names = (agents.length ? agents.map((agent) => agent.name) : [...inChart]).sort();
    replaceWhen(node, names.join(), () => {
      rows.clear();
      return names.map((name) => nodeRow(name, rows));
    });
    for (const [name, row] of rows) {
      const agent = agents.find((one) => one.name === name);
      const colour = nodeColour(Math.max(0, inChart.indexOf(name)));
      setAttr(row.swatch, "class", `swatch swatch--${colour}`);
      setAttr(row.fill, "class", `node__fill swatch--${colour}`);
      replaceWhen(row.facts, JSON.stringify([agent?.error?.message, agent?.facts]), () => nodeFacts(agent));
    }
  }

  function paint(message, stale) {
    for (const [name, row] of rows) {
      const reading = stale ? undefined : message.nodes[name];
      setText(row.value, reading ? watts(reading.mean_w) : "–");
      const share = reading && message.cluster_w > 0 ? Math.max(0, Math.min(1, reading.mean_w / message.cluster_w)) : 0;
      row.fill.style.transform = `scaleX(${share.toFixed(3)})`;
    }
  }

  return { node, update, paint };
}

function nodeRow(name, rows) {
  const row = {
    swatch: h("span", { cls: "swatch" }),
    value: h("span", { cls: "node__value", text: "–" }),
    fill: h("div", { cls: "node__fill" }),
    facts: h("div", { cls: "node__facts" }),
  };
  rows.set(name, row);
  return h(
    "li",
    { cls: "node" },
    h("div", { cls: "node__head" }, row.swatch, h("span", { cls: "node__name", text: name }), h("span", { cls: "node__line" }, row.value, h("span", { cls: "muted", text: " W" }))),
    h("div", { cls: "node__bar" }, row.fill),
    row.facts,
  );
}

function nodeFacts(agent) {
  if (!agent) return [h("span", { cls: "quiet", text: "Not known to the lab" })];
  if (agent.error) return [h("span", { cls: "badge badge--bad" }, icon("unlink"), "not reachable")];
  return agent.facts ? nodeMarks(agent.facts) : [h("span", { cls: "quiet", text: "No facts yet" })];
}
