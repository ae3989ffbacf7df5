"""Which units go: counts and choices against brute force on plain lists."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab import criteria
from prunelab.surgery.choose import Limits, choose
from prunelab.surgery.coupling import Coupling, couple


def linears(*widths: int) -> nn.Module:
    layers = [layer for i, o in itertools.pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def by_groups(coupling: Coupling, values: list[list[float]]) -> np.ndarray:
    """One score a unit, group by group."""
    scores = np.zeros(coupling.solution.why.size)
    for group, mine in zip(coupling.groups, values, strict=True):
        scores[group.units] = mine
    return scores


def removed(coupling: Coupling, keep: np.ndarray) -> list[list[int]]:
    """The positions in each group that go."""
    return [np.flatnonzero(~keep[group.units]).tolist() for group in coupling.groups]


def lowest(values: list[float], count: int) -> list[int]:
    """The `count` smallest, the first of equals first."""
    return sorted(sorted(range(len(values)), key=lambda i: (values[i], i))[:count])


scores_of = st.lists(st.integers(-3, 3).map(float), min_size=7, max_size=7)


@settings(max_examples=40, derandomize=True)
@given(one=scores_of, other=scores_of, sparsity=st.floats(0, 1), minimum=st.integers(1, 9))
def test_the_lowest_of_each_group_go(one: list[float], other: list[float], sparsity: float, minimum: int) -> None:
    coupling = couple(linears(3, 7, 7, 2), torch.zeros(2, 3))
    keep = choose(coupling, by_groups(coupling, [one, other]), sparsity, Limits(minimum))
    count = min(round(sparsity * 7), 7 - min(minimum, 7))
    assert removed(coupling, keep) == [lowest(one, count), lowest(other, count)]


@settings(max_examples=40, derandomize=True)
@given(one=scores_of, other=scores_of, sparsity=st.floats(0, 1))
def test_the_lowest_of_all_go(one: list[float], other: list[float], sparsity: float) -> None:
    coupling = couple(linears(3, 7, 7, 2), torch.zeros(2, 3))
    keep = choose(coupling, by_groups(coupling, [one, other]), sparsity, Limits(), everywhere=True)
    wanted = lowest(one + other, round(sparsity * 14))
    mine, theirs = [i for i in wanted if i < 7], [i - 7 for i in wanted if i >= 7]
    assert removed(coupling, keep) == [lowest(one, min(len(mine), 6)), lowest(other, min(len(theirs), 6))]


@settings(max_examples=40, derandomize=True)
@given(
    width=st.integers(1, 40), sparsity=st.floats(0, 1), multiple=st.sampled_from([1, 3, 8, 16]),
    minimum=st.integers(1, 50),
)  # fmt: skip
def test_widths_are_multiples(width: int, sparsity: float, multiple: int, minimum: int) -> None:
    """What is left: at least what was asked for and the minimum, up to the next multiple, never above the width."""
    coupling = couple(linears(3, width, 2), torch.zeros(2, 3))
    if not coupling.groups:
        assert width == 1
        return
    keep = choose(coupling, by_groups(coupling, [list(map(float, range(width)))]), sparsity, Limits(minimum, multiple))
    asked = max(width - round(sparsity * width), min(minimum, width))
    assert width - len(removed(coupling, keep)[0]) == min(math.ceil(asked / multiple) * multiple, width)


def grouped(groups: int, width: int = 12) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1, groups=groups), nn.Conv2d(width, 2, 1))


@settings(max_examples=30, derandomize=True)
@given(
    groups=st.sampled_from([2, 3]), sparsity=st.floats(0, 1), everywhere=st.booleans(), seed=st.integers(0, 99)
)  # fmt: skip
def test_groups_of_a_convolution_stay_balanced(groups: int, sparsity: float, everywhere: bool, seed: int) -> None:
    """As many from each, those with the lowest scores there; of both its inputs and its outputs."""
    coupling = couple(grouped(groups), torch.zeros(1, 3, 2, 2))
    scores = np.random.default_rng(seed).integers(0, 5, coupling.solution.why.size).astype(float)
    keep = choose(coupling, scores, sparsity, Limits(), everywhere)
    each = 12 // groups
    for name, dim in (("0.weight", 0), ("1.weight", 0)):
        (label,) = (a for a in coupling.tensors[name] if a.shape[dim] == 12 and a.size == 12)
        units = coupling.solution.unit_of[label].reshape(groups, each)
        left = keep[units].sum(1)
        assert len(set(left.tolist())) == 1
        assert left[0] >= 1
        if not everywhere:
            assert left[0] == max(each - round(sparsity * each), 1)
        for row in units:
            gone = np.flatnonzero(~keep[row]).tolist()
            assert gone == lowest(scores[row].tolist(), len(gone))


@pytest.mark.parametrize("minimum", [2, 4, 6, 12])
def test_a_minimum_counts_units_in_balanced_groups_too(minimum: int) -> None:
    small = prunelab.shrink(grouped(2), torch.randn(1, 3, 2, 2), sparsity=1.0, minimum=minimum)
    assert [layer.out_channels for layer in small.model] == [minimum, minimum, 2]


@pytest.mark.parametrize("minimum", [1, 3, 5])
def test_a_minimum_that_parts_do_not_divide_is_rounded_up(minimum: int) -> None:
    small = prunelab.shrink(grouped(2), torch.randn(1, 3, 2, 2), sparsity=1.0, minimum=minimum)
    assert [layer.out_channels for layer in small.model] == [minimum + 1, minimum + 1, 2]


# --- through shrink: from weights to widths ------------------------------------------------------------------------------


def rows_left(model: nn.Module, small: nn.Module, name: str = "0") -> list[int]:
    """Which rows of a weight are in the small network."""
    whole, part = model.get_parameter(f"{name}.bias"), small.get_parameter(f"{name}.bias")
    return [int((whole == value).nonzero()[0]) for value in part]


def named_rows(*sums: float) -> nn.Module:
    """Linear(2, n) whose rows have these L1 norms, and biases 0, 1, 2, ... by which to know them."""
    model = linears(2, len(sums), 2)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(sums)[:, None].expand(-1, 2) / 2)
        model[0].bias.copy_(torch.arange(len(sums), dtype=torch.float32))
    return model


def test_ties_go_by_position() -> None:
    model = named_rows(1, 2, 1, 1, 2, 1)
    for sparsity, left in ((1 / 6, [1, 2, 3, 4, 5]), (0.5, [1, 4, 5]), (5 / 6, [4])):
        assert rows_left(model, prunelab.shrink(model, torch.randn(3, 2), sparsity=sparsity).model) == left


def test_the_whole_range_of_fractions() -> None:
    model = named_rows(*range(1, 12))
    for sparsity in (0.0, 0.04, 0.05, 0.31, 0.5, 0.77, 1.0):
        small = prunelab.shrink(model, torch.randn(3, 2), sparsity=sparsity)
        assert rows_left(model, small.model) == list(range(min(round(sparsity * 11), 10), 11))
        assert small.plan.parts[0].removed == min(round(sparsity * 11), 10)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
def test_scores_of_coupled_layers_are_put_together(aggregate: Any) -> None:
    """A residual sum of two layers: mean, sum and maximum of their L1 norms, by hand."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.end = nn.Linear(1, 4), nn.Linear(1, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.end((self.a(x) + self.b(x)).relu())

    model = Sum()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[5.0], [3.0], [0.0], [-3.0]]))
        model.b.weight.copy_(torch.tensor([[0.0], [-3.0], [4.0], [2.5]]))
        model.a.bias.copy_(torch.arange(4.0))
    left = {"mean": [1, 3], "sum": [1, 3], "max": [0, 2]}[aggregate]  # sums 5, 6, 4, 5.5; maxima 5, 3, 4, 3
    small = prunelab.shrink(model, torch.randn(3, 1), sparsity=0.5, aggregate=aggregate)
    assert rows_left(model, small.model, "a") == left


