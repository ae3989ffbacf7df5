"""What the Sphinx extension hooks into, in one place."""

from __future__ import annotations

import os
from typing import Any

from sphinx.application import Sphinx

import prunelab
from prunelab.site import ahead, buttons, card, offline, stale


def setup(app: Sphinx) -> dict[str, Any]:
    # The kernels that execute the chapters inherit this: `lab.explore` then draws what a page without a kernel needs.
    os.environ["PRUNELAB_BUILD"] = "1"
    drop = (card.skip, None)
    app.add_node(card.card, html=(card.visit, card.depart), latex=drop, text=drop, man=drop, texinfo=drop)
    app.connect("env-get-outdated", stale.find_stale)
    app.connect("env-before-read-docs", ahead.execute)
    app.connect("env-updated", stale.remember)
    app.connect("doctree-read", card.place)
    app.connect("config-inited", buttons.offer_launchers, priority=900)
    # The theme makes its own buttons at priority 501.
    app.connect("html-page-context", buttons.name_notebook, priority=450)
    app.connect("html-page-context", buttons.add_live_button, priority=600)
    app.connect("doctree-resolved", offline.drop_thebe_config, priority=900)
    app.connect("html-page-context", offline.drop_thebe_scripts, priority=900)
    return {"version": prunelab.__version__, "parallel_read_safe": True, "parallel_write_safe": True}
