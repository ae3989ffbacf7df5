"""The look that the live and the static state share: style sheet, sliders, and the version for print."""

from __future__ import annotations

import html
from collections.abc import Iterable

from prunelab.lab.exploration.grid import Grid, State
from prunelab.lab.exploration.panel import Panel
from prunelab.lab.extras import lab_extra

with lab_extra():
    import ipywidgets as widgets

PRINTED = 24  # small multiples at most: about two pages of paper

# The page's own text colour everywhere: the widgets' colours are made for JupyterLab, and are black on a dark page.
SCREEN_STYLE = """<style>
.prunelab-explore{overflow:visible;padding:0 .25rem;max-width:100%;color:inherit;
 --jp-widgets-color:currentColor;--jp-widgets-label-color:currentColor;--jp-widgets-readout-color:currentColor;
 --jp-ui-font-color1:currentColor;--jp-content-font-color1:currentColor}
.prunelab-explore .widget-slider,.prunelab-explore .jupyter-widget-slider{width:100%;max-width:36rem;height:auto;
 min-height:2.5rem;flex-wrap:wrap;align-items:center}
.prunelab-explore .widget-label{color:inherit;font-weight:600;text-align:left;overflow:visible}
.prunelab-explore .slider-container{min-width:9rem;margin:0 .75rem}
.prunelab-explore .widget-readout{color:inherit;min-width:3.5rem;width:auto;max-width:none;overflow:visible;
 text-align:left}
.prunelab-explore .noUi-target{background:none;border:1px solid currentColor;opacity:.9}
.prunelab-explore .noUi-handle{background:#0072b2!important;border:2px solid #fdfdfc!important;
 box-shadow:0 0 0 1px #0072b2!important;opacity:1}
.prunelab-explore .noUi-handle:focus-visible{outline:3px solid #d55e00;outline-offset:2px}
.prunelab-explore .widget-html-content{line-height:inherit}
.prunelab-explore .prunelab-panel{overflow-x:auto}
.prunelab-explore .prunelab-text,.prunelab-print .prunelab-text{white-space:pre-wrap;margin:.25rem 0}
.prunelab-explore .prunelab-status{font-size:.9em;min-height:1.4em;opacity:.85}
.prunelab-explore .prunelab-error{border-left:4px solid #d55e00;padding:.25rem .75rem}
.prunelab-explore .prunelab-error pre{white-space:pre-wrap;max-height:20rem;overflow:auto}
/* Once the page is live, widgets without a kernel are marked as broken; these need none. */
.prunelab-static.jupyter-widgets-disconnected::before,
.prunelab-static .jupyter-widgets-disconnected::before{content:none!important}
.widget-subarea:has(.prunelab-explore){background:none!important;color:inherit!important;padding:0!important}
@media print{.prunelab-explore{display:none!important}}
</style>"""

# Hidden on screens, where the sliders are, and shown on paper and where there is no JavaScript to make sliders.
PRINT_STYLE = """<style>
.prunelab-print{display:none}
.text_html:has(>.prunelab-print){padding:0!important;background:none!important;color:inherit!important}
@media print{.prunelab-print{display:grid!important}}
.prunelab-print{grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:.75rem}
.prunelab-print>figure{margin:0;break-inside:avoid}
.prunelab-print>figure>figcaption{font-size:.85em;text-align:left;margin-top:.25rem}
.prunelab-print>p{grid-column:1/-1;margin:0}
</style><noscript><style>.prunelab-print{display:grid!important}</style></noscript>"""


def sliders(grid: Grid, *, continuous: bool) -> dict[str, widgets.SelectionSlider]:
    """A slider for each axis, by name, over its labels; `index` is the position."""
    # One width for all the names, so that the sliders stand in line: about 0.6 em a letter.
    width = f"{0.6 * max(len(axis.title) for axis in grid.axes) + 0.5:.1f}em"
    return {
        axis.name: widgets.SelectionSlider(
            options=list(axis.labels),
            description=axis.title,
            tooltip=axis.title,
            continuous_update=continuous,
            style={"description_width": width},
            layout=widgets.Layout(width="100%"),
        )
        for axis in grid.axes
    }


def box(children: Iterable[widgets.Widget]) -> widgets.VBox:
    """The widgets of an exploration, under their style sheet."""
    shown = widgets.VBox([widgets.HTML(SCREEN_STYLE), *children])
    shown.add_class("prunelab-explore")
    return shown


def small_multiples(grid: Grid, panels: dict[State, Panel]) -> str:
    """The results side by side, each above the settings it belongs to: all of them, or a spread of `PRINTED`."""
    states = grid.sample(PRINTED)
    figures = "".join(
        f"<figure>{panels[state].small}<figcaption>{html.escape(grid.describe(state))}</figcaption></figure>"
        for state in states
    )
    note = "" if len(states) == len(grid) else f"<p>{len(states)} of {len(grid)} results.</p>"
    return f'{PRINT_STYLE}<div class="prunelab-print">{figures}{note}</div>'