def test_a_criterion_of_ones_own_decides() -> None:
    class LastColumn(criteria.Criterion):
        needs = frozenset({"weights"})

        def score(self, weights: Any, gradients: Any, statistics: Any) -> Tensor:
            return weights[:, -1]

    model = named_rows(1, 2, 3, 4)
    with torch.no_grad():
        model[0].weight[:, -1] = torch.tensor([4.0, 1.0, 3.0, 2.0])
    small = prunelab.shrink(model, torch.randn(3, 2), sparsity=0.5, criterion=LastColumn())
    assert rows_left(model, small.model) == [0, 2]


def test_gradients_and_data_decide() -> None:
    """GradientMagnitude by autograd: of a linear layer read by known weights."""
    model, x, y = named_rows(1, 1, 1, 1), torch.rand(8, 2), torch.zeros(8, 2)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 4.0, 2.0, 3.0]] * 2))
    small = prunelab.shrink(
        model, x, sparsity=0.5, criterion=criteria.GradientMagnitude(), data=[(x, y)],
        loss=lambda out, target: (out - target).sum() / 8,
    )  # fmt: skip
    assert rows_left(model, small.model) == [1, 3]


def test_whole_heads_go_and_compete_as_one() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(12, 4, batch_first=True)
    with torch.no_grad():
        for head, size in enumerate((3.0, 1.0, 4.0, 2.0)):
            for part in range(3):
                rows = slice(part * 12 + head * 3, part * 12 + head * 3 + 3)
                model.in_proj_weight[rows] = size
                model.in_proj_bias[rows] = head + 1.0
    x = torch.randn(2, 5, 12)
    inputs = {"query": x, "key": x, "value": x, "need_weights": False}  # the mean weights count the heads
    small = prunelab.shrink(model, inputs, sparsity=0.5)
    assert small.model.in_proj_bias.unique().tolist() == [1.0, 3.0]
    assert small.model.num_heads == 2


