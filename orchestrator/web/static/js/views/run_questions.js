/** The questions of a run with right and wrong answers; loaded on request, shown in pages. */

import { api } from "../api.js";
import { card, errorBox, segments } from "../components.js";
import { h } from "../dom.js";
import { percent, significant } from "../format.js";
import { icon } from "../icons.js";

const PAGE = 50;
const ROLES = { mmlu_5shot: "MMLU", arc_challenge_25shot: "ARC-C", hellaswag_10shot: "HellaSwag" };

export function questionsCard(where, epi) {
  const { n_questions: asked, n_correct: correct } = epi.evaluation.accuracy;
  const bars = Object.keys(asked).map((role) => h("li", { cls: "score" },
    h("span", { cls: "score__name", text: ROLES[role] ?? role }),
    h("span", { cls: "score__task muted", text: epi.accuracy_detail.tasks[role]?.tasks.join(", ") ?? "" }),
    h("span", { cls: "score__value", text: percent(epi.accuracy[role]) }),
    h("span", { cls: "muted", text: `${correct[role]} of ${asked[role]}` })));
  const list = h("div", {});
  const open = h("button", { cls: "button", type: "button", onclick: load }, "Show every question");
  const node = card("Questions", { aside: open }, h("ul", { cls: "scores" }, bars), list);

  async function load() {
    open.disabled = true;
    try {
      const file = await api.file(where.campaign, where.configuration, where.repetition, "benchmark");
      const { questions } = JSON.parse(await file.text());
      open.remove();
      list.replaceChildren(questionList(questions));
    } catch (error) {
      open.disabled = false;
      list.replaceChildren(errorBox(error));
    }
  }
  return node;
}

function questionList(questions) {
  let filter = "wrong";
  let page = 0;
  const rows = h("tbody", {});
  const place = h("span", { cls: "muted" });
  const back = h("button", { cls: "button", type: "button", "aria-label": "Previous page", onclick: () => turn(-1) }, icon("left"));
  const forth = h("button", { cls: "button", type: "button", "aria-label": "Next page", onclick: () => turn(1) }, icon("right"));
  const wrong = questions.filter((one) => !one.correct).length;
  const choice = segments("Which questions", [["wrong", `Wrong (${wrong})`], ["right", `Right (${questions.length - wrong})`], ["all", "All"]], filter, (value) => {
    filter = value;
    page = 0;
    fill();
  });
  function turn(by) {
    page += by;
    fill();
  }
  function fill() {
    const chosen = questions.filter((one) => filter === "all" || one.correct === (filter === "right"));
    const from = page * PAGE;
    back.disabled = page === 0;
    forth.disabled = from + PAGE >= chosen.length;
    place.textContent = chosen.length ? `${from + 1} to ${Math.min(from + PAGE, chosen.length)} of ${chosen.length}` : "none";
    rows.replaceChildren(...chosen.slice(from, from + PAGE).map((one) => {
      const margin = one.log_likelihoods[one.target] - Math.max(...one.log_likelihoods.filter((_, i) => i !== one.target));
      return h("tr", {},
        h("td", {}, h("span", { cls: `row tone-${one.correct ? "good" : "bad"}` }, icon(one.correct ? "check" : "cross", "ink"), one.correct ? "right" : "wrong")),
        h("td", { cls: "left", text: one.task }), h("td", { cls: "left", text: one.question_id }), h("td", { cls: "left", text: one.subject }),
        h("td", { text: String(one.choice + 1) }), h("td", { text: String(one.target + 1) }), h("td", { text: significant(margin, 3) }));
    }));
  }
  fill();
  return h("div", { cls: "questions" }, h("div", { cls: "row" }, choice, h("span", { cls: "grow" }), place, back, forth),
    h("div", { cls: "table-scroll", tabindex: "0", role: "region", "aria-label": "Questions" },
      h("table", { cls: "table" }, h("thead", {}, h("tr", {}, [["Answer"], ["Task", "left"], ["Question", "left"], ["Subject", "left"], ["Chosen"], ["Correct"], ["Margin in nats"]].map(([text, cls]) => h("th", { scope: "col", cls, text })))), rows)));
}
