/** Now: live power of nodes and cluster, what runs and what comes next. */

import { PowerChart, nodeLegend } from "../charts/power.js";
import { card, emulatedBadge, figure, pill, segments } from "../components.js";
import { h, replaceWhen, setAttr, setText, show } from "../dom.js";
import { age, clock, configurationName, joules, significant, stepName, watts } from "../format.js";
import { icon } from "../icons.js";
import { problems } from "../problems.js";
import { currentRun, currentStep, runTitle } from "../strip.js";
import { CAMPAIGN_STATES, REQUESTS, RUN_STATES } from "../states.js";
import { summary } from "../verdict.js";
import { firstUse } from "./first_use.js";
import { nodeList } from "./now_nodes.js";

const RANGES = { "30s": 30, "5min": 300, run: null };
const RUN_STEPS = ["deploy", "start_engine", "steady_state", "idle", "marker", "prefill", "decode", "score", "evaluate"];
const SHORT = { deploy: "Deploy", start_engine: "Engine", steady_state: "Steady", idle: "Idle", marker: "Marker", prefill: "Prefill", decode: "Decode", score: "Score", evaluate: "Evaluate" };
const LONGEST_RUN_S = 12 * 3600;
const STALE_S = 3;
const NUMBERS_EVERY_S = 0.25;

