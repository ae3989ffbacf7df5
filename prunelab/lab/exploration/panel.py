"""One result of the explored function as HTML: what is shown, and the smaller version for print."""

from __future__ import annotations

import html
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from prunelab.lab.exploration.grid import Grid, State
from prunelab.lab.extras import lab_extra
from prunelab.lab.figure import captioned, img, shrink_png, to_png

with lab_extra():
    from matplotlib.figure import Figure

Alt = str | Callable[..., str] | None
PRINT_WIDTH = 480  # pixels of a figure among small multiples: about 2.5 inches at 190 dpi
PRINT_COLOURS = 32


@dataclass(frozen=True)
class Panel:
    """What a state looks like.

    Attributes:
        full: HTML for the screen.
        small: HTML for small multiples in print.
        text: the same in words, for terminals and viewers that show no HTML.
    """

    full: str
    small: str
    text: str


def compute(fn: Callable[..., Any], grid: Grid, state: State, alt: Alt, *, strict: bool) -> Panel:
    """Call `fn` at a state and turn what it returns, and what it prints, into a panel.

    With `strict` a figure without alt text is an error; otherwise the state's description stands in.
    """
    printed = io.StringIO()
    with redirect_stdout(printed):
        result = fn(**grid.arguments(state))
    said = _alt_text(alt, grid, state, result)
    if isinstance(result, Figure):
        if not said and strict:
            raise ValueError(
                "the figure has no alt text, and a page needs one: pass alt= to explore (a str such as "
                f"'Mask at {grid.axes[0].name} {{{grid.axes[0].name}}}', or a function), or set figure.prunelab_alt"
            )
        panel = _figure(result, said or grid.describe(state))
    else:
        panel = _text_or_html(result, said, printed.getvalue())
    lines = printed.getvalue()
    if not lines or result is None:
        return panel
    shown = _pre(lines)
    return Panel(shown + panel.full, shown + panel.small, f"{lines.rstrip()}\n{panel.text}")


def check_alt(alt: Alt, grid: Grid) -> None:
    """Refuse an `alt` that cannot work, before anything is computed."""
    if alt is None or callable(alt):
        return
    if not isinstance(alt, str):
        raise TypeError(f"alt={alt!r} is a {type(alt).__name__}; give a str, a function that returns one, or None")
    labels = grid.labels(next(iter(grid)))
    try:
        alt.format(**labels)
    except (KeyError, IndexError, ValueError) as error:
        names = ", ".join(f"{{{name}}}" for name in labels)
        raise ValueError(f"alt={alt!r} cannot be filled in ({error!r}); its placeholders are {names}") from error


def _alt_text(alt: Alt, grid: Grid, state: State, result: Any) -> str:
    if isinstance(alt, str):
        return alt.format(**grid.labels(state))
    said = alt(**grid.arguments(state)) if callable(alt) else getattr(result, "prunelab_alt", "")
    if not isinstance(said, str):
        raise TypeError(f"alt() returned a {type(said).__name__}; it must return the alt text as a str")
    return said


def _figure(figure: Figure, alt: str) -> Panel:
    png, (width, height) = to_png(figure)
    small, (small_width, small_height) = shrink_png(png, colours=PRINT_COLOURS, width=PRINT_WIDTH)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)  # else a notebook shows it a second time, and a loop keeps them all in memory
    shown = captioned(img(png, alt, width, height), getattr(figure, "prunelab_caption", ""))
    return Panel(shown, img(small, alt, small_width, small_height), alt)


def _text_or_html(result: Any, alt: str, printed: str) -> Panel:
    if result is None and printed:
        result = printed
    if isinstance(result, str):
        shown, words = _pre(result), result
    else:
        shown, words = _html_of(result), alt or str(result)
    if alt:
        shown = f'<div role="group" aria-label="{html.escape(alt)}">{shown}</div>'
    return Panel(shown, shown, words)


def _html_of(result: Any) -> str:
    shown = result._repr_html_() if hasattr(result, "_repr_html_") and not isinstance(result, type) else None
    if not isinstance(shown, str):
        got = "nothing" if result is None else f"a {type(result).__name__}"
        raise TypeError(
            f"the explored function returned {got}, which cannot be shown; return a matplotlib Figure, a str, a "
            "DataFrame or another object with _repr_html_"
        )
    return shown


def _pre(text: str) -> str:
    return f'<pre class="prunelab-text">{html.escape(text.rstrip())}</pre>'
