"""Pictures of every page for people to look at: a build does not notice a broken theme. Kept in artifacts/."""

from __future__ import annotations

import pytest
from helpers_book import ARTIFACTS, Served, chapters, go_live, pages, settle
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.book, pytest.mark.browser]

WIDTHS = {"wide": 1280, "narrow": 390}


def keep(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / f"{name.replace('/', '-')}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", pages())
def test_a_page_is_laid_out(browser: Browser, static_site: str, name: str, width: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme)
    page.goto(f"{static_site}{name}.html", wait_until="networkidle")
    settle(page)
    # What a newer theme broke without a warning: one search field at most, the text in the page's width.
    assert page.locator(".search-button-field:visible").count() <= 1
    assert page.locator("main h1:visible").first.bounding_box()["width"] > 0.5 * min(WIDTHS[width], 700)
    keep(page, f"{name}-{width}-{scheme}")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_live_page_is_laid_out(browser: Browser, served: Served, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{served.home}?token={served.token}", wait_until="networkidle")
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    settle(page)
    go_live(page)
    page.get_by_role("button", name="Run all").click()
    expect(page.locator(".prune-live-status")).to_contain_text("finished.", timeout=300_000)
    keep(page, f"live-{scheme}")
    context.close()
