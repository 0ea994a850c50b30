/** What the campaign says as a whole: recommendation, operating points as probabilities, hypotheses, questions. */

import { emulatedBadge, pill } from "../components.js";
import { h } from "../dom.js";
import { PERCENT, groupName } from "../format.js";
import { icon } from "../icons.js";

const ANSWERS = {
  supported: { word: "Supported", icon: "check", tone: "good" },
  contradicted: { word: "Contradicted", icon: "cross", tone: "bad" },
  open: { word: "Open", icon: "similar", tone: "calm" },
  "not measured": { word: "Not measured", icon: "pending", tone: "calm" },
};

/** Build the panel from the API's analysis. */
export function answersPanel(analysis, emulated) {
  const { recommendation, hypotheses, operating_points: points, questions } = analysis;
  return h("div", { cls: "answers" },
    h("div", { cls: "notice tone-live" }, icon(recommendation.configuration_id ? "flag" : "similar"), h("p", { cls: "notice__text", text: recommendation.sentence })),
    h("div", { cls: "answers__columns" }, points.length ? h("section", { "aria-label": "Operating points" },
      h("div", { cls: "row" }, h("h3", { text: "Chance of the lowest EPI, by experts dropped" }), emulated ? emulatedBadge() : null),
      h("div", { cls: "chances" }, points.map(operatingPoint))) : null,
    hypotheses.length ? h("section", { "aria-label": "Hypotheses" }, h("h3", { text: "Hypotheses" }), h("ul", { cls: "answers__list" }, hypotheses.map((one) =>
      h("li", {}, h("div", { cls: "row" }, h("strong", { text: `${one.name}: ${one.claim}` }), pill(ANSWERS[one.answer] ?? ANSWERS.open)), h("p", { cls: "muted", text: one.sentence }))))) : null),
    questions.length ? h("details", { cls: "more" }, h("summary", { text: "Research questions" }), h("ul", { cls: "answers__list" }, questions.map((one) =>
      h("li", {}, h("strong", { text: `${one.name}: ${one.question}` }), h("p", { cls: "muted", text: one.answer }))))) : null);
}

function operatingPoint(point) {
  return h("div", { cls: "chance" }, h("h4", { text: groupName(point.group) }), h("ul", {}, point.chances.map((one) => {
    const fill = h("span", { cls: "chance__fill" });
    fill.style.transform = `scaleX(${one.probability.toFixed(4)})`;
    const best = one.configuration_id === point.most_probable;
    return h("li", { cls: best ? "chance__row chance__row--best" : "chance__row" },
      h("span", { cls: "chance__depth", text: one.depth === 0 ? "base" : one.depth }), h("span", { cls: "chance__bar" }, fill),
      h("span", { cls: "chance__value", text: `${Math.round(100 * one.probability)}${PERCENT}` }));
  })));
}