export function nowView(model) {
  let range = "30s";
  let frame = null;
  let drawnAt = 0;
  let numbersAt = 0;
  const data = [];

  const hero = h("span", { cls: "hero__value", text: "–" });
  const unit = h("span", { cls: "hero__unit", text: "W" });
  const heroNote = h("span", { cls: "hero__note" });
  const legend = h("div", {});
  const chartHolder = h("div", { cls: "chart", role: "img", "aria-label": "Power of the cluster over time" });
  const waiting = h("p", { cls: "muted" });
  const badge = emulatedBadge();
  const choice = segments("Time range", [["30s", "30 s"], ["5min", "5 min"], ["run", "Run"]], range, (value) => {
    range = value;
    drawnAt = 0;
    paint();
  });
  const nodes = nodeList(model);
  const nowCard = h("div", { cls: "nowcard" });
  const stepList = h("ol", { cls: "steps", "aria-label": "Steps of this run" });
  const energy = figure("Energy, this window");
  const perToken = figure("Energy per token");
  const speed = figure("Speed");
  const epi = figure("EPI");
  const title = h("h2", { cls: "nowcard__title" });
  const detail = h("p", { cls: "nowcard__detail" });
  const next = h("p", { cls: "nowcard__next" });
  const statePill = pill(RUN_STATES.pending);
  const bar = h("div", { cls: "bar__fill" });
  const barBox = h("div", { cls: "bar", role: "progressbar", "aria-label": "This step", "aria-valuemin": "0", "aria-valuemax": "100" }, bar);
  nowCard.append(
    h("div", { cls: "nowcard__head" }, title, statePill),
    detail,
    stepList,
    barBox,
    next,
  );

  const power = h(
    "section",
    { cls: "card card--power", "aria-label": "Cluster power" },
    h(
      "header",
      { cls: "hero" },
      h("div", { cls: "hero__figure" }, h("h2", { cls: "hero__label" }, "Cluster power", badge),
        h("div", { cls: "hero__line" }, hero, unit), heroNote),
      h("div", { cls: "hero__aside" }, choice, legend),
    ),
    waiting,
    chartHolder,
  );
  const work = h("section", { cls: "card card--work", "aria-label": "What runs" }, nowCard);
  const figures = h("section", { cls: "card card--figures", "aria-label": "Figures" }, energy, perToken, speed, epi);
  const start = h("section", { cls: "card card--start", "aria-label": "First use" }, firstUse());
  const node = h("div", { cls: "view now" }, power, card("Nodes", { cls: "card--nodes" }, nodes.node), work, figures, start);

  const chart = new PowerChart(chartHolder, {
    xTicks: (from, to) => ticks(range, from, to),
    xLabel: (x) => label(range, x),
    bands: () => model.windows.list.map(({ label: name, start: from, end }) => ({ label: name, start: from - drawnOrigin, end: end === null ? null : end - drawnOrigin })),
  });
  let drawnOrigin = 0;

  function paint() {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      const last = model.power.last;
      if (!last) return;
      paintChart(last.t);
      // The trace follows every sample; digits that change ten times a second cannot be read.
      if (last.t - numbersAt < NUMBERS_EVERY_S && last.t >= numbersAt) return;
      numbersAt = last.t;
      paintNumbers(last.message);
    });
  }

  function paintNumbers(message) {
    const stale = model.sampleAge() > STALE_S;
    setText(hero, stale ? "–" : watts(message.cluster_w));
    show(unit, !stale);
    nodes.paint(message, stale);
    show(badge, model.emulated);
  }

  function paintChart(latest) {
    const span = RANGES[range] ?? runSpan(latest);
    // A step narrower than half a pixel cannot be seen: long ranges repaint less often.
    const stepS = Math.max(0.09, span / chart.columns / 2);
    if (Math.abs(latest - drawnAt) < stepS) return;
    drawnAt = latest;
    drawnOrigin = RANGES[range] === null ? 0 : latest;
    const from = latest - span;
    model.power.view(from, latest, chart.columns, drawnOrigin, data);
    chart.draw(data, [from - drawnOrigin, latest - drawnOrigin]);
    setAttr(chartHolder, "data-latest", latest.toFixed(3));
    const names = model.power.nodeNames;
    if (replaceWhen(legend, names.join(), () => nodeLegend(names))) nodes.update();
  }

  function runSpan(latest) {
    const attempt = currentRun(model)?.attempts.at(-1);
    const began = attempt ? attempt.started_utc_ns / 1e9 : (model.campaign?.created_utc_ns ?? 0) / 1e9;
    return Math.max(30, Math.min(LONGEST_RUN_S, latest - began + 2));
  }

  function updateWork() {
    const { campaign } = model;
    const none = campaign === null && model.campaigns !== null;
    show(start, none);
    show(work, campaign !== null);
    show(figures, campaign !== null);
    setAttr(node, "class", none ? "view now now--first" : "view now");
    if (!campaign) return;
    const run = currentRun(model);
    const step = currentStep(model);
    const running = campaign.state === "running";
    setText(title, running && run ? runTitle(model, run) : campaign.id);
    statePill.update({ ...CAMPAIGN_STATES[campaign.state], word: REQUESTS[campaign.request] || CAMPAIGN_STATES[campaign.state].word });
    const attempt = run?.attempts.at(-1)?.number ?? 1;
    const words = running ? [stepName(step.step), step.message, attempt > 1 ? `attempt ${attempt}` : ""] : [campaign.reason];
    setText(detail, words.filter(Boolean).join(" · "));
    const at = RUN_STEPS.indexOf(step.step);
    show(stepList, running && run !== null && at >= 0);
    replaceWhen(stepList, `${at}`, () => RUN_STEPS.map((name, i) => stepItem(name, i, at)));
    show(barBox, running);
    const fraction = Math.max(0, Math.min(1, step.fraction || 0));
    bar.style.transform = `scaleX(${fraction.toFixed(3)})`;
    setAttr(barBox, "aria-valuenow", Math.round(100 * fraction));
    const coming = campaign.runs.find((one) => one.state === "pending" && one !== run);
    setText(next, running ? (coming ? `Next: ${runTitle(model, coming)}` : "Next: nothing, this is the last run") : idleHint(model));
    updateFigures(run);
  }

  function updateFigures(run) {
    const window = model.windows.open;
    const open = window !== null && model.sampleAge() < STALE_S;
    energy.set(open ? joules(model.power.energy(window.start, model.now())).split(" ")[0] : "–", open ? "J" : "",
      open ? `${window.label}, ${age(model.now() - window.start)}` : "No window is open");
    const result = lastResult(model, run);
    const name = result ? configurationName(result.configuration) : "No result yet";
    const rate = model.rate.now();
    const soFar = rate && `${rate.step}, ${rate.tokens} of ${rate.total}`;
    if (rate?.joulesPerToken) perToken.set(significant(rate.joulesPerToken, 3), "J", soFar);
    else perToken.set(significant(result?.joules_per_token, 3), result ? "J" : "", name);
    if (rate?.perSecond) speed.set(significant(rate.perSecond, 3), "tokens/s", soFar);
    else speed.set(significant(result?.tokens_per_second, 3), result ? "tokens/s" : "", name);
    epi.set(significant(result?.epi, 3), result ? "J" : "", name);
  }

  const stop = [
    model.on(["power"], paint),
    model.on(["windows"], () => { drawnAt = 0; paint(); }),
    model.on(["lab"], nodes.update),
    model.on(["campaign", "results", "progress", "campaigns", "tick"], updateWork),
    model.on(["tick"], () => {
      const stale = model.sampleAge() > STALE_S;
      setText(heroNote, Number.isFinite(model.sampleAge()) ? (stale ? `No sample for ${age(model.sampleAge())}` : "") : "Waiting for the first sample");
      show(heroNote, heroNote.textContent !== "");
      show(badge, model.emulated);
      show(waiting, model.power.last === null);
      if (model.power.last === null) {
        show(unit, false);
        setText(waiting, meterProblem(model) ?? "The trace begins with the first sample of the meter.");
      }
      if (stale && model.power.last) {
        // Without samples the trace still moves on, so that its age can be seen.
        paintNumbers(model.power.last.message);
        paintChart(Math.max(model.now(), model.power.last.t));
      }
    }),
  ];
  nodes.update();
  updateWork();
  show(badge, model.emulated);
  paint();

  return {
    node,
    close() {
      if (frame !== null) cancelAnimationFrame(frame);
      for (const off of stop) off();
      chart.destroy();
    },
  };
}

