"""The course's site: the Sphinx extension, the Jupyter server extension, live code, and the assets it needs offline.

Nothing in here imports torch: the server has to start, and `prunelab --help` has to answer, at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Let `_config.yml` say `extra_extensions: [prunelab.site]`."""
    from prunelab.site.extension import setup as setup_extension

    return setup_extension(app)
