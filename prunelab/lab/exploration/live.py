"""The state with a kernel: moving a slider calls the function again."""

from __future__ import annotations

import asyncio
import html
import time
import traceback
from collections.abc import Callable
from typing import Any

from prunelab.lab.exploration.grid import Grid, State
from prunelab.lab.exploration.page import box, sliders
from prunelab.lab.exploration.panel import Alt, check_alt, compute
from prunelab.lab.extras import lab_extra

with lab_extra():
    import ipywidgets as widgets
    from IPython.display import display

# Moves that arrive while the function runs wait in the kernel's queue; after this pause only the last one counts.
PAUSE_SECONDS = 0.1


class LiveExploration:
    """Sliders that recompute.

    Attributes:
        widget: what is displayed; sliders: by axis name; status: what it is doing; result: what it shows.
    """

    def __init__(self, fn: Callable[..., Any], grid: Grid, alt: Alt) -> None:
        check_alt(alt, grid)
        self.fn, self.grid, self.alt = fn, grid, alt
        self.sliders = sliders(grid, continuous=False)
        self.status, self.result = widgets.HTML(), widgets.HTML()
        self.widget = box([*self.sliders.values(), self.status, self.result])
        self._waiting: asyncio.TimerHandle | None = None
        for each in self.sliders.values():
            each.observe(self._moved, names="index")

    @property
    def state(self) -> State:
        """Where the sliders stand."""
        return tuple(each.index for each in self.sliders.values())

    def refresh(self) -> None:
        """Call the function where the sliders stand, and show what it returns or the error it raises."""
        self._waiting = None
        state = self.state
        said = html.escape(self.grid.describe(state))
        self.status.value = _status(f"computing {said} …")
        start = time.perf_counter()
        try:
            panel = compute(self.fn, self.grid, state, self.alt, strict=False)
        except (Exception, KeyboardInterrupt) as error:  # any error of the reader's function: shown, and survived
            self.result.value = _error(error)
            self.status.value = _status(f"{said}: failed; move a slider to try again")
            return
        self.result.value = f'<div class="prunelab-panel">{panel.full}</div>'
        self.status.value = _status(f"{said} ({time.perf_counter() - start:.2f} s)")

    def _moved(self, _: object) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel's event loop around: nothing can arrive later, so nothing is worth waiting for
            self.refresh()
            return
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = loop.call_later(PAUSE_SECONDS, self.refresh)

    def _ipython_display_(self) -> None:
        # The sliders first: a slow function is then seen to be working.
        display({**self.widget._repr_mimebundle_(), "text/plain": repr(self)}, raw=True)
        self.refresh()

    def __repr__(self) -> str:
        return f"explore: {self.grid}"


def _status(text: str) -> str:
    return f'<div class="prunelab-status" role="status">{text}</div>'


def _error(error: BaseException) -> str:
    # From the reader's function on: how it came to be called is our business.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("prunelab.lab.exploration"):
        frames = frames.tb_next
    lines = "".join(traceback.format_exception(type(error), error, frames))
    return (
        f'<div class="prunelab-error" role="alert"><strong>{type(error).__name__}</strong>: {html.escape(str(error))}'
        f"<details><summary>traceback</summary><pre>{html.escape(lines)}</pre></details></div>"
    )
