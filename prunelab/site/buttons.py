"""What the top of a page offers: Live Code and the notebook; Colab and Binder once the repository has an address."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

# What jupyter-book fills in when `_config.yml` names no repository: its own.
_NOT_OURS = "https://github.com/executablebooks/jupyter-book"


def is_notebook(app: Sphinx, pagename: str) -> bool:
    """Whether the page has code that ran, hence a notebook and a kernel."""
    return "kernelspec" in app.env.metadata.get(pagename, {})


def repository_url(config: Config) -> str:
    """The repository's public address, or "" while there is none."""
    url = str(config.html_theme_options.get("repository_url") or "").rstrip("/")
    return "" if url == _NOT_OURS else url


def offer_launchers(_app: Sphinx, config: Config) -> None:
    """With a repository on GitHub, let the theme make its Colab and Binder buttons; without one, make sure of none."""
    options = config.html_theme_options
    if not repository_url(config):
        options.pop("launch_buttons", None)
        if "repository_url" in options:
            options["repository_url"] = ""
        return
    given = {key: value for key, value in (options.get("launch_buttons") or {}).items() if value}
    options["launch_buttons"] = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        **given,
        "thebe": False,  # the theme's own would load an old Thebe from a CDN
    }


def name_notebook(
    app: Sphinx, pagename: str, _templatename: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Before the theme makes its download menu: tell it that the page has a notebook, and the page its own name."""
    if not is_notebook(app, pagename):
        return
    context["ipynb_source"] = f"{pagename}.ipynb"
    meta = f'<meta name="prunelab-page" content="{escape(pagename)}" />'
    context["metatags"] = context.get("metatags", "") + meta


def add_live_button(
    app: Sphinx, pagename: str, _templatename: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Put Live Code first among the page's buttons, and the notebook where its download link points."""
    if not is_notebook(app, pagename):
        return
    _write_notebook(app, pagename)
    buttons = context.setdefault("header_buttons", [])
    for group in buttons:
        if group.get("label") == "launch-buttons":
            _point_colab_to_notebook(group["buttons"])
    buttons.insert(
        0,
        {
            "type": "javascript",
            "javascript": "window.prunelab.live.start()",
            "text": "Live Code",
            "tooltip": "Run this page's code here",
            "icon": "fas fa-play",
            "label": "prune-live-button",
        },
    )


def _write_notebook(app: Sphinx, pagename: str) -> None:
    """Copy the page's notebook to `_sources`, without outputs: whether myst-nb kept them depends on its cache."""
    source = Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb"
    target = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def _point_colab_to_notebook(buttons: list[dict[str, Any]]) -> None:
    """Colab opens `.ipynb` only, and the chapters are `.md`: link the notebook that is published beside each."""
    for button in buttons:
        if button.get("text") == "Colab":
            button["url"] = button["url"].removesuffix(".md") + (".ipynb" if button["url"].endswith(".md") else "")
