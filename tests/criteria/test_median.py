"""The geometric median against distances that scipy and plain loops compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import nn

import prunelab
from prunelab.criteria import FilterCorrelation, GeometricMedian, median
from prunelab.granularity import Channel, Filter, Group, Kernel, Weight


def test_distances_by_hand(device: torch.device) -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]], device=device)
    assert GeometricMedian().score(points, None, None).tolist() == [8.0, 9.0, 7.0]
    assert GeometricMedian().score(points[:1], None, None).tolist() == [0.0]
    assert GeometricMedian().score(points[:0], None, None).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("granularity", [Filter(), Channel(), Kernel(), Group(2, 3)])
def test_every_granularity_and_type_against_scipy(granularity, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, bias=False).to(dtype)
    rows = granularity.view(layer.weight.detach()).double().numpy()
    scores = prunelab.score(layer, GeometricMedian(), granularity)["weight"]
    np.testing.assert_allclose(scores.numpy(), cdist(rows, rows).sum(1), rtol=1e-12)


def test_nearly_identical_units_keep_their_small_distances() -> None:
    step = 2.0**-40
    points = 1000.0 + step * torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], dtype=torch.float64)
    assert GeometricMedian().score(points, None, None).tolist() == [15 * step, 10 * step, 15 * step]


def test_regression_distances_of_absolute_weights_make_a_filter_and_its_negative_look_identical() -> None:
    filters = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [1.0, 2.5]])
    distances = GeometricMedian().score(filters, None, None)
    assert distances.argmax() == 1  # far from both others, though one of them is its mirror image
    of_absolutes = GeometricMedian().score(filters.abs(), None, None)
    assert of_absolutes[0] == of_absolutes[1]
    assert FilterCorrelation("cosine").score(filters, None, None)[0] == 0  # in correlation they are one filter


def test_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    whole = GeometricMedian().score(points, None, None)
    monkeypatch.setattr(median, "_DISTANCES", 15)
    torch.testing.assert_close(GeometricMedian().score(points, None, None), whole, rtol=1e-14, atol=0)


def test_permuting_units_permutes_scores_and_moving_all_changes_none() -> None:
    points = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    scores = GeometricMedian().score(points, None, None)
    torch.testing.assert_close(GeometricMedian().score(points[order], None, None), scores[order])
    torch.testing.assert_close(GeometricMedian().score(points + 3, None, None), scores)
    torch.testing.assert_close(GeometricMedian().score(-2 * points, None, None), 2 * scores)


def test_single_weights_are_refused_and_so_is_infinity() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"GeometricMedian.*Weight.*Filter"):
        prunelab.prune(layer, 0.5, criterion=GeometricMedian(), granularity=Weight())
    with torch.no_grad():
        layer.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"'weight' has . NaN among its 2 scores"):
        prunelab.prune(layer, 0.5, criterion=GeometricMedian(), granularity=Filter())


def test_more_units_than_can_be_compared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunelab.criteria import correlation

    monkeypatch.setattr(median, "_COMPARED", 4)
    monkeypatch.setattr(correlation, "_COMPARED", 4)
    for criterion in (GeometricMedian(), FilterCorrelation(variant="mean")):
        assert criterion.score(torch.randn(4, 3), None, None).shape == (4,)
        with pytest.raises(ValueError, match=r"5 units have 2e\+01: use units that are larger"):
            criterion.score(torch.randn(5, 3), None, None)
