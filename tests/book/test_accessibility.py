"""axe-core, at one version and with one set of rules: no serious or critical violation, light and dark."""

from __future__ import annotations

import pytest
from helpers_book import ROOT, SCHEMES, Opened, Served, chapters, go_live, pages, run_code, settle, views
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.book, pytest.mark.browser]

AXE = ROOT / "vendor" / "test" / "axe-core" / "axe.min.js"  # its version and hash: prunelab/site/assets.py
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page) -> list[str]:
    """What axe finds that is serious or critical: one line each, with the element it is about."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    # All of the violations; of what passes, which nobody reads here, axe then describes no more than one element.
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@views(pages(), schemes=SCHEMES)
def test_a_page_has_no_serious_violation(view: Opened) -> None:
    assert view.page.evaluate("document.documentElement.dataset.theme") == view.view.scheme
    assert violations(view.page) == []


LIVE = """
from ipywidgets import interact
from prunelab.lab import explore
interact(lambda n: n, n=(1, 5))
explore(lambda a: f"got {a}", a=[1, 2, 3])
"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_live_page_has_no_serious_violation(browser: Browser, served: Served, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{served.home}?token={served.token}", wait_until="networkidle")
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    settle(page)
    go_live(page)
    expect(run_code(page, LIVE)).to_contain_text("got 1")
    page.wait_for_timeout(300)  # the names of new widgets are given in the next frame
    assert violations(page) == []
    context.close()


def test_axe_would_find_one(browser: Browser, static_site: str) -> None:
    page = browser.new_page()
    page.goto(f"{static_site}search.html", wait_until="networkidle")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"\"><input>')")
    assert {line.split()[1] for line in violations(page)} == {"image-alt:", "label:"}
    page.close()
