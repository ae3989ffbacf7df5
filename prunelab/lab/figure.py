"""The pictures of the lab: charts (`prunelab.chart`) with an empty ground, as small files."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal, cast

from prunelab.lab.extras import lab_extra

with lab_extra():
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from PIL import Image

from prunelab import chart
from prunelab.chart import COLOURS, DPI, FAINT, GROUND, INK, LINES, MARKERS, WIDTH, Chart, captioned, img

__all__ = [
    "COLOURS",
    "FAINT",
    "GROUND",
    "INK",
    "LINES",
    "MARKERS",
    "Picture",
    "captioned",
    "img",
    "picture",
    "shrink_png",
    "style",
    "to_png",
]

STYLE: dict[str, Any] = {
    **chart.STYLE,
    "legend.fontsize": 10.5,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}


class Picture(Chart):
    """A chart that is sent as a palette PNG. Draw in it inside `with style():`."""

    def drawn(self) -> tuple[bytes, tuple[int, int]]:
        return to_png(self)


def picture(
    height: float, *, alt: str, layout: Literal["constrained", "compressed", "tight"] | None = "constrained"
) -> Picture:
    """An empty picture `height` inches high; draw in it inside `with style():`."""
    made = Picture(figsize=(WIDTH, height), layout=layout)
    made.prunelab_alt = alt
    return made


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
    figure.savefig(buffer, format="png", dpi=DPI * scale, facecolor="auto", bbox_inches=crop)
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