@pytest.mark.parametrize("value", [float("nan")])
@pytest.mark.parametrize(
    "options", [{"sparsity": 0.5}, {"sparsity": 0.5, "scope": "global"}, {"budget": ("macs", 0.5)}]
)
def test_weights_that_are_no_numbers_are_refused(value: float, options: dict[str, Any]) -> None:
    model = named_rows(1, 2, 3, 4)
    with torch.no_grad():
        model[0].weight[2, 1] = value
    with pytest.raises(ValueError, match=r"0\.weight.*NaN"):
        prunelab.shrink(model, torch.randn(3, 2), **options)


def test_infinite_weights_are_the_last_to_go() -> None:
    model = named_rows(1, math.inf, 3, 4)
    small = prunelab.shrink(model, torch.randn(3, 2), sparsity=0.75)
    assert rows_left(model, small.model) == [1]


def test_what_is_excluded_stays() -> None:
    torch.manual_seed(0)
    model = linears(3, 8, 8, 8, 2)
    widths = lambda small: [small.model[i].out_features for i in (0, 2, 4, 6)]  # noqa: E731
    for exclude, left in (
        ("2", [4, 8, 4, 2]), ("2.weight", [4, 8, 4, 2]), (["0", "4.*"], [8, 4, 8, 2]), ("*", [8, 8, 8, 2]),
        (lambda name, parameter: name.startswith("4"), [4, 4, 8, 2]), ([], [4, 4, 4, 2]),
    ):  # fmt: skip
        small = prunelab.shrink(model, torch.randn(3, 3), sparsity=0.5, exclude=exclude)
        assert widths(small) == left
        assert ("excluded" in small.explain()) == (left != [4, 4, 4, 2])
