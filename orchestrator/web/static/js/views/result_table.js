/** Campaign: all results as a table. */

import { pill } from "../components.js";
import { h } from "../dom.js";
import { change, configurationName, percent, significant } from "../format.js";
import { VALIDITY, comparison } from "../states.js";

const VERDICTS = { lower: "lower", higher: "higher", similar: "no difference", clock: "no interval" };
const VALID = { PASS: "valid", FLAG: "notes", FAIL: "not valid" };
const HEAD = ["Configuration", "EPI in J", "Against baseline", "Interval", "Verdict", "J/token", "tokens/s", "Accuracy", "Runs", "Validity"];

/** `href(result)`: where its name leads. */
export function resultTable(results, href) {
  return h("table", { cls: "table" },
    h("thead", {}, h("tr", {}, HEAD.map((text) => h("th", { scope: "col", text })))),
    h("tbody", {}, results.map((r) => row(r, href))));
}

function row(r, href) {
  const compared = r.configuration.depth > 0;
  const verdict = compared ? comparison(r) : null;
  const validity = VALIDITY[r.validity];
  return h("tr", {},
    h("td", {}, h("a", { href: href(r), text: configurationName(r.configuration) })),
    h("td", { text: significant(r.epi, 4) }),
    h("td", { text: compared ? change(r.epi_ratio) : "reference" }),
    h("td", { text: compared && typeof r.epi_ratio_low === "number" ? `${change(r.epi_ratio_low)} … ${change(r.epi_ratio_high)}` : "–" }),
    h("td", {}, verdict ? pill({ ...verdict, word: VERDICTS[verdict.icon] }) : r.reason ? h("span", { cls: "muted", text: r.reason }) : "–"),
    h("td", { text: significant(r.joules_per_token, 3) }),
    h("td", { text: significant(r.tokens_per_second, 4) }),
    h("td", { text: percent(r.accuracy_composite) }),
    h("td", { text: String(r.repetitions) }),
    h("td", {}, validity ? pill({ ...validity, word: VALID[r.validity] }) : "–"));
}