/** The result that says most about now: this configuration's if it has one, else the last run's that is done. */
function lastResult(model, run) {
  const of = (id) => model.results.find((one) => one.configuration.id === id && one.joules_per_token !== null);
  if (run && of(run.configuration)) return of(run.configuration);
  const done = (model.campaign?.runs ?? []).filter((one) => one.state === "done");
  done.sort((a, b) => (a.attempts.at(-1)?.ended_utc_ns ?? 0) - (b.attempts.at(-1)?.ended_utc_ns ?? 0));
  return done.length ? of(done.at(-1).configuration) : null;
}

/** What is wrong with the meter and what to do, in one line, or null. */
function meterProblem(model) {
  const found = problems(model).find((one) => one.where === "meter" && one.tone === "bad");
  return found ? `${found.title}. ${found.todo}` : null;
}

function idleHint({ campaign, results }) {
  if (campaign.state === "paused" || campaign.state === "failed") return "Resume it in the Campaign view.";
  return summary(campaign, results);
}

function ticks(range, from, to) {
  if (range === "30s") return [-30, -20, -10, 0];
  if (range === "5min") return [-300, -240, -180, -120, -60, 0];
  const span = to - from;
  const step = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200].find((one) => span / one <= 7) ?? 14_400;
  const found = [];
  for (let x = Math.ceil(from / step) * step; x <= to; x += step) found.push(x);
  return found;
}

function label(range, x) {
  if (range === "run") return clock(x, true);
  if (x === 0) return "now";
  return range === "30s" ? `−${-x} s` : `−${-x / 60} min`;
}

function stepItem(name, i, at) {
  const state = i < at ? "done" : i === at ? "here" : "later";
  return h(
    "li",
    { cls: `steps__item steps__item--${state}`, "aria-current": state === "here" ? "step" : null },
    h("span", { cls: "steps__mark" }, icon(state === "done" ? "check" : state === "here" ? "play" : "pending")),
    h("span", { text: SHORT[name] }),
  );
}
