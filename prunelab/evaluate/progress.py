"""A progress bar for what takes minutes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prunelab.evaluate.extras import extra

if TYPE_CHECKING:
    from tqdm import tqdm


def bar(total: int, what: str, *, done: int = 0, shown: bool = True) -> tqdm:
    """A bar of `total` units called `what`, of which `done` are there already.

    It vanishes when it is closed. Silent while the book is built (`PRUNELAB_BUILD=1`): it would be printed into a page.
    """
    with extra("a progress bar"):
        from tqdm.auto import tqdm
    building = os.environ.get("PRUNELAB_BUILD", "") not in {"", "0"}
    return tqdm(total=total, initial=done, desc=what, leave=False, disable=not shown or building)
