"""Pictures of every page for people to look at: a build does not notice a broken theme. Kept in artifacts/."""

from __future__ import annotations

import pytest
from helpers_book import ARTIFACTS, SCHEMES, WIDTHS, Opened, Served, chapters, go_live, pages, settle, views
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.book, pytest.mark.browser]


def keep(page: Page, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / f"{name.replace('/', '-')}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


@views(pages(), widths=tuple(WIDTHS), schemes=SCHEMES)
def test_a_page_is_laid_out(view: Opened) -> None:
    # What a newer theme broke without a warning: one search field at most, the text in the page's width.
    assert view.page.locator(".search-button-field:visible").count() <= 1
    assert view.page.locator("main h1:visible").first.bounding_box()["width"] > 0.5 * min(WIDTHS[view.view.width], 700)
    keep(view.page, str(view.view))


@pytest.mark.parametrize("scheme", SCHEMES)
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
