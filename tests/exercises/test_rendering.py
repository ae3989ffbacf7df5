"""The card reads in a terminal, in light and dark pages and to a screen reader, whatever it is told."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from prunelab.exercises.rendering import ACCENTS, Card, html_of, text_of

BODY = "A `weight` < 3,\nand *so* on.\n\n    if a < b:\n\n        return c\n\nThe 2*3*4 end."


class Wellformed(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(html):
    parser = Wellformed()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_text_wraps_paragraphs_and_keeps_code():
    assert text_of(BODY) == "A `weight` < 3, and *so* on.\n    if a < b:\n\n        return c\nThe 2*3*4 end."
    assert max(len(line) for line in text_of("word " * 100).splitlines()) <= 100


def test_several_words_are_stressed_together_and_products_are_not():
    assert "<em>two of them</em>, <em>one</em>" in html_of("say *two of them*, *one*")
    assert "<em>" not in html_of("2 * 3 * 4 and a*b*c")


def test_html_has_paragraphs_code_and_stress():
    page = parsed(html_of(BODY))
    assert [tag for tag, _ in page.seen] == ["p", "code", "em", "pre", "code", "p"]
    assert page.text == "A weight < 3, and so on.if a < b:\n\n    return cThe 2*3*4 end."


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "`<img onerror=x>`", '" onclick="x', "a ` b", "*<b>*", "    </pre><script>", "&amp;", "``", "**"]
)  # fmt: skip
def test_html_escapes_everything_everywhere(hostile):
    for card in (Card("wrong", hostile, "x"), Card("wrong", "x", hostile), Card("wrong", hostile, hostile, live=True)):
        page = parsed(card.html())
        assert {tag for tag, _ in page.seen} <= {"div", "p", "span", "strong", "code", "pre", "em"}
        assert all(
            set(attributes) <= {"class", "role", "style", "aria-label", "aria-hidden"} for _, attributes in page.seen
        )


def test_a_live_card_is_announced_and_a_still_one_is_a_named_group():
    assert parsed(Card("pass", "q", "x", live=True).html()).seen[0][1]["role"] == "status"
    still = parsed(Card("code", 'a "title"', "x").html()).seen[0][1]
    assert (still["role"], still["aria-label"]) == ("group", 'a "title"')


@pytest.mark.parametrize("tone", ACCENTS)
def test_no_colour_of_its_own_but_an_accent_seen_on_light_and_dark(tone):
    html = Card("label", "title", "text `code`\n\n    block", tone=tone).html()
    for _, attributes in parsed(html).seen:
        for declaration in attributes.get("style", "").split(";"):
            if declaration.startswith("background"):
                assert declaration == "background:transparent"
            elif declaration.startswith("color"):
                assert declaration == "color:inherit"
    for page in ("#ffffff", "#121212", "#14181e"):  # white, JupyterLab's and the book theme's dark
        assert contrast(ACCENTS[tone], page) >= 3


def contrast(one: str, other: str) -> float:
    """WCAG 2.1, "contrast ratio"."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
