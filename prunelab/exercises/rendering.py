"""One card, two forms: plain text for a terminal, HTML for a notebook and the live page.

The HTML carries its meaning in words, never in colour alone. It sets no background and takes its foreground from the
page, so that it reads in light and in dark themes; the one accent stands out against both (contrast of 3:1 and more).
"""

from __future__ import annotations

import html
import re
import textwrap
from dataclasses import dataclass
from itertools import zip_longest

__all__ = ["ACCENTS", "Card", "html_of", "text_of"]

ACCENTS = {"good": "#2e8b57", "error": "#d1495b", "calm": "#3a7ebf"}
_MARKS = {"good": "✓", "error": "✗", "calm": "○"}
_WIDTH = 100
_BOX = (
    "border:1px solid {accent};border-left:0.4em solid {accent};border-radius:0.25em;padding:0.6em 1em;margin:0.5em 0;"
)
_PLAIN = "background:transparent;color:inherit;"
_CODE = _PLAIN + (
    "white-space:pre-wrap;overflow-wrap:anywhere;border:0;margin:0.4em 0;padding:0 0 0 1em;font-size:0.875em;"
)


@dataclass(frozen=True)
class Card:
    """A label ("pass"), a title, and a body in the markup of `html_of`; `live` has a screen reader announce it."""

    label: str
    title: str
    body: str
    tone: str = "calm"
    live: bool = False

    def text(self) -> str:
        return f"{self.label.upper()}  {self.title}\n{text_of(self.body)}"

    def html(self) -> str:
        role = 'role="status"' if self.live else f'role="group" aria-label="{html.escape(self.title)}"'
        mark = f'<span aria-hidden="true">{_MARKS[self.tone]}</span>'
        head = f"{mark} <strong>{html.escape(self.label.capitalize())}</strong> · {html.escape(self.title)}"
        style = _BOX.format(accent=ACCENTS[self.tone]) + _PLAIN
        return (
            f'<div class="prunelab-exercise prunelab-{self.tone}" {role} style="{style}">'
            f'<p style="margin:0 0 0.4em">{head}</p>{html_of(self.body)}</div>'
        )


def text_of(body: str) -> str:
    """The body for a terminal: paragraphs wrapped, code as it is."""
    blocks = (block if is_code else textwrap.fill(block, _WIDTH) for block, is_code in _blocks(body))
    return "\n".join(blocks)


def html_of(body: str) -> str:
    """The body as HTML. Blank lines part paragraphs, lines indented by four are code, `backticks` are code in a line,
    *stars* stress words.

    >>> html_of("a < `b`")
    '<p style="margin:0.3em 0">a &lt; <code style="background:transparent;color:inherit;">b</code></p>'
    """
    return "".join(
        f'<pre style="{_CODE}"><code style="{_PLAIN}">{html.escape(textwrap.dedent(block))}</code></pre>'
        if is_code
        else f'<p style="margin:0.3em 0">{_inline(block)}</p>'
        for block, is_code in _blocks(body)
    )


def _inline(text: str) -> str:
    # Every second piece stands between backticks. A lone backtick is just a character.
    pieces = re.split(r"`([^`]+)`", html.escape(text))
    prose = [re.sub(r"(?<!\w)\*([^\s*](?:[^*]*[^\s*])?)\*(?!\w)", r"<em>\1</em>", piece) for piece in pieces[::2]]
    code = [f'<code style="{_PLAIN}">{piece}</code>' for piece in pieces[1::2]]
    return "".join(piece for pair in zip_longest(prose, code, fillvalue="") for piece in pair)


def _blocks(body: str) -> list[tuple[str, bool]]:
    """The body as (block, is it code?). Code may hold blank lines: neighbouring code blocks are one."""
    blocks: list[tuple[str, bool]] = []
    for block in re.split(r"\n[ \t]*\n", body.strip("\n")):
        is_code = block.startswith("    ")
        if is_code and blocks and blocks[-1][1]:
            blocks[-1] = (f"{blocks[-1][0]}\n\n{block}", True)
        else:
            blocks.append((block if is_code else " ".join(block.split()), is_code))
    return blocks
