"""Progress bars for loops over things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TypeVar

from prunelab.lab.extras import lab_extra
from prunelab.progress import bar, building

with lab_extra():
    import_module("tqdm")  # here its absence names the extra; `bar` imports it only when there is one to show

__all__ = ["bar", "building", "track"]

T = TypeVar("T")


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """The items one after the other, under a progress bar called `what`."""
    everything = list(items)
    with bar(len(everything), what) as shown:
        for item in everything:
            yield item
            shown.update()
