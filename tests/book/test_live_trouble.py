"""Live code when something is wrong: a message that says what, and a button that leads back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from urllib.request import Request, urlopen

import pytest
from helpers_book import Served, Watch, chapters, go_live, open_cells, run_code, settle, status
from playwright.sync_api import BrowserContext, Page, expect

pytestmark = [pytest.mark.book, pytest.mark.browser]


def bar_button(page: Page, name: str):
    return page.locator(".prune-live-bar").get_by_role("button", name=name)


@pytest.fixture
def own_server(book: object) -> Iterator[Callable[..., Served]]:
    """Servers of a test's own, which it may stop."""
    started: list[Served] = []

    def start(*options: str, **environment: str) -> Served:
        started.append(Served(*options, **environment))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def logged_in(context: BrowserContext, server: Served) -> Page:
    page = context.new_page()
    page.goto(f"{server.home}?token={server.token}", wait_until="networkidle")
    page.goto(f"{server.home}{chapters()[0]}.html", wait_until="networkidle")
    settle(page)
    return page


def test_without_a_server_the_page_says_how_to_get_one(
    open_page: Callable[[str], tuple[Page, Watch]], static_site: str
) -> None:
    page, _ = open_page(f"{static_site}{chapters()[0]}.html")
    page.get_by_role("button", name="Live Code").first.click()
    expect(status(page)).to_contain_text("make serve")
    expect(bar_button(page, "Reconnect")).to_be_visible()
    bar_button(page, "Close").click()
    expect(page.locator(".prune-live-bar")).to_be_hidden()


def test_a_lost_login_leads_to_the_login(context: BrowserContext, served: Served) -> None:
    page = logged_in(context, served)
    context.clear_cookies()
    page.get_by_role("button", name="Live Code").first.click()
    expect(status(page)).to_contain_text("refuses this browser")
    bar_button(page, "Log in").click()
    page.wait_for_url("**/login**")


def test_stop_frees_the_kernel_and_start_again_gives_a_new_one(context: BrowserContext, served: Served) -> None:
    page = logged_in(context, served)
    go_live(page)
    run_code(page, "kept = 1")
    bar_button(page, "Stop").click()
    expect(status(page)).to_contain_text("stopped")
    bar_button(page, "Start again").click()
    expect(status(page)).to_contain_text("Live.")
    expect(run_code(page, "print('kept' in globals())")).to_have_text("False")


def test_a_reload_finds_its_kernel_and_restart_cleans_it(context: BrowserContext, served: Served) -> None:
    page = logged_in(context, served)
    go_live(page)
    run_code(page, "kept = 1")
    page.reload(wait_until="networkidle")
    settle(page)
    go_live(page)
    expect(status(page)).to_contain_text("still there")
    expect(run_code(page, "print('kept' in globals())")).to_have_text("True")
    bar_button(page, "Restart").click()
    expect(status(page)).to_contain_text("no variables yet")
    expect(run_code(page, "print('kept' in globals())")).to_have_text("False")


def test_interrupt_ends_a_cell_and_keeps_the_variables(context: BrowserContext, served: Served) -> None:
    page = logged_in(context, served)
    go_live(page)
    run_code(page, "kept = 1")
    run_code(page, "import time\nwhile True: time.sleep(0.1)", wait=False)
    bar_button(page, "Interrupt").click()
    expect(status(page)).to_have_text(re.compile(r"Cell \d+ ended with an error\."))
    expect(run_code(page, "print('kept' in globals())")).to_have_text("True")


def test_a_kernel_that_was_killed_is_noticed_and_replaced(context: BrowserContext, served: Served) -> None:
    page = logged_in(context, served)
    go_live(page)
    headers = {"Authorization": f"token {served.token}"}
    with urlopen(Request(f"{served.base}api/sessions", headers=headers)) as answer:
        for session in json.load(answer):
            urlopen(Request(f"{served.base}api/sessions/{session['id']}", headers=headers, method="DELETE")).close()
    expect(status(page)).to_contain_text("The kernel is gone", timeout=30_000)
    open_cells(page).first.get_by_role("button", name="Run cell").click()
    expect(status(page)).to_contain_text("no kernel to run this cell")
    bar_button(page, "Reconnect").click()
    expect(status(page)).to_contain_text("Live.")
    expect(run_code(page, "print(6 * 7)")).to_have_text("42")


def test_an_idle_kernel_is_culled_and_the_page_says_so(
    context: BrowserContext, own_server: Callable[..., Served]
) -> None:
    page = logged_in(context, own_server("--idle-minutes", "0.05"))
    go_live(page)
    expect(status(page)).to_contain_text("The kernel is gone", timeout=60_000)
    bar_button(page, "Reconnect").click()
    expect(status(page)).to_contain_text("Live.")


def test_a_server_that_comes_back_is_found_again(context: BrowserContext, own_server: Callable[..., Served]) -> None:
    first = own_server(JUPYTER_TOKEN="a-token-for-two-servers")
    port = first.home.rpartition(":")[2].partition("/")[0]
    page = logged_in(context, first)
    go_live(page)
    first.stop()
    expect(status(page)).to_contain_text("does not answer", timeout=30_000)
    bar_button(page, "Reconnect").click()
    expect(status(page)).to_contain_text("does not answer")
    own_server("--port", port, JUPYTER_TOKEN="a-token-for-two-servers")
    bar_button(page, "Reconnect").click()
    expect(page.locator(".prune-live-bar")).to_have_attribute("data-state", "ready", timeout=30_000)
    expect(run_code(page, "print(6 * 7)")).to_have_text("42")


def test_it_works_below_another_path(context: BrowserContext, own_server: Callable[..., Served]) -> None:
    server = own_server("--base-url", "/user/ada")
    assert "/user/ada/course/" in server.home
    page = logged_in(context, server)
    watch = Watch(page, server.home)
    go_live(page)
    expect(run_code(page, "print(6 * 7)")).to_have_text("42")
    watch.assert_clean()


def test_jupyterlab_opens_a_chapter_as_a_notebook(context: BrowserContext, served: Served) -> None:
    page = logged_in(context, served)
    page.goto(f"{served.base}lab/tree/{chapters()[0]}.md")
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    # Not the first code cell there is: JupyterLab draws an empty one before it has read the file.
    expect(notebook.locator(".jp-CodeCell", has_text="import prunelab").first).to_be_visible(timeout=60_000)
