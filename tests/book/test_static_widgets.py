"""Sliders that answer without a kernel: what the build computed is switched in the browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers_book import Watch, chapters
from playwright.sync_api import Page

pytestmark = [pytest.mark.book, pytest.mark.browser]

SHOWN = """explore => [...explore.querySelectorAll('.prunelab-panel')]
    .filter(panel => panel.offsetParent !== null).map(panel => panel.innerHTML).join()"""


@pytest.mark.parametrize("name", chapters())
def test_every_slider_of_an_exploration_switches_results(
    open_page: Callable[[str], tuple[Page, Watch]], static_site: str, name: str
) -> None:
    page, watch = open_page(f"{static_site}{name}.html")
    explorations = page.locator(".prunelab-explore").all()
    assert explorations, "a chapter has at least one explore widget"
    for exploration in explorations:
        before = exploration.evaluate(SHOWN)
        assert before
        for slider in exploration.get_by_role("slider").all():
            assert slider.get_attribute("aria-label")
            slider.focus()
            first = int(float(slider.get_attribute("aria-valuenow") or 0))
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(200)
            assert int(float(slider.get_attribute("aria-valuenow") or 0)) == first + 1
            row = slider.locator("xpath=ancestor::*[contains(@class, 'widget-hslider')][1]")
            assert slider.get_attribute("aria-valuetext") == row.locator(".widget-readout").inner_text().strip()
            after = exploration.evaluate(SHOWN)
            assert after != before, "the slider moved and the result did not"
            before = after
    watch.assert_clean()
