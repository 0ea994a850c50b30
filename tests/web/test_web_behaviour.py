"""What fingers, keys and broken lines do to the page: holding, tabbing, reconnecting, staying open for long."""

import time
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import TOKEN, Open, free_port, serving
from tests.web.invented_machines import JOURNAL_FULL
from tests.web.test_web_states import Invented, settle

MINUTE_OF_MESSAGES = 600


def test_without_a_token_a_form_asks_for_it_and_the_address_never_keeps_it(open_page: Open, invented: Invented) -> None:
    url = invented("running").split("#")[0]
    opened = open_page(url, expect_errors=True)
    page = opened.page
    page.get_by_label("Token", exact=False).fill("wrong")
    page.get_by_role("button", name="Open the lab").click()
    page.get_by_label("Token", exact=False).fill(TOKEN)
    page.get_by_role("button", name="Open the lab").click()
    settle(page)
    assert TOKEN not in page.url
    with_token = open_page(f"{url}#token={TOKEN}").page
    settle(with_token)
    assert TOKEN not in with_token.url


def test_cancel_acts_whenever_it_is_held_and_only_then(open_page: Open) -> None:
    """By mouse and by key, also while the answer to the last request is awaited and when the page moves."""
    with serving("running", thinks_s=1.5) as url:
        page = open_page(url).page
        page.get_by_role("link", name="Campaign", exact=True).click()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
        hold = page.locator(".hold")
        hold.click()
        expect(hold).to_have_text("Hold to confirm")
        box = hold.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 20, box["y"] + 90)
        expect(hold).to_have_text("Hold to confirm")
        page.mouse.up()
        assert not any(url.endswith("/cancel") for url in asked)
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        with page.expect_request(lambda request: request.url.endswith("/cancel")):
            page.mouse.down()
            page.evaluate("document.querySelector('.campaign').style.paddingTop = '200px'")
        page.mouse.up()
        hold.focus()
        with page.expect_request(lambda request: request.url.endswith("/cancel")):
            page.keyboard.down("Enter")
        page.keyboard.up("Enter")
        expect(hold).to_be_focused()


def test_the_lab_tells_how_old_the_calibration_is_and_what_to_do(open_page: Open, invented: Invented) -> None:
    opened = open_page(invented("failed"))
    opened.go("lab")
    problems = opened.page.locator(".problems")
    expect(problems).to_contain_text("The calibration is almost a year old")
    expect(problems).to_contain_text("epi meter calibrate")
    expect(opened.page.locator(".card--meter")).to_contain_text("341 days ago")


def test_what_the_orchestrator_says_of_itself_is_in_the_list_of_problems(open_page: Open, invented: Invented) -> None:
    opened = open_page(invented("failed"))
    opened.go("lab")
    problems = opened.page.locator(".problems")
    expect(problems).to_contain_text("orchestrator cannot do its work")
    expect(problems).to_contain_text(JOURNAL_FULL)


def test_every_view_is_reached_with_the_keyboard_alone(open_page: Open, invented: Invented) -> None:
    opened = open_page(invented("running"))
    page = opened.page
    settle(page)
    opened.go("lab")
    for view in ("Now", "Campaign", "Run", "Lab"):
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == view:
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name=view, exact=True)).to_have_attribute("aria-current", "page")


def test_a_lost_orchestrator_is_told_and_found_again_without_signing_in_anew(open_page: Open, tmp_path: Path) -> None:
    port = free_port()
    with serving("running", port=port, folder=tmp_path) as url:
        page = open_page(url, expect_errors=True).page
        settle(page)
        seen = float(page.locator("[data-latest]").get_attribute("data-latest") or 0)
    expect(page.locator(".strip").get_by_text("Not connected")).to_be_visible()
    expect(page.locator(".strip").get_by_text("The orchestrator does not answer")).to_be_visible(timeout=15_000)
    with serving("running", port=port, folder=tmp_path):
        expect(page.locator(".strip").get_by_text("Live", exact=True)).to_be_visible(timeout=30_000)
        expect(page.locator(".strip").get_by_text("Healthy")).to_be_visible(timeout=15_000)
        page.wait_for_function(
            "seen => Number(document.querySelector('[data-latest]').dataset.latest) > seen", arg=seen
        )


