"""A figure that brings its own alt text, readable on light and dark pages.

The figures are light cards: dark ink on an opaque near-white ground, in both themes. Transparent figures would need
colours of middling contrast to survive both grounds, and would then be hard to read on either.
"""

from __future__ import annotations

import html
from base64 import b64encode
from io import BytesIO
from typing import Any, Self, cast

from prunelab.lab.extras import lab_extra

with lab_extra():
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from PIL import Image

INK = "#1f2328"
FAINT = "#6a737d"
GROUND = "#fdfdfc"

# Okabe and Ito's palette without its yellow (1.3:1 on white), the darker hues first. Colour is never the only cue:
# series also differ in marker and line style.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))

# A phone shows the figure about 350 px wide: at 5.2 inches across, 11.5 pt letters are then 11 px high.
WIDTH = 5.2
SHOWN_DPI = 110
STYLE: dict[str, Any] = {
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.labelsize": 11.5,
    "legend.fontsize": 10.5,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
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
    "axes.grid": False,
    "grid.color": "#d5d9de",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 6.5,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}


class Picture(Figure):
    """A matplotlib figure with alt text, outside pyplot: it needs no `plt.close`, and shows itself in a notebook.

    Attributes:
        prunelab_alt: what the picture says, for those who do not see it.
        prunelab_caption: what to look for in it, shown below the picture in a notebook; plain text.
    """

    prunelab_alt: str
    prunelab_caption: str = ""

    def __init__(self, *args: Any, alt: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.prunelab_alt = alt

    def captioned(self, caption: str) -> Self:
        """The same picture with a caption, for the last line of a cell."""
        self.prunelab_caption = caption
        return self

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        png, (width, height) = to_png(self)
        shown = captioned(img(png, self.prunelab_alt, width, height), self.prunelab_caption)
        # HTML first, because only it carries the alt text into a page; the bare PNG is for LaTeX and plain viewers.
        bundle = {
            "text/html": shown,
            "image/png": b64encode(png).decode(),
            "text/plain": f"[figure: {self.prunelab_alt}]",
        }
        return bundle, {"image/png": {"width": width, "height": height, "alt": self.prunelab_alt}}


def captioned(shown: str, caption: str) -> str:
    """HTML with a caption below it, where there is one."""
    if not caption:
        return shown
    words = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f'<figure class="prunelab-figure-captioned" style="margin:0">{shown}{words}</figure>'


def picture(height: float, *, alt: str, layout: str = "constrained") -> Picture:
    """An empty picture `height` inches high; draw in it inside `with style():`."""
    return Picture(figsize=(WIDTH, height), layout=layout, alt=alt)


def style() -> Any:
    """A context in which matplotlib draws the lab's way; the reader's own settings are back afterwards."""
    return mpl.rc_context(cast(Any, STYLE))  # the stubs spell out every key as a literal


def to_png(figure: Figure, *, scale: float = 2.0, colours: int = 256) -> tuple[bytes, tuple[int, int]]:
    """A figure as a palette PNG, and its size (width, height) on the page in CSS pixels.

    Drawn `scale` times finer than shown, for sharp screens; a palette of `colours` makes charts about three times
    smaller than true colour, and no difference is seen.
    """
    buffer = BytesIO()
    # A figure that lays itself out keeps its size, so that nothing jumps when a slider swaps it for another; one that
    # does not is cropped to what is drawn, as notebooks do, so that no label is lost.
    crop = None if figure.get_layout_engine() is not None else "tight"
    figure.savefig(buffer, format="png", dpi=SHOWN_DPI * scale, facecolor="auto", bbox_inches=crop)
    return shrink_png(buffer.getvalue(), colours=colours, scale=scale)


def shrink_png(
    png: bytes, *, colours: int, scale: float = 1.0, width: int | None = None
) -> tuple[bytes, tuple[int, int]]:
    """A PNG with a palette, at most `width` pixels wide; also its size on the page, pixels / `scale`."""
    drawn = Image.open(BytesIO(png)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", drawn.size, GROUND), drawn).convert("RGB")
    if width is not None and image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    shown = (round(image.width / scale), round(image.height / scale))
    buffer = BytesIO()
    image.quantize(colours, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), shown


def img(png: bytes, alt: str, width: int, height: int) -> str:
    """The HTML of a PNG: shown at `width` CSS pixels, or as wide as there is room."""
    return (
        f'<img class="prunelab-figure" alt="{html.escape(alt)}" width="{width}" height="{height}" '
        # Themes pad and darken images on dark pages; a light card needs neither a second card nor other colours.
        'style="max-width:100%;height:auto;border-radius:6px;padding:0!important;filter:none!important" '
        f'src="data:image/png;base64,{b64encode(png).decode()}">'
    )
