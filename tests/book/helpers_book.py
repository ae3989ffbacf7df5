"""What the tests of the built book share: its pages, the server, and a record of what a page does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
ARTIFACTS = ROOT / "artifacts"
WIDTHS = {"wide": 1280, "narrow": 390}
SCHEMES = ("light", "dark")


def pages() -> list[str]:
    """Every page of the table of contents, and the search page."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [toc["root"]]

    def walk(entry: object) -> None:
        if isinstance(entry, dict):
            found.extend([entry["file"]] if "file" in entry else [])
            for value in entry.values():
                walk(value)
        elif isinstance(entry, list):
            for value in entry:
                walk(value)

    walk({key: value for key, value in toc.items() if key != "root"})
    return [*found, "search"]


def notebooks() -> list[str]:
    """The pages with code that runs."""
    return [page for page in pages() if (HTML / "_sources" / f"{page}.ipynb").is_file()]


def chapters() -> list[str]:
    """The notebooks that teach: all but the landing page."""
    return [page for page in notebooks() if page != pages()[0]]


def missing(what: str) -> None:
    """Skip with a loud line on somebody's own machine; fail where the tests are the gate."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    warnings.warn(f"BROWSER TESTS SKIPPED: {what}", stacklevel=2)
    pytest.skip(what)


@dataclass(frozen=True)
class View:
    """How a reader without a kernel sees a page: which one, how wide, light or dark."""

    name: str
    width: str = "wide"
    scheme: str = "light"

    def __str__(self) -> str:
        return f"{self.name}-{self.width}-{self.scheme}"


def views(names: list[str], widths: tuple[str, ...] = ("wide",), schemes: tuple[str, ...] = ("light",)) -> Any:
    """Run the test once for each of these views of each of these pages; its argument `view` is the View, opened."""
    chosen = [View(name, width, scheme) for name in names for width in widths for scheme in schemes]
    return pytest.mark.parametrize("view", chosen, indirect=True, ids=str)


@dataclass(frozen=True)
class Opened:
    """A view in the browser. Tests share it: they look, and leave it as it was."""

    view: View
    page: Page
    watch: Watch


class Watch:
    """Everything a page did that it should not: requests to others, failed requests, errors."""

    def __init__(self, page: Page, home: str) -> None:
        self.outside: list[str] = []
        self.failed: list[str] = []
        self.errors: list[str] = []
        self.host = urlsplit(home).netloc
        page.on("request", lambda request: self._request(request.url))
        page.on("requestfailed", lambda request: self.failed.append(f"{request.failure} {request.url}"))
        page.on(
            "response",
            lambda answer: self.failed.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != self.host:
            self.outside.append(url)

    def assert_clean(self) -> None:
        assert self.outside == []
        assert self.failed == []
        assert self.errors == []


class Served:
    """A running `prunelab serve`: `home` is the book's address, `token` what opens it."""

    def __init__(self, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "prunelab", "serve", "--no-browser", "--port", "0", *options]
        # JupyterLab opens again what was open last, in whichever test that was; here each server starts with nothing.
        self.workspaces = tempfile.TemporaryDirectory()
        environment = {**os.environ, "JUPYTERLAB_WORKSPACES_DIR": self.workspaces.name, **environment}
        environment.pop("PRUNELAB_BUILD", None)
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            found = re.search(r"(http://\S+/course/)\?token=(\S+)", line)
            if found:
                self.home, self.token = found[1], found[2]
                return
        raise RuntimeError(f"prunelab serve said {self.said}")

    @property
    def base(self) -> str:
        """The server's own address, with the slash."""
        return self.home.removesuffix("course/")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.workspaces.cleanup()


def settle(page: Page) -> None:
    """Wait until formulas are set and every widget of the page is drawn."""
    page.wait_for_function(
        """() => {
            const formulas = document.querySelectorAll('.math').length;
            const set = document.querySelectorAll('mjx-container').length;
            const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]').length;
            const drawn = document.querySelectorAll('.widget-subarea .jupyter-widgets, .widget-subarea .lm-Widget').length;
            return document.readyState === 'complete' && set >= formulas && drawn >= views;
        }"""
    )


def go_live(page: Page) -> None:
    """Press Live Code and wait for the kernel, and for what the page asks of it."""
    page.get_by_role("button", name="Live Code").first.click()
    expect(page.locator(".prune-live-bar")).to_have_attribute("data-state", "ready", timeout=30_000)
    expect(page.locator(".prune-live-device")).to_contain_text("Runs on", timeout=60_000)


def status(page: Page) -> Locator:
    """What the bar of the live page says."""
    return page.locator(".prune-live-status")


def open_cells(page: Page) -> Locator:
    """The live page's cells that are not folded away."""
    return page.locator("div.cell:has(.thebe-cell):not(:has(> details:not([open]))):visible")


def run_code(page: Page, code: str, *, wait: bool = True) -> Locator:
    """Put `code` into the page's first open cell and run it; the cell's output."""
    cell = open_cells(page).first
    cell.evaluate("(cell, code) => cell.querySelector('.CodeMirror').CodeMirror.setValue(code)", code)
    cell.get_by_role("button", name="Run cell").click()
    if wait:
        expect(cell.locator(".thebe-cell")).not_to_have_attribute("aria-busy", "true", timeout=60_000)
    return cell.locator(".prune-live-output")
