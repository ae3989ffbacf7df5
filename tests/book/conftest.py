"""The built book, served in both ways, and a browser that reports whatever goes wrong on a page.

Without a built book or a browser these tests are skipped with one loud line; where CI=true they fail.
"""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # pytest need not put the folder of a test on the path

import chromium
from helpers_book import HTML, WIDTHS, Opened, Served, View, Watch, missing, settle


@pytest.hookimpl(trylast=True)  # pytest itself would order views by their numbers, of which each test has its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser last: playwright leaves an event loop running in this thread, which other tests do not expect.

    At the very end, and view by view, the tests that share one: each is then opened once.
    """
    here = Path(__file__).parent
    order: dict[View, int] = {}

    def place(item: pytest.Item) -> tuple[bool, int]:
        view = item.callspec.params.get("view") if hasattr(item, "callspec") else None
        return here in item.path.parents, order.setdefault(view, len(order)) if isinstance(view, View) else -1

    items.sort(key=place)


@pytest.fixture(scope="session")
def book() -> Path:
    if not (HTML / "index.html").is_file():
        missing("the book is not built; run `make book`")
    return HTML


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        missing("there is no Chromium or Chrome; install one, or name it in PRUNELAB_BROWSER")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(chromium.FLAGS))
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    fresh = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield fresh
    fresh.close()


@pytest.fixture(scope="session")
def static_site(book: Path) -> Iterator[str]:
    """The book as plain files, as any web server would serve it; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def served(book: Path) -> Iterator[Served]:
    started = Served()
    yield started
    started.stop()


@pytest.fixture
def live_context(context: BrowserContext, served: Served) -> BrowserContext:
    """A browser that is logged in: it asked once for the printed address."""
    assert context.request.get(f"{served.home}?token={served.token}").ok
    return context


@pytest.fixture(scope="session")
def view(browser: Browser, static_site: str, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A view of a page as plain files, settled; tests of the same view that follow each other get the same one."""
    wanted: View = request.param
    size = {"width": WIDTHS[wanted.width], "height": 900}
    with browser.new_context(viewport=size, color_scheme=wanted.scheme) as context:
        page = context.new_page()
        watch = Watch(page, static_site)
        page.goto(f"{static_site}{wanted.name}.html", wait_until="networkidle")
        settle(page)
        yield Opened(wanted, page, watch)


@pytest.fixture
def open_page(context: BrowserContext) -> Callable[[str], tuple[Page, Watch]]:
    """Open an address, wait until it has settled; the page and what it did."""

    def opened(address: str) -> tuple[Page, Watch]:
        page = context.new_page()
        watch = Watch(page, address)
        page.goto(address, wait_until="networkidle")
        settle(page)
        return page, watch

    return opened
