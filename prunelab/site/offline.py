"""Take out of each page what would ask another machine, or is there twice."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_THEBE_MARKS = ("THEBE_JS_URL", "unpkg.com/thebe")


def drop_thebe_scripts(
    _app: Sphinx, _pagename: str, _templatename: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Remove sphinx-thebe's scripts (ours replace them) and every second copy of an inline script.

    sphinx-thebe 0.3 loads an old thebe from a CDN and declares its constants twice, which is an error on every page.
    """
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        filename = str(getattr(script, "filename", None) or "")
        body = str(getattr(script, "attributes", {}).get("body") or "")
        if filename.split("?")[0].endswith("sphinx-thebe.js") or any(mark in filename + body for mark in _THEBE_MARKS):
            continue
        if body and not filename:
            if body in seen:
                continue
            seen.add(body)
        kept.append(script)
    context["script_files"] = kept
    styles = context.get("css_files", [])
    context["css_files"] = [style for style in styles if "sphinx-thebe" not in str(getattr(style, "filename", style))]


def drop_thebe_config(_app: Sphinx, doctree: nodes.document, _docname: str) -> None:
    """Remove the Binder configuration that sphinx-thebe appends to every page; it names a repository we do not have."""
    for node in list(doctree.findall(nodes.raw)):
        text = node.astext()
        if "text/x-thebe-config" in text or text.startswith("<script>kernelName"):
            node.parent.remove(node)
