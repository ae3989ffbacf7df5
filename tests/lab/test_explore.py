from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from prunelab.lab import explore, plots
from prunelab.lab.exploration import LiveExploration, StaticExploration, static
from prunelab.lab.figure import Picture, picture

A, B, C = [1, 2, 3], {"ten": 10, "twenty": 20}, ["x", "y", "z", "w"]


@pytest.fixture(autouse=True)
def fresh_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is its own page, and none is being built."""
    monkeypatch.setattr(static, "_page", {"bytes": 0})
    monkeypatch.delenv("PRUNELAB_BUILD", raising=False)


def words(a: int, b: int, c: str) -> str:
    return f"<{a}|{b}|{c}>"


def frozen(*args: Any, **kwargs: Any) -> StaticExploration:
    view = explore(*args, live=False, **kwargs)
    assert isinstance(view, StaticExploration)
    return view


def moving(*args: Any, **kwargs: Any) -> LiveExploration:
    view = explore(*args, live=True, **kwargs)
    assert isinstance(view, LiveExploration)
    return view


def follow(view: StaticExploration) -> Iterator[tuple[tuple[int, ...], str]]:
    """What a browser shows at every position of the sliders: only links, indices and children are used."""
    sliders = list(view.sliders.values())
    for state in itertools.product(*(range(len(slider.options)) for slider in sliders)):
        positions = dict(zip(sliders, state, strict=True))
        chosen = {}
        for link in view.links:
            (source, trait), (target, aim) = link.source, link.target
            assert (trait, aim) == ("index", "selected_index")
            chosen[target] = positions[source]
        shown = view.root
        while isinstance(shown, widgets.Stack):
            shown = shown.children[chosen[shown]]
        yield state, shown.value


@pytest.mark.parametrize("axes", [{"a": A}, {"a": A, "b": B}, {"a": A, "b": B, "c": C}, {"c": C, "a": A, "b": B}])
def test_every_position_of_the_sliders_shows_its_own_result(axes: dict[str, Any]) -> None:
    view = frozen(lambda a=0, b=0, c="": words(a, b, c), **axes)
    leaves = dict(follow(view))
    values = [list(axis.values()) if isinstance(axis, dict) else axis for axis in axes.values()]
    expected = {
        state: words(**{"a": 0, "b": 0, "c": "", **dict(zip(axes, combination, strict=True))})
        for state, combination in zip(
            itertools.product(*(range(len(v)) for v in values)), itertools.product(*values), strict=True
        )
    }
    assert leaves.keys() == expected.keys()
    for state, text in expected.items():
        assert text.replace("<", "&lt;").replace(">", "&gt;") in leaves[state]
    assert len(set(leaves.values())) == len(leaves)


def test_the_first_view_agrees_with_the_sliders() -> None:
    view = frozen(words, a=A, b=B, c=C)
    stacks = [link.target[0] for link in view.links]
    assert len(stacks) == 1 + 3 + 3 * 2
    assert all(stack.selected_index == 0 for stack in stacks)
    assert all(slider.index == 0 for slider in view.sliders.values())
    assert view.sliders["b"].options == ("ten", "twenty")


def test_the_state_is_chosen_by_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(explore(words, a=A, b=B, c=C), LiveExploration)
    monkeypatch.setenv("PRUNELAB_BUILD", "1")
    assert isinstance(explore(words, a=A, b=B, c=C), StaticExploration)
    monkeypatch.setenv("PRUNELAB_BUILD", "0")
    assert isinstance(explore(words, a=A, b=B, c=C), LiveExploration)


def test_a_function_without_results_is_not_called_when_live() -> None:
    calls = []
    view = moving(lambda a: calls.append(a) or "x", a=A)
    assert not calls  # not before it is displayed
    view.refresh()
    assert calls == [1]


def test_moving_a_slider_recomputes() -> None:
    calls = []

    def fn(a: int, b: int) -> str:
        calls.append((a, b))
        return f"result {a * b}"

    view = moving(fn, a=A, b=B)
    view.sliders["b"].value = "twenty"
    assert "result 20" in view.result.value
    view.sliders["a"].index = 2
    assert "result 60" in view.result.value
    assert "a 3, b twenty" in view.status.value
    assert calls == [(1, 20), (3, 20)]
    assert not any(slider.continuous_update for slider in view.sliders.values())


def test_it_says_that_it_is_working_while_it_works() -> None:
    seen = []
    view = moving(lambda a: seen.append(view.status.value) or "done", a=A)
    view.refresh()
    assert "computing a 1" in seen[0]
    assert "computing" not in view.status.value
    assert 'role="status"' in view.status.value


@pytest.mark.parametrize("error", [ValueError("<no>"), KeyboardInterrupt()])
def test_an_error_is_shown_in_place_and_survived(error: BaseException) -> None:
    def fn(a: int) -> str:
        if a == 2:
            raise error
        return f"fine {a}"

    view = moving(fn, a=A)
    view.sliders["a"].value = "2"
    assert f"<strong>{type(error).__name__}</strong>" in view.result.value
    assert 'role="alert"' in view.result.value
    assert "<no>" not in view.result.value
    assert "in fn" in view.result.value
    assert "in compute" not in view.result.value
    view.sliders["a"].value = "3"
    assert "fine 3" in view.result.value


def test_moves_in_a_burst_cost_one_call() -> None:
    calls: list[int] = []
    view = moving(lambda a: calls.append(a) or "x", a=list(range(20)))

    async def burst() -> None:
        for index in range(1, 20):
            view.sliders["a"].index = index
        assert not calls
        while not calls:
            await asyncio.sleep(0.01)

    asyncio.run(burst())
    assert calls == [19]


def test_results_of_every_kind() -> None:
    kinds: dict[str, Any] = {
        "figure": plots.mask(torch.eye(2) > 0),
        "table": pd.DataFrame({"x": [1]}),
        "text": "a < b",
    }
    view = frozen(lambda kind: kinds[kind], kind=list(kinds))
    figure, table, text = (leaf for _, leaf in follow(view))
    assert '<img class="prunelab-figure" alt="Mask: a 2 × 2 mask' in figure
    assert 'src="data:image/png;base64,' in figure
    assert "<table" in table
    assert "<pre" in text
    assert "a &lt; b" in text


def test_what_is_printed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def fn(a: int) -> str | None:
        sys.stdout.write(f"loss <{a}>\n")
        return "result" if a == 1 else None

    (_, both), (_, alone), _ = follow(frozen(fn, a=A))
    assert capsys.readouterr().out == ""
    assert both.index("loss &lt;1&gt;") < both.index("result")
    assert alone.count("loss &lt;2&gt;") == 1


@pytest.mark.parametrize(
    ("result", "got"), [(None, "returned nothing"), (3, "returned a int"), (pd.DataFrame, "returned a type")]
)
def test_what_cannot_be_shown_is_refused_with_the_state(result: object, got: str) -> None:
    with pytest.raises(TypeError, match=f"{got}.*return a matplotlib Figure") as caught:
        frozen(lambda a: result, a=A)
    assert caught.value.__notes__ == ["while exploring a 1"]


def bare(a: int) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, a])
    return figure


def test_a_figure_needs_alt_text_on_a_page_and_gets_one_live() -> None:
    with pytest.raises(ValueError, match=r"no alt text.*'Mask at a \{a\}'"):
        frozen(bare, a=A)
    view = moving(bare, a=A)
    view.refresh()
    assert 'alt="a 1"' in view.result.value


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("alt", ["line to {a}, {a}", lambda a: f"line to {a}, {a}"])
def test_alt_text_in_every_state(live: bool, alt: Any) -> None:
    view = explore(bare, a=A, alt=alt, live=live)
    if isinstance(view, LiveExploration):
        view.sliders["a"].index = 1
        assert 'alt="line to 2, 2"' in view.result.value
        return
    assert 'alt="line to 2, 2"' in dict(follow(view))[(1,)]
    assert all(f'alt="line to {a}, {a}"' in view.printed for a in A)
    assert all(f"line to {a}, {a}" in view.text() for a in A)


def test_alt_text_names_a_table_for_screen_readers() -> None:
    view = frozen(lambda a: pd.DataFrame({"x": [a]}), a=A, alt="the <table> {a}")
    assert 'role="group" aria-label="the &lt;table&gt; 1"' in dict(follow(view))[(0,)]


def test_an_alt_function_must_return_text() -> None:
    with pytest.raises(TypeError, match=r"alt\(\) returned a int"):
        frozen(bare, a=A, alt=lambda a: a)


@pytest.mark.parametrize("live", [False, True])
def test_a_picture_keeps_its_caption(live: bool) -> None:
    def draw(a: int) -> Picture:
        return picture(1.0, alt=f"at {a}").captioned(f"look at < {a}")

    view = explore(draw, a=A, live=live)
    if isinstance(view, LiveExploration):
        view.sliders["a"].index = 1
        shown = view.result.value
    else:
        shown = dict(follow(view))[(1,)]
    assert "<figcaption>look at &lt; 2</figcaption>" in shown


def test_pyplot_figures_are_closed() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    frozen(lambda a: pyplot.figure(), a=A, alt="empty")
    assert pyplot.get_fignums() == before


def test_print_shows_small_multiples_hidden_on_the_screen() -> None:
    view = frozen(words, a=A, b=B, c=C)
    assert view.printed.count("<figure>") == 24
    assert "<figcaption>a 3, b twenty, c w</figcaption>" in view.printed
    assert ".prunelab-print{display:none}" in view.printed
    assert "@media print{.prunelab-print{display:grid!important}}" in view.printed
    assert "<noscript>" in view.printed
    many = frozen(lambda a: f"{a}", a=range(60))
    assert many.printed.count("<figure>") == 24
    assert "24 of 60 results." in many.printed


def test_a_page_gets_the_print_version_and_the_widget_in_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    view = frozen(words, a=A, b=B, c=C)
    monkeypatch.setenv("PRUNELAB_BUILD", "1")
    bundle = view._repr_mimebundle_()
    assert bundle.keys() == {"text/html", "text/plain"}  # any widget type would be chosen before the HTML
    printed, _, script = bundle["text/html"].partition('<script type="application/vnd.jupyter.widget-view+json">')
    assert printed == view.printed
    assert json.loads(script.removesuffix("</script>"))["model_id"] == view.widget.model_id
    assert bundle["text/plain"].startswith("explore: a (1, 2, 3) × b (ten, twenty) × c (x, y, z, w), 24 states")
    assert "a 3, b twenty, c w: <3|20|w>" in bundle["text/plain"]


def test_a_static_view_in_jupyterlab_is_a_widget() -> None:
    view = frozen(words, a=A, b=B, c=C)
    bundle = view._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.widget.model_id


def test_a_live_view_appears_before_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    live_module = sys.modules[LiveExploration.__module__]
    monkeypatch.setattr(live_module, "display", lambda *_, **__: order.append("shown"))
    moving(lambda a: order.append("computed") or "x", a=A)._ipython_display_()
    assert order == ["shown", "computed"]


def test_too_many_states_are_refused_before_any_work() -> None:
    def never(a: int, b: int) -> str:
        raise AssertionError

    with pytest.raises(ValueError, match=r"a 20 × b 6 has 120 states.*max_states=100.*longest axis is a with 20"):
        frozen(never, a=range(20), b=range(6))
    moving(never, a=range(20), b=range(6))  # live, nothing is precomputed


def test_a_page_that_grows_too_big_is_refused_early() -> None:
    calls = []

    def fn(a: int) -> str:
        calls.append(a)
        return "x" * 10_000

    with pytest.raises(ValueError, match=r"of the 50 states take 0\.1\d MB.*0\.10 MB.*about 4 states fit.*max_bytes"):
        frozen(fn, a=range(50), max_bytes=100_000)
    assert len(calls) < 10


def test_the_budget_is_the_pages_not_the_explorations() -> None:
    first = frozen(lambda a: "x" * 10_000, a=A, max_bytes=150_000)
    assert 60_000 < first.bytes < 90_000
    with pytest.raises(ValueError, match=rf"already hold {first.bytes / 1e6:.2f} MB"):
        frozen(lambda a: "y" * 20_000, a=A, max_bytes=150_000)
    frozen(lambda a: "y" * 1_000, a=A, max_bytes=150_000)  # what was refused does not count


def test_the_budget_counts_what_the_page_will_hold() -> None:
    view = frozen(words, a=A, b=B, c=C)
    everything = [view.widget, *view.links]
    seen: dict[str, widgets.Widget] = {}
    while everything:
        each = everything.pop()
        if each.model_id not in seen:
            seen[each.model_id] = each
            for name in each.keys:
                value = getattr(each, name)
                parts = value if isinstance(value, tuple) else (value,)
                everything += [part for part in parts if isinstance(part, widgets.Widget)]
    page = json.dumps({name: each.get_state() for name, each in seen.items()}, default=str)
    assert view.bytes == pytest.approx(len(page) + len(view.printed), rel=0.1)
