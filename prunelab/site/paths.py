"""Where the parts of a checkout lie."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"


class NoBookError(ValueError):
    """There is no book here; the message says where one was looked for."""


def find_root(start: Path | None = None) -> Path:
    """The folder with `_config.yml` and `_toc.yml`: `start` (default: the working directory), or the nearest above it.

    Failing that, and with no `start`, the checkout this package was installed from with `pip install -e`.
    Raises NoBookError (a ValueError) when there is none.
    """
    begin = (start or Path.cwd()).resolve()
    installed = [] if start else [Path(__file__).resolve().parents[2]]
    for folder in (begin, *begin.parents, *installed):
        if (folder / "_config.yml").is_file() and (folder / "_toc.yml").is_file():
            return folder
    raise NoBookError(
        f"no book found: neither {begin} nor a folder above it has _config.yml and _toc.yml; "
        "run this inside a clone of the repository"
    )


def web_folder(root: Path) -> Path:
    """The vendored browser libraries, a Sphinx static folder."""
    return root / "vendor" / "web"


def html_folder(root: Path) -> Path:
    """The built book."""
    return root / "_build" / "html"
