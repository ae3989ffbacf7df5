"""Magnitude against the definition of a norm, and its normalisations against theirs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prunelab
from prunelab.criteria import Magnitude
from prunelab.granularity import Group


@pytest.mark.parametrize(("p", "expected"), [(1, [7.0, 2.0]), (2, [5.0, math.sqrt(2)]), (math.inf, [4.0, 1.0])])
def test_norms_by_hand(p: float, expected: list[float], device: torch.device) -> None:
    rows = torch.tensor([[3.0, -4.0], [1.0, 1.0]], device=device)
    torch.testing.assert_close(Magnitude(p).score(rows, None, None), torch.tensor(expected, device=device))


@pytest.mark.parametrize("p", [1, 2, 3, 0.5, math.inf])
def test_a_single_weight_has_its_absolute_value_as_every_norm(p: float) -> None:
    weights = torch.tensor([[-1e-30], [0.0], [3e38], [-2.5]])  # a power and a root would under- or overflow
    assert Magnitude(p).score(weights, None, None).tolist() == weights.abs().flatten().tolist()


def test_half_precision_is_summed_in_float32() -> None:
    weights = torch.full((1, 70_000), 1.0, dtype=torch.float16)  # the sum is beyond float16
    assert Magnitude().score(weights, None, None).tolist() == [70_000.0]
    assert Magnitude().score(weights.double(), None, None).dtype == torch.float64


def test_no_square_overflows_or_vanishes() -> None:
    for scale in (1e20, 1e-30):
        rows = scale * torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
        torch.testing.assert_close(
            Magnitude(2).score(rows, None, None), scale * torch.tensor([5.0, 1.0, 2.0]), atol=0, rtol=1e-6
        )


def test_units_without_members() -> None:
    for p in (1, math.inf):
        assert Magnitude(p).score(torch.empty(3, 0), None, None).tolist() == [0.0] * 3


@pytest.mark.parametrize(("p", "expected"), [(1, [3.5, 1.0]), (2, [math.sqrt(12.5), 1.0]), (math.inf, [4.0, 1.0])])
def test_means_by_hand(p: float, expected: list[float], device: torch.device) -> None:
    rows = torch.tensor([[3.0, -4.0], [1.0, 1.0]], device=device)
    scores = Magnitude(p, reduction="mean").score(rows, None, None)
    torch.testing.assert_close(scores, torch.tensor(expected, device=device))


def test_the_mean_of_a_short_group_does_not_count_its_padding() -> None:
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.fill_(-2.0)
    scores = prunelab.score(layer, Magnitude(reduction="mean"), Group(2, 2))
    assert scores["weight"].tolist() == [2.0] * 4  # blocks of 4, 2, 2 and 1 weights
    assert prunelab.score(layer, Magnitude(), Group(2, 2))["weight"].tolist() == [8.0, 4.0, 4.0, 2.0]


def test_layer_normalisation_by_hand() -> None:
    rows = torch.tensor([[3.0], [-4.0], [0.0]])
    torch.testing.assert_close(
        Magnitude(normalize="layer").score(rows, None, None), torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    )


def lamp(norms: list[float]) -> list[float]:
    """The definition, in Python: units in the order in which they go, each as a share of what is left then."""
    order = sorted(range(len(norms)), key=lambda unit: (norms[unit], unit))
    scores = [0.0] * len(norms)
    for place, unit in enumerate(order):
        scores[unit] = norms[unit] ** 2 / sum(norms[other] ** 2 for other in order[place:])
    return scores


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12).filter(any))
def test_lamp_is_its_definition_ties_included(values: list[int]) -> None:
    rows = torch.tensor([[float(value)] for value in values])
    assert Magnitude(normalize="lamp").score(rows, None, None).tolist() == pytest.approx(
        lamp([float(v) for v in values])
    )


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12), st.sampled_from(["layer", "lamp"]))
def test_normalising_keeps_the_order_within_a_layer_and_forgets_its_scale(values: list[float], normalize: str) -> None:
    rows = torch.tensor([[value] for value in values], dtype=torch.float64)
    rows[rows.abs() < 1e-3] = 0.0
    plain, fair = Magnitude().score(rows, None, None), Magnitude(normalize=normalize).score(rows, None, None)
    torch.testing.assert_close(fair, Magnitude(normalize=normalize).score(1e-3 * rows, None, None))
    assert fair.argsort(stable=True).tolist() == plain.argsort(stable=True).tolist()


def test_lamp_decides_at_single_weights_too_and_leaves_every_layer_its_best() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1.0, 13.0).reshape(3, 4))
        model[1].weight.copy_(0.001 * torch.arange(1.0, 7.0).reshape(2, 3))
    with pytest.warns(UserWarning, match=r"every unit of 1\.weight"):
        plain = prunelab.prune(model, 16 / 18, apply=False)
    fair = prunelab.prune(model, 16 / 18, criterion=Magnitude(normalize="lamp"), apply=False)
    assert [int(mask.sum()) for mask in plain.values()] == [2, 0]
    assert [mask.flatten().nonzero().tolist() for mask in fair.values()] == [[[11]], [[5]]]
    wanted = torch.cat([torch.tensor(lamp(layer.weight.flatten().tolist())) for layer in model])
    half = prunelab.prune(model, 0.5, criterion=Magnitude(normalize="lamp"), apply=False)
    kept = torch.cat([mask.flatten() for mask in half.values()])
    assert wanted[kept].min() > wanted[~kept].max()


@pytest.mark.parametrize("normalize", ["layer", "lamp"])
def test_normalised_layers_of_zeros_infinities_and_extremes(normalize: str) -> None:
    criterion = Magnitude(2, normalize=normalize)
    assert criterion.score(torch.zeros(3, 2), None, None).tolist() == [0.0] * 3
    assert criterion.score(torch.zeros(0, 2), None, None).tolist() == []
    rows = torch.tensor([[torch.inf, 1.0], [2.0, 1.0]])
    assert criterion.score(rows, None, None).tolist() == [1.0, 0.0]
    assert criterion.score(torch.tensor([[torch.nan, 1.0], [1.0, 1.0]]), None, None).isnan().any()
    small = criterion.score(torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 0.0]], dtype=torch.float64), None, None)
    for scale in (1e-160, 1e160):
        rows = scale * torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        torch.testing.assert_close(Magnitude(1, normalize=normalize).score(rows, None, None).argsort(), small.argsort())
    half = torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 0.0]], dtype=torch.bfloat16)
    torch.testing.assert_close(criterion.score(half, None, None), small)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0}, "p=0"),
        ({"reduction": "max"}, "reduction='max'.*'sum'"),
        ({"normalize": "l2"}, "normalize='l2'.*lamp"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Magnitude(**arguments)
