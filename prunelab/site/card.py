"""The card at the head of a chapter: how long, how hard, what first, which module, and the notebook.

A chapter asks for it in its front matter, with what only its author knows:

    prune:
      difficulty: introductory
      module: prunelab.granularity
      requires: [ch-what-is-pruning]        labels of other chapters

What can be measured is: the reading time from the words on the page, the run time and the device from the execution
that made its outputs, and the GPU's from `benchmarks/results/chapters-cuda.json` ({page: {"seconds": s, "device": d}}).
"""

from __future__ import annotations

import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

from prunelab.site.buttons import is_notebook
from prunelab.site.stale import device_of

_LOG = logging.getLogger(__name__)
# Text that is to be understood, not skimmed; a displayed equation takes half a minute more.
_WORDS_PER_MINUTE = 130
_MINUTES_PER_EQUATION = 0.5
_KEYS = frozenset({"difficulty", "module", "requires", "minutes_read"})
_GPU = Path("benchmarks") / "results" / "chapters-cuda.json"


class card(nodes.General, nodes.Element):  # docutils names nodes in lower case
    """The card of the page `docname`; its children are the links to what to read first."""


def place(app: Sphinx, doctree: nodes.document) -> None:
    """`doctree-read`: put the card after the title. Its links are ordinary references: a wrong label is a warning."""
    docname = app.env.docname
    chosen = _front_matter(app, docname)
    title = next(iter(doctree.findall(nodes.title)), None)
    if chosen is None or title is None:
        return
    unknown = sorted(set(chosen) - _KEYS)
    if unknown:
        known = ", ".join(sorted(_KEYS))
        _LOG.warning("the front matter `prune:` has %s; it knows %s", unknown, known, location=docname)
    if (Path(app.srcdir) / _GPU).is_file():  # a dependency that is missing would make the page outdated for ever
        app.env.note_dependency(str(Path(app.srcdir) / _GPU))
    words = sum(len(re.findall(r"\w+", node.astext())) for node in doctree.findall(nodes.paragraph))
    equations = sum(1 for _ in doctree.findall(nodes.math_block))
    estimate = words / _WORDS_PER_MINUTE + equations * _MINUTES_PER_EQUATION
    minutes = chosen.get("minutes_read") or max(1, math.ceil(estimate))
    node = card(docname=docname, difficulty=str(chosen.get("difficulty", "")), minutes=int(minutes))
    node["module"] = str(chosen.get("module", ""))
    labels = chosen.get("requires") or []
    if labels:
        node += nodes.paragraph("", "", *_references(docname, [str(label) for label in labels]))
    title.parent.insert(title.parent.index(title) + 1, node)


def visit(translator: Any, node: card) -> None:
    """Open the card; its children, the links to what comes first, are written by Sphinx in the last entry."""
    app: Sphinx = translator.builder.app
    docname = node["docname"]
    rows = [("Reading", f"{node['minutes']} min"), *_times(app, docname)]
    rows += [(name, node[key]) for name, key in (("Level", "difficulty"),) if node[key]]
    written = "".join(_entry(name, escape(text)) for name, text in rows)
    if node["module"]:
        written += _entry("Module", f"<code>{escape(node['module'])}</code>")
    if is_notebook(app, docname):
        written += _entry("Notebook", _notebook_link(docname))
    translator.body.append(f'<aside class="prune-card" aria-label="About this chapter"><dl>{written}')
    if node.children:
        translator.body.append('<div class="prune-card-wide"><dt>Read first</dt><dd>')


def depart(translator: Any, node: card) -> None:
    translator.body.append("</dd></div></dl>" if node.children else "</dl>")
    app: Sphinx = translator.builder.app
    if is_notebook(app, node["docname"]):
        # Hidden until live.js knows that it can do something.
        translator.body.append('<button type="button" class="prune-live-start" hidden>▶ Run this page’s code</button>')
    translator.body.append("</aside>")


def skip(_translator: Any, _node: card) -> None:
    """Builders other than HTML have no card."""
    raise nodes.SkipNode


def seconds_in_words(seconds: float) -> str:
    """A measured time, rounded to what a reader plans with: 4.4 s, 23 s, 2 min 10 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes, rest = divmod(round(seconds, -1), 60)
    return f"{int(minutes)} min" + (f" {int(rest)} s" if rest else "")


def _front_matter(app: Sphinx, docname: str) -> dict[str, Any] | None:
    """The `prune:` mapping of a page; None when it has none. Sphinx keeps nested front matter as JSON text."""
    value = app.env.metadata.get(docname, {}).get("prune")
    if isinstance(value, str):
        value = json.loads(value)
    return value if isinstance(value, dict) else None


def _times(app: Sphinx, docname: str) -> list[tuple[str, str]]:
    """(name, text) for each measured run time of the chapter."""
    data = getattr(app.env, "nb_metadata", {}).get(docname, {}).get("exec_data") or {}
    seconds = data.get("runtime")
    times = []
    if seconds is not None and data.get("succeeded"):
        device = device_of(app.env, docname, seconds)
        times.append(("Runs in", seconds_in_words(seconds) + (f" on {device}" if device else "")))
    gpu = _gpu_time(app, docname)
    if gpu:
        times.append(("With a GPU", f"{seconds_in_words(gpu['seconds'])} on {gpu['device']}"))
    return times


def _gpu_time(app: Sphinx, docname: str) -> dict[str, Any] | None:
    try:
        measured = json.loads((Path(app.srcdir) / _GPU).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return measured.get(docname)


def _entry(name: str, value: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _notebook_link(docname: str) -> str:
    up = "../" * docname.count("/")
    name = docname.rpartition("/")[2]
    return f'<a href="{up}_sources/{docname}.ipynb" download="{name}.ipynb">{name}.ipynb</a>'


def _references(docname: str, labels: list[str]) -> list[nodes.Node]:
    """Links to other chapters by their labels, each titled as its chapter is, with a dot between them."""
    found: list[nodes.Node] = []
    for label in labels:
        if found:
            found.append(nodes.Text(" · "))
        inner = nodes.inline("", label, classes=["xref", "std", "std-ref"])
        options = {"refdoc": docname, "refdomain": "std", "reftype": "ref", "reftarget": label}
        found.append(addnodes.pending_xref("", inner, refexplicit=False, refwarn=True, **options))
    return found
