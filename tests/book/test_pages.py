"""Every page, as plain files and from the server: complete, and alone with its own host."""

from __future__ import annotations

import pytest
from helpers_book import Opened, Served, Watch, chapters, pages, settle, views
from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.book, pytest.mark.browser]


@views(pages())
def test_a_plain_file_server_is_enough(view: Opened) -> None:
    assert view.page.title()
    view.watch.assert_clean()


@pytest.mark.parametrize("name", pages())
def test_the_server_shows_it_too(live_context: BrowserContext, served: Served, name: str) -> None:
    page = live_context.new_page()
    watch = Watch(page, served.home)
    page.goto(f"{served.home}{name}.html", wait_until="networkidle")
    settle(page)
    watch.assert_clean()


@views(pages())
def test_every_picture_says_what_it_shows(view: Opened) -> None:
    alternatives = view.page.eval_on_selector_all("main img", "images => images.map(image => [image.src, image.alt])")
    for source, alternative in alternatives:
        assert len(alternative) > 10, source
        assert not alternative.endswith(".png"), f"{source}: the alt text is a file name"


@views(pages(), widths=("narrow",))
def test_a_phone_never_scrolls_a_page_sideways(view: Opened) -> None:
    wide = view.page.evaluate(
        """() => [...document.querySelectorAll('main *')]
            .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
            .map(element => element.tagName + '.' + element.className).slice(0, 5)"""
    )
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 390, wide


@views(chapters())
def test_the_card_gives_measured_times_and_the_notebook(view: Opened) -> None:
    card = view.page.locator(".prune-card")
    assert card.count() == 1
    assert "Runs in" in card.inner_text()
    assert " s on " in card.inner_text() or " min" in card.inner_text()
    with view.page.expect_download() as download:
        card.get_by_role("link", name=".ipynb").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert '"nbformat": 4' in text
    assert '"outputs": []' in text


@views(pages())
def test_no_button_leads_to_a_repository_that_does_not_exist(view: Opened) -> None:
    links = view.page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    assert [link for link in links if "executablebooks/jupyter-book" in link or "mybinder.org" in link] == []


@views(chapters())
def test_equations_count_from_one_on_every_page(view: Opened) -> None:
    """Code and tables name equations by number, which has to be the one that the page shows."""
    numbers = view.page.locator("main .eqno").all_inner_texts()
    assert [text.strip(" #") for text in numbers] == [f"({number})" for number in range(1, len(numbers) + 1)]
