"""A progress bar for what takes minutes, that knows when nobody is watching."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prunelab.extras import extra

if TYPE_CHECKING:
    from tqdm import tqdm


def bar(total: int, what: str, *, done: int = 0, shown: bool = True) -> tqdm:
    """A bar of `total` units called `what`, of which `done` are there already.

    It vanishes when it is closed, and is silent while the book is built.
    """
    with extra("a progress bar"):
        from tqdm.auto import tqdm
    return tqdm(total=total, initial=done, desc=what, leave=False, disable=not shown or building())


def building() -> bool:
    """Is the book being built (`PRUNELAB_BUILD=1`)? Then pages are static, and a bar would be printed into them."""
    return os.environ.get("PRUNELAB_BUILD", "") not in {"", "0"}
