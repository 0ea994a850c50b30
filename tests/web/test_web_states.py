"""Every view in every state, size and theme: nothing overflows, nothing is told by colour alone, axe is content."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.web.conftest import SIZES, Open, axe_source
from tests.web.states import STATES

Invented = Callable[[str], str]
VIEWS = ("now", "campaign", "run", "lab")
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}


def settle(page: Page) -> None:
    """Wait until the page has asked everything and painted."""
    page.get_by_text("Live", exact=True).wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.chart:empty')].every((chart) => chart.offsetWidth === 0)"
    )


def overflowing(page: Page) -> list[str]:
    """Return what reaches beyond the window, leaving out what scrolls by itself."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((node) => {
          const box = node.getBoundingClientRect();
          if (box.width === 0 || box.right <= innerWidth + 1) return false;
          for (let up = node.parentElement; up; up = up.parentElement) {
            if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX) && up.id !== 'page') return false;
          }
          return true;
        }).map((node) => `${node.tagName}.${node.getAttribute('class')}`)"""
    )
    return found


def small_targets(page: Page) -> list[str]:
    """Return what can be tapped and is smaller than 48 px either way; marks in a figure have their own touch ring."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('a, button, input, select, summary, textarea')].filter((node) => {
          if (node instanceof SVGElement || node.closest('[hidden]')) return false;
          const box = node.getBoundingClientRect();
          return box.width > 0 && (box.width < 48 || box.height < 48);
        }).map((node) => `${node.tagName} ${node.textContent} ${JSON.stringify(node.getBoundingClientRect())}`)"""
    )
    return found


@pytest.mark.parametrize("size", list(SIZES))
def test_no_view_overflows_and_all_targets_fit_a_finger(open_page: Open, invented: Invented, size: str) -> None:
    url = invented("running")
    opened = open_page(url, size=size)
    settle(opened.page)
    for view in (*VIEWS, "run/drop4_all/1"):
        opened.go(view)
        settle(opened.page)
        assert overflowing(opened.page) == [], view
        assert small_targets(opened.page) == [], view


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("state", ["running", "first_use", "node_lost", "finished"])
def test_axe_finds_no_serious_violation(open_page: Open, invented: Invented, state: str, theme: str) -> None:
    source = axe_source()
    url = invented(state)
    opened = open_page(url, theme=theme)
    settle(opened.page)
    opened.page.evaluate(source)
    for view in (*VIEWS, *(("run/drop4_all/1",) if state == "finished" else ())):
        opened.go(view)
        settle(opened.page)
        result: dict[str, Any] = opened.page.evaluate("rules => axe.run(document, rules)", RULES)
        serious = [
            f"{view}: {one['id']}: {node['target']} {node.get('failureSummary', '')}"
            for one in result["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert serious == []


@pytest.mark.parametrize("state", STATES)
def test_every_state_says_what_runs_whether_it_is_well_and_when_it_ends(
    open_page: Open, invented: Invented, state: str
) -> None:
    expected = {
        "first_use": ("No campaign", "Healthy", "No end to wait for"),
        "preparing": ("Observing the experts", "Healthy", "End not known yet"),
        "running": ("Drop 3, late layers", "Healthy", "Ends"),
        "pausing": ("Pausing after this run", "Healthy", "Ends"),
        "paused": ("Paused", "Healthy", "41 of 78 runs"),
        "meter_lost": ("Drop 3, late layers", "The meter is not connected", "Ends"),
        "node_lost": ("Stopped by a failure", "problems", "41 of 78 runs"),
        "finished": ("Finished", "Healthy", "78 of 78 runs"),
        "no_difference": ("Finished", "Healthy", "78 of 78 runs"),
        "failed": ("Stopped by a failure", "The campaign stopped", "41 of 78 runs"),
        "one_repetition": ("Drop 5, late layers", "Healthy", "Ends"),
    }[state]
    url = invented(state)
    opened = open_page(url)
    strip = opened.page.locator(".strip")
    for text in expected:
        strip.get_by_text(text).first.wait_for()


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ("finished", "Lowest EPI: Drop 4, all layers"),
        ("no_difference", "No significant difference: 24 of 24"),
        ("one_repetition", "one repetition gives no interval, so nothing is ranked"),
        ("first_use", "No campaign yet"),
    ],
)
def test_the_curve_is_told_in_words_one_tap_away(
    open_page: Open, invented: Invented, state: str, sentence: str
) -> None:
    opened = open_page(invented(state))
    opened.page.get_by_role("link", name="Campaign", exact=True).click()
    opened.page.get_by_text(sentence).first.wait_for()


def test_emulated_power_is_marked_on_every_view_and_every_figure(open_page: Open, invented: Invented) -> None:
    url = invented("finished")
    opened = open_page(url)
    settle(opened.page)
    for view in (*VIEWS, "run/drop4_all/1"):
        opened.go(view)
        settle(opened.page)
        assert opened.page.locator(".strip .badge--emulated").is_visible()
        for figure in opened.page.locator(".chart:visible, .matrix:visible").all():
            card = figure.locator("xpath=ancestor-or-self::section[1]")
            assert card.locator(".badge--emulated:visible").count() >= 1, view
