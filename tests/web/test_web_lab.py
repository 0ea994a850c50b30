"""The dashboard over the real orchestrator during a real campaign: from first use to the curve, and how fast it is."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.lab import TestLab, api_of, process_of, processes_under, quick_spec, running_lab
from tests.web.conftest import SIZES, Open
from tests.web.test_web_states import VIEWS, overflowing, settle, small_targets

pytestmark = pytest.mark.timeout(580)
CAMPAIGN = "screen"
_SO_FAR = re.compile(r"^(prefill|decode), \d+ of \d+$")
LATENCY_LIMIT_S = 0.150

# From the time that the meter's sample carries until the frame after the one that drew it: same machine, same clock.
_LATENCIES = """async (seconds) => {
  const chart = document.querySelector('[data-latest]');
  const found = [];
  const observer = new MutationObserver(() => {
    const sampled = Number(chart.dataset.latest);
    requestAnimationFrame(() => found.push(Date.now() / 1000 - sampled));
  });
  observer.observe(chart, { attributes: true, attributeFilter: ['data-latest'] });
  await new Promise((done) => setTimeout(done, 1000 * seconds));
  observer.disconnect();
  return found;
}"""


@dataclass
class Story:
    """What the page showed while the campaign ran."""

    url: str
    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    steps: set[str] = field(default_factory=set)
    rates: set[str] = field(default_factory=set)
    bands: int = 0
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def lab() -> Iterator[TestLab]:
    with running_lab() as running:
        yield running


@pytest.fixture(scope="module")
def story(lab: TestLab, browser) -> Story:  # type: ignore[no-untyped-def]
    """Open the page on a lab without a campaign, start one, and watch it to its end."""
    told = Story(f"{api_of(lab).url}/#token={lab.token('orchestrator')}")
    page: Page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(20_000)
    page.on("console", lambda m: told.said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.said.append(str(error)))
    page.goto(told.url)
    settle(page)
    page.get_by_text("No campaign yet").first.wait_for()
    for _ in range(4):
        told.before = page.evaluate(_LATENCIES, 6)
        if p95(told.before) <= LATENCY_LIMIT_S:
            break  # else the machine was busy with something else: the page gets another chance
    spec = quick_spec(CAMPAIGN, "baseline,drop4_all", questions=6)
    api_of(lab).call("POST", "/v1/campaigns", spec.model_dump(mode="json"))
    page.locator(".nowcard").get_by_text("Running").wait_for()
    while not page.locator(".steps__item--here").is_visible():
        status = api_of(lab).call("GET", f"/v1/campaigns/{CAMPAIGN}")
        assert status["state"] == "running", status["reason"]
        page.wait_for_timeout(500)
    told.during = page.evaluate(_LATENCIES, 6)
    while api_of(lab).call("GET", f"/v1/campaigns/{CAMPAIGN}")["state"] == "running":
        for step in page.locator(".steps__item--here").all_inner_texts():
            told.steps.add(step.strip())
        told.rates.update(page.get_by_text(_SO_FAR).all_inner_texts())
        page.wait_for_timeout(200)
    expect(page.locator(".strip")).to_contain_text("Finished")
    page.close()
    return told


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


@pytest.mark.slow
def test_a_sample_reaches_the_screen_within_150_ms(story: Story) -> None:
    assert len(story.before) > 40 and len(story.during) > 20
    print(f"sample to pixel, p95: {1000 * p95(story.before):.0f} ms idle, {1000 * p95(story.during):.0f} ms in a run")
    assert min(story.before) > -0.01, "a sample from the future: the clocks are not the same"
    assert p95(story.before) <= LATENCY_LIMIT_S
    assert p95(story.during) <= LATENCY_LIMIT_S


def test_the_campaign_was_followed_without_an_error_in_the_console(story: Story) -> None:
    assert story.said == []
    assert story.steps & {"Idle", "Marker", "Prefill", "Decode", "Score"}, story.steps


def test_tokens_a_second_and_joules_a_token_were_told_while_they_accrued(story: Story) -> None:
    assert {text.split(",")[0] for text in story.rates} >= {"prefill", "decode"}, story.rates


def test_a_node_is_found_by_its_channel_and_a_missing_led_is_said(story: Story, open_page: Open) -> None:
    opened = open_page(story.url, expect_errors=True)  # the console tells of the refused LED
    page = opened.page
    opened.go("lab")
    node = page.get_by_role("article", name="node2")
    node.get_by_role("button", name="Blink LED").click()
    expect(node.get_by_role("status")).to_contain_text("not available here")
    node.get_by_role("button", name="Find channel").click()
    expect(node.get_by_role("status")).to_contain_text("wired right", timeout=30_000)


def test_every_view_at_every_size_shows_the_real_campaign(story: Story, open_page: Open) -> None:
    for size in SIZES:
        opened = open_page(story.url, size=size)
        settle(opened.page)
        for view in (*VIEWS, "run/drop4_all/1", "new"):
            opened.go(view)
            settle(opened.page)
            assert overflowing(opened.page) == [], (size, view)
            assert small_targets(opened.page) == [], (size, view)
            expect(opened.page.locator(".strip .badge--emulated")).to_be_visible()


def test_what_runs_how_it_is_and_what_the_curve_says_are_one_tap_away(
    story: Story, lab: TestLab, open_page: Open
) -> None:
    page = open_page(story.url).page
    settle(page)
    strip = page.locator(".strip")
    expect(strip).to_contain_text("Finished")
    expect(strip).to_contain_text("2 of 2 runs")
    strip.get_by_text("Healthy").click(timeout=90_000)  # on a busy machine an agent may have been late just now
    expect(page.get_by_text("Everything answers, nothing is wrong.")).to_be_visible()
    page.get_by_role("link", name="Campaign", exact=True).click()
    results = api_of(lab).call("GET", f"/v1/campaigns/{CAMPAIGN}/results")
    # On a busy machine the emulated trace may have a gap, which bars the run: the page then says so.
    judged = any(one["epi_ratio"] is not None for one in results if one["configuration"]["depth"])
    sentence = "1 configuration measured; one repetition gives no interval" if judged else "Nothing can be compared"
    expect(page.locator(".verdict")).to_contain_text(sentence)
    expect(page.locator(".plot__point")).to_have_count(2 if judged else 1)


def test_a_run_shows_what_its_result_file_holds_and_gives_it_away(
    story: Story, open_page: Open, tmp_path: Path
) -> None:
    opened = open_page(story.url)
    page = opened.page
    settle(page)
    opened.go("run/drop4_all/1")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Result (JSON)").click()
    waiting.value.save_as(tmp_path / "epi.json")
    epi = json.loads((tmp_path / "epi.json").read_text())
    figures = page.locator(".run__figures")
    expect(figures).to_contain_text(f"{epi['epi']['value']:.4g}".rstrip("0"))
    expect(page.get_by_role("region", name="Energy per window and node").first).to_contain_text("node4")
    page.get_by_role("button", name="Show every question").click()
    expect(page.get_by_role("button", name="Right (", exact=False)).to_be_visible()
    page.get_by_role("button", name="All", exact=True).click()
    expect(
        page.get_by_text(f"of {sum(epi['evaluation']['accuracy']['n_questions'].values())}", exact=False).last
    ).to_be_visible()
    page.get_by_role("button", name="Decode", exact=False).click()
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Whole run").click()


def test_a_second_campaign_is_started_and_cancelled_by_finger(story: Story, lab: TestLab, open_page: Open) -> None:
    page = open_page(story.url).page
    page.get_by_role("link", name="Campaign", exact=True).click()
    page.get_by_role("link", name="New", exact=True).click()
    page.get_by_label("Name").fill("by-finger")
    page.get_by_role("button", name="Drop 2, late layers").click()
    expect(page.locator(".create__foot")).to_contain_text("2 runs with its baseline")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".nowcard__head")).to_contain_text("Running")
    assert api_of(lab).call("GET", "/v1/campaigns/by-finger")["spec"]["configurations"] == "baseline,drop2_late"
    page.get_by_role("link", name="Campaign", exact=True).click()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".campaign__head")).to_contain_text("Pausing after this run")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".campaign__head")).to_contain_text("Running")
    hold = page.locator(".hold")
    box = hold.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    expect(page.locator(".campaign__head")).to_contain_text("Cancell")
    page.mouse.up()


@pytest.mark.slow
def test_the_live_page_takes_at_most_a_tenth_of_a_core(story: Story, open_page: Open) -> None:
    page = open_page(story.url).page
    settle(page)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def process_time_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "ProcessTime"))

    page.wait_for_timeout(3000)
    began, before = time.monotonic(), process_time_s()
    page.wait_for_timeout(10_000)
    share = (process_time_s() - before) / (time.monotonic() - began)
    print(f"page: {share:.1%} of a core")
    assert share <= 0.10


@pytest.mark.slow
def test_a_silent_meter_and_a_lost_node_are_told_with_what_to_do(story: Story, lab: TestLab, open_page: Open) -> None:
    page = open_page(story.url).page
    page.get_by_role("link", name="Lab", exact=True).click()
    emulator = next(int(line.split()[0]) for line in processes_under(lab) if "meter emulate" in line)
    for pid, told in ((emulator, "The meter"), (process_of(lab, "node3"), "node3 does not answer")):
        os.kill(pid, signal.SIGSTOP)
        try:
            expect(page.locator(".problems")).to_contain_text(told, timeout=60_000)
            expect(page.locator(".strip")).to_contain_text("problem")
        finally:
            os.kill(pid, signal.SIGCONT)
        expect(page.locator(".problems")).to_contain_text("nothing is wrong", timeout=60_000)
