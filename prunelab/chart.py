"""Charts of results: light cards with alt text, in colours that colour-blind readers can tell apart.

The cards are dark ink on an opaque near-white ground, on light and dark pages. Transparent ones would need colours of
middling contrast to survive both grounds, and would then be hard to read on either.
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self, cast

from prunelab.extras import extra

with extra("a plot"):
    import matplotlib as mpl
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, GROUND = "#1f2328", "#6a737d", "#fdfdfc"
# Okabe and Ito's palette without its yellow (1.3:1 on white), the darker hues first. Colour is never the only cue:
# series also differ in marker and line style.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))

WIDTH = 5.2  # inches: on a phone, which shows it about 350 px wide, letters of 11.5 pt are then 11 px high
DPI = 110
STYLE: dict[str, Any] = {
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.labelsize": 11.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": GROUND,
    "figure.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d5d9de",
    "lines.linewidth": 2,
    "lines.markersize": 6.5,
}


class Chart(Figure):
    """A matplotlib figure with alt text, outside pyplot: it needs no `plt.close`, and shows itself in a notebook.

    Attributes:
        prunelab_alt: what the chart says, for those who do not see it.
        prunelab_caption: what to look for in it, shown below it in a notebook; plain text.
    """

    prunelab_alt: str = ""
    prunelab_caption: str = ""

    def captioned(self, caption: str) -> Self:
        """The same chart with a caption, for the last line of a cell."""
        self.prunelab_caption = caption
        return self

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        png, (width, height) = self.drawn()
        shown = captioned(img(png, self.prunelab_alt, width, height), self.prunelab_caption)
        # HTML first, because only it carries the alt text into a page; the bare PNG is for LaTeX and plain viewers.
        bundle = {
            "text/html": shown,
            "image/png": b64encode(png).decode(),
            "text/plain": f"[figure: {self.prunelab_alt}]",
        }
        return bundle, {"image/png": {"width": width, "height": height, "alt": self.prunelab_alt}}

    def drawn(self) -> tuple[bytes, tuple[int, int]]:
        """A PNG, twice as fine as shown, for sharp screens; and its size (width, height) on the page in CSS pixels."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=2 * DPI, facecolor="auto")
        width, height = (round(inches * DPI) for inches in self.get_size_inches())
        return buffer.getvalue(), (width, height)


def captioned(shown: str, caption: str) -> str:
    """HTML with a caption below it, where there is one."""
    if not caption:
        return shown
    words = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f'<figure class="prunelab-figure-captioned" style="margin:0">{shown}{words}</figure>'


def img(png: bytes, alt: str, width: int, height: int) -> str:
    """The HTML of a PNG: shown at `width` CSS pixels, or as wide as there is room."""
    return (
        f'<img class="prunelab-figure" alt="{html.escape(alt)}" width="{width}" height="{height}" '
        # Themes pad and darken images on dark pages; a light card needs neither a second card nor other colours.
        'style="max-width:100%;height:auto;border-radius:6px;padding:0!important;filter:none!important" '
        f'src="data:image/png;base64,{b64encode(png).decode()}">'
    )


def chart(height: float, *, alt: str) -> Chart:
    """An empty chart `height` inches high; draw in it inside `with style():`."""
    figure = Chart(figsize=(WIDTH, height), layout="constrained")
    figure.prunelab_alt = alt
    return figure


def style() -> Any:
    """A context in which matplotlib draws the chart's way; the reader's own settings are back afterwards."""
    return mpl.rc_context(cast(Any, STYLE))


def looks(count: int) -> list[dict[str, Any]]:
    """How to draw `count` lines so that they can be told apart; where they are many, from dark to light in order."""
    if count <= len(COLOURS):
        colours = list(COLOURS[:count])
    else:
        light = 0.78  # beyond it, cividis is too pale on a light ground
        colours = [mpl.colors.to_hex(mpl.colormaps["cividis"](light * i / (count - 1))) for i in range(count)]
    return [
        {"color": colour, "marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[(i + i // len(MARKERS)) % len(LINES)]}
        for i, colour in enumerate(colours)
    ]


def label_ends(figure: Chart, axes: Axes, ends: Sequence[tuple[float, str, str]], size: float = 10.5) -> None:
    """Write at the right of `axes` what each line is called: `ends` are (y of its last point, name, colour).

    Names that would overlap are moved apart, and a line in its colour leads from each to its point. Call it last: it
    takes the limits of the axes as they are.
    """
    figure.draw_without_rendering()  # lays the figure out
    low, high = axes.get_ylim()
    tall = axes.get_position().height * figure.get_size_inches()[1] * 72 or 1.0  # points
    gap = 1.15 * size * (high - low) / tall
    right = axes.get_xlim()[1]
    for place, (y, name, colour) in zip(apart([y for y, _, _ in ends], gap, low, high), ends, strict=True):
        axes.annotate(
            name,
            xy=(right, y),
            xytext=(14, (place - y) / (high - low) * tall),
            textcoords="offset points",
            fontsize=size,
            va="center",
            # The leader carries the colour: letters in a pale one could not be read.
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 1.5,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to the `wanted` ones as they can be, in the same order, at least `gap` from each other.

    They stay between `low` and `high`, where there is room for them: else they share it evenly.

    >>> apart([4.0, 4.0, 9.0], 2.0, 0.0, 10.0)
    [3.0, 5.0, 9.0]
    """
    count = len(wanted)
    if count > 1:
        gap = min(gap, (high - low) / (count - 1))
    order = sorted(range(count), key=lambda index: wanted[index])
    # Take the gaps away: what is left must only not fall. Neighbours that would fall share their mean.
    blocks: list[list[float]] = []
    for rank, index in enumerate(order):
        blocks.append([wanted[index] - rank * gap])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    levels = [_mean(block) for block in blocks for _ in block]
    top = high - (count - 1) * gap
    places = dict(zip(order, (min(max(level, low), top) for level in levels), strict=True))
    return [places[index] + rank * gap for rank, index in sorted(enumerate(order), key=lambda pair: pair[1])]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
