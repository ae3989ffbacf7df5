"""axe-core, at one version and with one set of rules: no serious or critical violation, light and dark."""

from __future__ import annotations

import pytest
from helpers_book import ROOT, pages, settle
from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.book, pytest.mark.browser]

AXE = ROOT / "vendor" / "test" / "axe-core" / "axe.min.js"  # its version and hash: prunelab/site/assets.py
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page: Page) -> list[str]:
    """What axe finds that is serious or critical: one line each, with the element it is about."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES)
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", pages())
def test_a_page_has_no_serious_violation(browser: Browser, static_site: str, name: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(f"{static_site}{name}.html", wait_until="networkidle")
    settle(page)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert violations(page) == []
    page.close()


def test_axe_would_find_one(browser: Browser, static_site: str) -> None:
    page = browser.new_page()
    page.goto(f"{static_site}search.html", wait_until="networkidle")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"\"><input>')")
    assert {line.split()[1] for line in violations(page)} == {"image-alt:", "label:"}
    page.close()
