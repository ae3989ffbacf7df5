from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from prunelab.lab import explore
from prunelab.lab.exploration.grid import Grid


def fn(sparsity: float, what: str = "weight") -> str:
    raise AssertionError("nothing may be computed before the grid is checked")


def test_values_become_labels_a_reader_can_use() -> None:
    class Filter:
        def __str__(self) -> str:
            return "Filter()"

    def values(**axes: object) -> tuple[str, ...]:
        return Grid(lambda **_: None, axes).axes[0].labels

    assert values(a=[0.1, 0.30000000000000004]) == ("0.1", "0.3")
    assert values(a=np.linspace(0, 1, 3)) == ("0", "0.5", "1")
    assert values(a=torch.tensor([1, 2])) == ("1", "2")
    assert values(a=range(2)) == ("0", "1")
    assert values(a=[int, torch.relu]) == ("int", "relu")
    assert values(a=[Filter(), True]) == ("Filter()", "True")
    assert values(a={"few": 3, 4: 5}) == ("few", "4")


def test_arrays_give_plain_numbers() -> None:
    grid = Grid(lambda a: None, {"a": np.array([1, 2])})
    assert type(grid.arguments((0,))["a"]) is int


def test_states_are_the_product_in_the_order_of_the_axes() -> None:
    grid = Grid(fn, {"sparsity": [0.5, 0.9], "what": {"w": "weight", "f": "filter", "k": "kernel"}})
    assert len(grid) == 6
    assert list(grid)[:4] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert grid.arguments((1, 2)) == {"sparsity": 0.9, "what": "kernel"}
    assert grid.describe((1, 2)) == "sparsity 0.9, what k"


@pytest.mark.parametrize("limit", [1, 2, 5, 24, 1000])
def test_a_sample_spans_the_grid(limit: int) -> None:
    grid = Grid(lambda **_: None, {"a": range(11), "b": range(4), "c": range(2)})
    states = grid.sample(limit)
    assert 0 < len(states) <= max(limit, 1)
    assert len(set(states)) == len(states)
    assert set(states) <= set(grid)
    assert limit < 1000 or states == list(grid)
    if limit >= 8:
        assert {(0, 0, 0), (10, 3, 1)} <= set(states)


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({}, ValueError, r"no axis: name at least one argument of fn\(\)"),
        ({"sparsity": []}, ValueError, "sparsity has no value"),
        ({"sparsity": [0.5]}, ValueError, r"one value '0\.5'.*functools\.partial"),
        ({"sparsity": "0.5"}, TypeError, r"sparsity='0\.5' is a str"),
        ({"sparsity": 0.5}, TypeError, r"sparsity=0\.5 is a float; give a list"),
        ({"sparsity": [0.1, 0.1000000001]}, ValueError, r"several values labelled \['0\.1'\].*dict"),
        ({"sparsity": ["", "a"]}, ValueError, "empty label"),
        (
            {"sparsity": [0.1, 0.2], "size": [1, 2]},
            ValueError,
            r"fn\(\) has no argument 'size'; it takes sparsity, what",
        ),
        ({"what": ["a", "b"]}, ValueError, r"fn\(\) also needs 'sparsity'"),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_a_grid_that_does_not_fit_is_refused_before_any_work(
    axes: dict[str, object], error: type[Exception], message: str, live: bool
) -> None:
    with pytest.raises(error, match=message):
        explore(fn, live=live, **axes)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"live": [1, 2]}, TypeError, "an axis cannot be called 'live'"),
        ({"max_bytes": 1.5}, TypeError, "max_bytes=1.5 is a float"),
        ({"max_states": 0}, ValueError, "max_states=0 must be at least 1"),
        ({"alt": 3}, TypeError, "alt=3 is a int"),
        ({"alt": "at {sparsty}"}, ValueError, r"cannot be filled in.*its placeholders are \{sparsity\}"),
        ({"alt": "at {"}, ValueError, "cannot be filled in"),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_settings_are_checked_before_any_work(
    settings: dict[str, object], error: type[Exception], message: str, live: bool
) -> None:
    with pytest.raises(error, match=message):
        explore(fn, sparsity=[0.1, 0.2], **{"live": live, **settings})


@pytest.mark.parametrize(
    ("call", "axes"),
    [
        (lambda **anything: "x", {"a": [1, 2], "b": [1, 2]}),
        (functools.partial(fn, 0.5), {"what": ["a", "b"]}),
        (max, {"default": [1, 2]}),
    ],
)
def test_functions_of_many_kinds_fit(call: Callable[..., object], axes: dict[str, list[object]]) -> None:
    assert len(Grid(call, axes)) == 2 ** len(axes)


def test_what_is_not_a_function_is_refused() -> None:
    with pytest.raises(TypeError, match="fn is a str"):
        explore("fn", a=[1, 2])


def test_a_positional_only_argument_cannot_have_a_slider() -> None:
    with pytest.raises(ValueError, match="also needs 'x'"):
        explore(lambda x, /, a: "", a=[1, 2])