def test_a_run_says_what_ran_and_what_was_asked(open_page: Open, invented: Invented) -> None:
    opened = open_page(invented("finished"))
    opened.go("run/drop4_all/1")
    page = opened.page
    for name, told in {
        "n1, n2, n3": "0.2.0, code 111111111111, packages 222222222222 (they differ)",
        "n4": "0.2.0, code 777777777777, packages 222222222222 (they differ)",
        "llama.cpp on n1, n2, n3, n4": "llama.cpp 0c1e570, ggml 0c1e570, OpenMP, no repack, no KleidiAI, RPC, "
        "NEON OPENMP, libraries 333333333333",
        "Questions of demo_mmlu_2shot": "20 of 264, 2 shots, SHA-256 aaaaaaaaaaaaaaaa (trusted on first use)",
    }.items():
        row = page.locator(".facts__row").filter(has=page.get_by_text(name, exact=True))
        expect(row.locator("dd")).to_have_text(told)


def test_zooming_into_a_run_asks_for_that_part_alone(open_page: Open, invented: Invented) -> None:
    opened = open_page(invented("finished"))
    page, asked = opened.page, []
    settle(page)
    page.on("request", lambda request: asked.append(request.url) if "/power?columns" in request.url else None)
    opened.go("run/drop4_all/1")
    trace = page.locator(".chart--trace")
    expect(trace.locator("canvas")).to_be_visible()
    whole = trace.get_attribute("aria-label")
    page.get_by_role("button", name="Decode", exact=False).click()
    expect(trace).not_to_have_attribute("aria-label", whole or "")
    query = parse_qs(urlparse(asked[-1]).query)
    span_s = (int(query["end_utc_ns"][0]) - int(query["start_utc_ns"][0])) / 1e9
    assert span_s == pytest.approx(2 * 1.16, rel=0.01), "the window and a little beside"
    assert int(query["columns"][0]) < 1000
    page.get_by_role("button", name="Whole run").click()
    expect(trace).to_have_attribute("aria-label", whole or "")


def test_reduced_motion_stops_all_motion(open_page: Open, invented: Invented) -> None:
    page = open_page(invented("running")).page
    page.emulate_media(reduced_motion="reduce")
    settle(page)
    moving = page.evaluate(
        "() => [...document.querySelectorAll('*')].filter((node) => {"
        " const style = getComputedStyle(node);"
        " return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0; }).length"
    )
    assert moving == 0


def heap_bytes(page: Page) -> int:
    """Return the JavaScript heap in use after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("HeapProfiler.collectGarbage")
    used: int = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_half_an_hour_at_10_hz_leaves_the_memory_as_it_was_after_two_minutes(open_page: Open) -> None:
    with serving("running", hurry=True) as url:
        page = open_page(url).page
        settle(page)
        # Two of these minutes pass in a second: what is loaded and compiled once must be there before they begin.
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(3000)

        def wait_for(minutes: float) -> int:
            page.wait_for_function(
                "wanted => Number(document.querySelector('[data-latest]').dataset.latest) >= wanted",
                arg=first + 60 * minutes,
                timeout=240_000,
            )
            return heap_bytes(page)

        first = float(page.locator("[data-latest]").get_attribute("data-latest") or 0)
        early = wait_for(2)
        began = time.monotonic()
        late = wait_for(30)
        nodes = page.evaluate("document.querySelectorAll('*').length")
    print(f"heap {early / 1e6:.2f} MB, then {late / 1e6:.2f} MB, {time.monotonic() - began:.0f} s, {nodes} elements")
    assert late <= 1.10 * early


def test_a_run_is_written_and_read_as_the_journal_has_it(open_page: Open, invented: Invented) -> None:
    page = open_page(invented("running")).page
    settle(page)
    found = page.evaluate(
        """async (texts) => {
            const { formatRun, parseRun } = await import("/static/js/run_reference.js");
            return texts.map((text) => { try { return formatRun(parseRun(text)); } catch { return null; } });
        }""",
        ["drop3_late/rep-2", "baseline.q8_0.on-pair/rep-10", "drop3_late/rep-02", "setup", "a/b/rep-1"],
    )
    assert found == ["drop3_late/rep-2", "baseline.q8_0.on-pair/rep-10", None, None, None]
