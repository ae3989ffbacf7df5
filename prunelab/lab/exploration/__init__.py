"""One function, three states: sliders over precomputed results, sliders that recompute, small multiples in print."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prunelab.lab.exploration.grid import Grid
from prunelab.lab.exploration.live import LiveExploration
from prunelab.lab.exploration.panel import Alt
from prunelab.lab.exploration.static import StaticExploration
from prunelab.lab.progress import building

__all__ = ["LiveExploration", "StaticExploration", "explore"]


def explore(
    fn: Callable[..., Any],
    /,
    *,
    alt: Alt = None,
    live: bool | None = None,
    max_bytes: int = 2_000_000,
    max_states: int = 100,
    **grid: Any,
) -> LiveExploration | StaticExploration:
    """Sliders over the arguments of `fn`, one for each keyword in `grid`. Make it the last line of a cell.

    - In a live kernel, moving a slider calls `fn` again; an error is shown in place of the result.
    - In the built book (`PRUNELAB_BUILD=1`) `fn` is called for every combination beforehand, and the sliders switch
      between the results in the reader's browser, without a kernel.
    - On paper, in a PDF and without JavaScript the results stand side by side.

    Args:
        fn: called with one value of each axis. It returns a matplotlib figure, anything with `_repr_html_` (a
            DataFrame, an `IPython.display.HTML`), or a str, shown as plain text. What it prints is shown above.
        alt: the alt text of a result: a str in which "{name}" stands for the label of that slider, or a function of the
            same arguments as `fn`. Figures of `prunelab.lab.plots` bring their own. In the static state a figure
            without alt text is refused.
        live: True or False overrules the choice between kernel and built page.
        max_bytes: what all the explorations of a static page may add to it, together.
        max_states: the most combinations a static page precomputes.
        grid: the values of each axis, at least two: a list, range or array, or a dict label -> value. Labels are made
            from the values and must differ.

    Raises:
        TypeError, ValueError: the grid does not fit `fn`; said before `fn` is called. Or, in the static state, the page
            would grow beyond `max_states` or `max_bytes`, or a result cannot be shown.

    >>> view = explore(lambda a, b: f"{a} + {b} = {a + b}", a=[1, 2], b={"ten": 10, "twenty": 20}, live=False)
    >>> view
    explore: a (1, 2) × b (ten, twenty), 4 states
    """
    if live is not None and not isinstance(live, bool):
        raise TypeError(f"live={live!r}: give True, False or None (an axis cannot be called 'live'; wrap the function)")
    for name, limit in (("max_bytes", max_bytes), ("max_states", max_states)):
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"{name}={limit!r} is a {type(limit).__name__}; give a positive int")
        if limit < 1:
            raise ValueError(f"{name}={limit} must be at least 1")
    points = Grid(fn, grid)
    if live is None:
        live = not building()
    if live:
        return LiveExploration(fn, points, alt)
    return StaticExploration(fn, points, alt, max_bytes=max_bytes, max_states=max_states)
