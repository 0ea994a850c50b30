/** Validity in one look: the rules of a campaign or a run that did not pass, and which configurations carry a flag. */

import { pill } from "../components.js";
import { h } from "../dom.js";
import { configurationName } from "../format.js";
import { icon } from "../icons.js";
import { VALIDITY } from "../states.js";

/** The findings of one verdict as a list; none is told in words. */
export function findingsList(findings) {
  if (findings.length === 0) return h("p", { cls: "muted", text: "All rules passed." });
  return h("ul", { cls: "findings" }, findings.map((one) =>
    h("li", { cls: `findings__item tone-${VALIDITY[one.verdict].tone}` }, icon(VALIDITY[one.verdict].icon, "ink"),
      h("div", {}, h("strong", { text: `${one.rule}${one.where ? `, ${one.where}` : ""}` }), h("p", { cls: "muted", text: one.reason })))));
}

/** The whole campaign: its own findings, and a link to each configuration that is flagged or barred. */
export function validityPanel(validity, results, href) {
  const marked = results.filter((r) => r.validity === "FAIL" || r.validity === "FLAG").sort((a, b) => a.validity.localeCompare(b.validity));
  const sound = results.filter((r) => r.validity === "PASS").length;
  return h("div", { cls: "answers" },
    h("section", { "aria-label": "Rules of the campaign" }, h("div", { cls: "row" }, h("h3", { text: "The campaign" }), pill(VALIDITY[validity.verdict])), findingsList(validity.findings)),
    h("section", { "aria-label": "Configurations" }, h("h3", { text: `Configurations: ${sound} of ${results.length} valid without a note` }),
      h("div", { cls: "flagged" }, marked.map((r) => h("a", { cls: "button flagged__link", href: href(r) }, pill(VALIDITY[r.validity]), configurationName(r.configuration))))));
}
