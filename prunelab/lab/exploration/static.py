"""The state without a kernel: every result computed beforehand, switched by linked sliders in the browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from prunelab.lab.exploration.grid import Grid, State
from prunelab.lab.exploration.page import PRINTED, box, sliders, small_multiples
from prunelab.lab.exploration.panel import Alt, Panel, check_alt, compute
from prunelab.lab.extras import lab_extra
from prunelab.lab.progress import bar, building

with lab_extra():
    import ipywidgets as widgets

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# What the explorations of this page weigh so far. One kernel executes one chapter, so the process is the page.
_page = {"bytes": 0}


class StaticExploration:
    """Precomputed results in nested stacks, one level an axis, each slider linked to all the stacks of its level.

    Attributes:
        widget: what is displayed; sliders: by axis name; root: the outermost stack; links: slider -> stack.
        panels: state -> result.
        bytes: what the exploration adds to the page.
    """

    def __init__(self, fn: Callable[..., Any], grid: Grid, alt: Alt, *, max_bytes: int, max_states: int) -> None:
        check_alt(alt, grid)
        if len(grid) > max_states:
            raise ValueError(
                f"the grid {_product(grid)} has {len(grid)} states, more than max_states={max_states} that a static "
                f"page precomputes; give fewer values (the longest axis is {_longest(grid)}), or raise max_states"
            )
        self.grid = grid
        self.panels = _precompute(fn, grid, alt, max_bytes)
        self.sliders = sliders(grid, continuous=True)
        self.links: list[widgets.Widget] = []
        # One Layout and one style for all leaves: each would otherwise add 1 kB of defaults to the page.
        self._layout, self._style = widgets.Layout(width="100%"), widgets.HTML().style
        self.root = self._stack(())
        self.widget = box([*self.sliders.values(), self.root])
        self.widget.add_class("prunelab-static")
        self.printed = small_multiples(grid, self.panels)
        self.bytes = len(self.printed) + _weight(self.widget) + sum(map(_weight, self.links))
        if _page["bytes"] + self.bytes > max_bytes:
            raise ValueError(_too_big(self.panels, len(grid), self.bytes, max_bytes))
        _page["bytes"] += self.bytes

    def _stack(self, prefix: State) -> widgets.Stack:
        """The stack that chooses along axis `len(prefix)` when the sliders before it stand at `prefix`."""
        depth = len(prefix)
        last = depth == len(self.grid.axes) - 1
        states = [(*prefix, index) for index in range(self.grid.shape[depth])]
        children = [self._leaf(state) if last else self._stack(state) for state in states]
        stack = widgets.Stack(children, selected_index=0, layout=self._layout)
        source = self.sliders[self.grid.axes[depth].name]
        self.links.append(widgets.jslink((source, "index"), (stack, "selected_index")))
        return stack

    def _leaf(self, state: State) -> widgets.HTML:
        shown = f'<div class="prunelab-panel">{self.panels[state].full}</div>'
        return widgets.HTML(shown, layout=self._layout, style=self._style)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        view = self.widget._repr_mimebundle_()
        if not building():  # JupyterLab with live=False: it shows widgets by their own MIME type
            return {WIDGET_VIEW: view[WIDGET_VIEW], "text/html": self.printed, "text/plain": self.text()}
        # In a page: one output, because a captioned cell numbers every output as a figure of its own. The version for
        # print is part of the page, so it is there without JavaScript; the script is what html-manager looks for.
        script = f'<script type="{WIDGET_VIEW}">{json.dumps(view[WIDGET_VIEW])}</script>'
        return {"text/html": self.printed + script, "text/plain": self.text()}

    def text(self) -> str:
        """Every result in words, one block a state."""
        blocks = [f"{self.grid.describe(state)}: {panel.text}" for state, panel in self.panels.items()]
        return "\n".join([repr(self), *blocks])

    def __repr__(self) -> str:
        return f"explore: {self.grid}"


def _precompute(fn: Callable[..., Any], grid: Grid, alt: Alt, max_bytes: int) -> dict[State, Panel]:
    panels: dict[State, Panel] = {}
    printed, full, small = set(grid.sample(PRINTED)), 0, 0
    with bar(len(grid), "exploring") as shown:
        for state in grid:
            try:
                panels[state] = compute(fn, grid, state, alt, strict=True)
            except Exception as error:
                error.add_note(f"while exploring {grid.describe(state)}")
                raise
            full += len(json.dumps(panels[state].full))
            small += len(panels[state].small) if state in printed else 0
            if _page["bytes"] + full + small > max_bytes:
                raise ValueError(_too_big(panels, len(grid), full + small, max_bytes))
            shown.update()
    return panels


def _too_big(panels: dict[State, Panel], states: int, weight: int, max_bytes: int) -> str:
    """What does not fit, how many states would, and the ways out."""
    used, done = _page["bytes"], len(panels)
    room = max(0, max_bytes - used)
    on_screen = sum(len(panel.full) for panel in panels.values()) / done
    on_paper = sum(len(panel.small) for panel in panels.values()) / done
    fitting = room / (on_screen + on_paper)
    if fitting > PRINTED:  # beyond that many, states are on the screen only
        fitting = (room - PRINTED * on_paper) / on_screen
    before = f" (other explorations on this page already hold {used / 1e6:.2f} MB)" if used else ""
    return (
        f"{done} of the {states} states take {weight / 1e6:.2f} MB, and max_bytes allows the page "
        f"{max_bytes / 1e6:.2f} MB{before}; of this size about {int(fitting)} states fit. "
        "Give fewer values, draw smaller figures (figsize), or raise max_bytes"
    )


def _weight(widget: widgets.Widget) -> int:
    """Bytes of a widget's saved state in the page, and of all the widgets inside it, each once."""
    found: dict[str, widgets.Widget] = {}
    waiting = [widget]
    while waiting:
        current = waiting.pop()
        if current.model_id in found:
            continue
        found[current.model_id] = current
        parts = [getattr(current, name, None) for name in ("layout", "style")]
        waiting += [part for part in (*parts, *getattr(current, "children", ())) if isinstance(part, widgets.Widget)]
    return sum(len(json.dumps(each.get_state(), default=str)) for each in found.values())


def _product(grid: Grid) -> str:
    return " × ".join(f"{axis.name} {len(axis.labels)}" for axis in grid.axes)


def _longest(grid: Grid) -> str:
    axis = max(grid.axes, key=lambda axis: len(axis.labels))
    return f"{axis.name} with {len(axis.labels)}"
