"""Progress bars that know when nobody is watching."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from prunelab.lab.extras import lab_extra

with lab_extra():
    from tqdm.auto import tqdm

T = TypeVar("T")


def building() -> bool:
    """Is the book being built (`PRUNELAB_BUILD=1`)? Then pages are static, and a bar would be printed into them."""
    return os.environ.get("PRUNELAB_BUILD", "") not in {"", "0"}


def bar(total: int, what: str, shown: bool = True) -> tqdm:
    """A progress bar of `total` units called `what`; it vanishes when done, and is silent while the book is built."""
    return tqdm(total=total, desc=what, leave=False, disable=not shown or building())


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """The items one after the other, under a progress bar called `what`."""
    everything = list(items)
    with bar(len(everything), what) as shown:
        for item in everything:
            yield item
            shown.update()
