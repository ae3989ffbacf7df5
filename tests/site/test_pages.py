"""Small things on the pages: times in words, buttons for a repository that exists or not, scripts that must go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from prunelab.site.buttons import offer_launchers, repository_url
from prunelab.site.card import seconds_in_words
from prunelab.site.offline import drop_thebe_scripts


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (4.36, "4.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (23.4, "23 s"),
        (89.9, "90 s"),
        (90, "1 min 30 s"),
        (118, "2 min"),
        (129, "2 min 10 s"),
        (3600, "60 min"),
    ],
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


def config(url: str | None, **launch: Any) -> Any:
    return SimpleNamespace(html_theme_options={"repository_url": url, "launch_buttons": launch})


@pytest.mark.parametrize("url", [None, "", "https://github.com/executablebooks/jupyter-book"])
def test_without_a_repository_nothing_is_launched(url: str | None) -> None:
    chosen = config(url, thebe=False, binderhub_url="https://mybinder.org")
    offer_launchers(None, chosen)  # type: ignore[arg-type]
    assert repository_url(chosen) == ""
    assert "launch_buttons" not in chosen.html_theme_options


def test_with_a_repository_colab_and_binder_appear() -> None:
    chosen = config("https://github.com/somebody/prunelab/", binderhub_url="https://binder.example")
    offer_launchers(None, chosen)  # type: ignore[arg-type]
    launch = chosen.html_theme_options["launch_buttons"]
    assert launch["colab_url"] == "https://colab.research.google.com"
    assert launch["binderhub_url"] == "https://binder.example"
    assert launch["thebe"] is False


def script(filename: str | None, body: str = "") -> SimpleNamespace:
    return SimpleNamespace(filename=filename, attributes={"body": body})


def test_scripts_that_ask_a_cdn_or_come_twice_are_dropped() -> None:
    ours, inline = script("live.js"), script(None, "let a = 1")
    theirs = [
        script("sphinx-thebe.js?v=1"),
        script("https://unpkg.com/thebe@0.8.2/lib/index.js"),
        script(None, 'const THEBE_JS_URL = "x"'),
    ]
    context: dict[str, Any] = {
        "script_files": [ours, *theirs, inline, script(None, "let a = 1")],
        "css_files": ["a.css"],
    }
    drop_thebe_scripts(None, "page", "page.html", context, None)  # type: ignore[arg-type]
    assert context["script_files"] == [ours, inline]
    assert context["css_files"] == ["a.css"]
