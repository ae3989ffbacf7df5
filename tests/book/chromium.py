"""Find a Chromium or Chrome for the browser tests; `python tests/book/chromium.py` also tries to get one.

Looked for, in this order: the environment variable PRUNELAB_BROWSER, what the system has, what playwright downloaded
before. To get one: playwright's own download, then, as root on Debian or Ubuntu, the distribution's package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """The path of a browser, or None."""
    chosen = os.environ.get("PRUNELAB_BROWSER")
    if chosen:
        return chosen
    for name in NAMES:
        path = shutil.which(name)
        if path:
            return path
    return next((path for path in (*APPLICATIONS, _downloaded()) if path and Path(path).is_file()), None)


def fetch() -> str | None:
    """Get a browser if there is none; its path, or None where none can be had."""
    path = find()
    if path:
        return path
    _try([sys.executable, "-m", "playwright", "install", "chromium"])
    if not find() and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        _try(["apt-get", "update", "-qq"])
        _try(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"])
    return find()


def _downloaded() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _try(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.stdout.write(f"browser for the tests: {fetch() or 'none found, and none could be fetched'}\n")
