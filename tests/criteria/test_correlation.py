"""Filter correlation against numpy's, and its greedy order against a search over all pairs at every step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab.criteria import FilterCorrelation, correlation
from prunelab.granularity import Channel, Filter, Group, Kernel, Weight


def by_pairs(rows: np.ndarray, measure: str) -> np.ndarray:
    """|correlation| of every pair, one pair at a time."""
    found = np.ones((len(rows), len(rows)))
    for i, j in itertools.combinations(range(len(rows)), 2):
        x, y = rows[i], rows[j]
        value = np.corrcoef(x, y)[0, 1] if measure == "pearson" else x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
        found[i, j] = found[j, i] = round(abs(value), 10)  # numpy rounds too: equal correlations must tie
    return found


def greedy(correlations: np.ndarray) -> tuple[list[int], list[float]]:
    """Units in the order in which they go, and 1 - |correlation| of the pair at each step."""
    left, order, steps = list(range(len(correlations))), [], []
    while len(left) > 1:
        pairs = list(itertools.combinations(left, 2))
        first, twin = max(pairs, key=lambda pair: (correlations[pair], -pair[0], -pair[1]))
        mean = {unit: np.mean([correlations[unit, v] for v in left if v != unit]) for unit in (first, twin)}
        order.append(first if mean[first] > mean[twin] - 1e-9 else twin)
        steps.append(1 - correlations[first, twin])
        left.remove(order[-1])
    return [*order, *left], [*steps, 1.0]


def rows(units: int, members: int, seed: int) -> Tensor:
    return torch.randn(units, members, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("measure", ["pearson", "cosine"])
@pytest.mark.parametrize(("units", "members", "seed"), [(2, 3, 0), (7, 4, 1), (12, 3, 2), (20, 9, 3), (25, 2, 4)])
def test_k_lowest_scores_are_k_greedy_steps(measure: str, units: int, members: int, seed: int) -> None:
    weights = rows(units, members, seed)
    order, steps = greedy(by_pairs(weights.numpy(), measure))
    scores = FilterCorrelation(measure).score(weights, None, None)
    assert scores.argsort(stable=True).tolist() == order
    np.testing.assert_allclose(scores[order].numpy(), steps, atol=1e-9)
    layer = nn.Linear(members, units).double()
    layer.weight.data.copy_(weights)
    for k in range(units + 1):
        masks = prunelab.prune(
            layer, k / units, criterion=FilterCorrelation(measure), granularity=Filter(), scope="local", apply=False
        )
        assert sorted((~masks["weight"][:, 0]).nonzero().flatten().tolist()) == sorted(order[:k])


@given(st.lists(st.tuples(*[st.integers(-1, 2)] * 3).filter(lambda row: len(set(row)) > 1), min_size=1, max_size=9))
def test_the_greedy_order_survives_any_ties(values: list[tuple[int, ...]]) -> None:
    weights = torch.tensor(values, dtype=torch.float64)
    for measure in ("pearson", "cosine"):
        order, steps = greedy(by_pairs(weights.numpy(), measure))
        scores = FilterCorrelation(measure).score(weights, None, None)
        assert scores.argsort(stable=True).tolist() == order
        np.testing.assert_allclose(scores[order].numpy(), steps, atol=1e-9)


@pytest.mark.parametrize("measure", ["pearson", "cosine"])
def test_a_filter_and_its_negative_are_one_and_one_of_them_stays(measure: str, device: torch.device) -> None:
    weights = torch.tensor([[1.0, 2.0, -3.0, 0.5], [0.3, -1.0, 0.2, 2.0], [-1.0, -2.0, 3.0, -0.5]], device=device)
    scores = FilterCorrelation(measure).score(weights, None, None)
    assert scores.device == weights.device
    assert scores[0] == 0
    assert (scores[1:] > 0.1).all()
    mean = FilterCorrelation(measure, variant="mean").score(weights, None, None)
    torch.testing.assert_close(mean[0], mean[2])
    assert mean[1] > mean[0]


@pytest.mark.parametrize("measure", ["pearson", "cosine"])
def test_the_mean_variant_against_numpy(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = rows(9, 5, 0)
    expected = 1 - (by_pairs(weights.numpy(), measure).sum(1) - 1) / 8
    criterion = FilterCorrelation(measure, variant="mean")
    np.testing.assert_allclose(criterion.score(weights, None, None).numpy(), expected, atol=1e-9)
    monkeypatch.setattr(correlation, "_BLOCK", 20)
    np.testing.assert_allclose(criterion.score(weights, None, None).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("variant", ["pairs", "mean"])
@pytest.mark.parametrize("measure", ["pearson", "cosine"])
def test_scales_signs_and_for_pearson_shifts_change_nothing(measure: str, variant: str) -> None:
    weights = rows(8, 6, 0)
    criterion = FilterCorrelation(measure, variant)
    scores = criterion.score(weights, None, None)
    factors = torch.tensor([1.0, -2.0, 1e-3, 1e3, -1.0, 1e-150, 1e150, 0.3], dtype=torch.float64)[:, None]
    torch.testing.assert_close(criterion.score(factors * weights, None, None), scores, rtol=0, atol=1e-9)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    permuted = criterion.score(weights[order], None, None)
    if variant == "pairs":  # of the last two, which are as alike to each other, position decides
        permuted, scores = permuted.sort().values, scores.sort().values
    torch.testing.assert_close(permuted, scores if variant == "pairs" else scores[order], rtol=0, atol=1e-9)
    if measure == "pearson":
        shifted = criterion.score(weights + 2.5, None, None)
        torch.testing.assert_close(shifted, criterion.score(weights, None, None), rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", ["pairs", "mean"])
def test_units_that_do_not_vary_go_first_and_do_not_count_for_the_others(variant: str) -> None:
    weights = rows(4, 3, 0)
    for measure, dull in (("pearson", [0.1, 0.1, 0.1]), ("pearson", [0.0, 0.0, 0.0]), ("cosine", [0.0, 0.0, 0.0])):
        criterion = FilterCorrelation(measure, variant)
        row = torch.tensor([dull], dtype=torch.float64)
        scores = criterion.score(torch.cat([weights[:2], row, weights[2:], row]), None, None)
        assert scores[[2, 5]].tolist() == [0.0, 0.0]
        assert torch.equal(scores[[0, 1, 3, 4]], criterion.score(weights, None, None))
        assert criterion.score(row, None, None).tolist() == [0.0]
    assert FilterCorrelation("cosine", variant).score(torch.full((1, 3), 0.1), None, None).tolist() == [1.0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("variant", ["pairs", "mean"])
def test_a_broken_unit_breaks_no_other_and_is_refused_by_the_engine(variant: str, value: float) -> None:
    layer = nn.Linear(3, 4)
    clean = FilterCorrelation(variant=variant).score(layer.weight.detach()[1:], None, None)
    with torch.no_grad():
        layer.weight[0, 1] = value
    scores = FilterCorrelation(variant=variant).score(layer.weight.detach(), None, None)
    assert scores[0].isnan()
    assert torch.equal(scores[1:], clean)
    with pytest.raises(ValueError, match="1 NaN among its 4 scores"):
        prunelab.prune(layer, 0.5, criterion=FilterCorrelation(variant=variant), granularity=Filter())


def test_few_units() -> None:
    for variant in ("pairs", "mean"):
        assert FilterCorrelation(variant=variant).score(rows(1, 3, 0), None, None).tolist() == [1.0]
        assert FilterCorrelation(variant=variant).score(rows(0, 3, 0), None, None).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("granularity", [Filter(), Channel(), Kernel(), Group(2, 4)])
def test_every_granularity_and_type(granularity, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, bias=False).to(dtype)
    matrix = granularity.view(layer.weight.detach()).double()
    order, steps = greedy(by_pairs(matrix.numpy(), "pearson"))
    scores = prunelab.score(layer, FilterCorrelation(), granularity)["weight"]
    assert scores.dtype == torch.float64
    assert scores.argsort(stable=True).tolist() == order
    np.testing.assert_allclose(scores[order].numpy(), steps, atol=1e-9)


def test_pruning_in_two_steps_is_pruning_in_one() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 12, 3)
    options = {"criterion": FilterCorrelation(), "granularity": Filter(), "scope": "local", "apply": False}
    first = prunelab.prune(layer, 0.25, **options)
    second = prunelab.prune(layer, 0.75, within=first, **options)
    assert torch.equal(second["weight"], prunelab.prune(layer, 0.75, **options)["weight"])


def test_units_without_a_shape_are_refused() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"FilterCorrelation.*Weight.*Group.*Filter"):
        prunelab.prune(layer, 0.5, criterion=FilterCorrelation(), granularity=Weight())
    with pytest.raises(ValueError, match=r"a unit has 1: use Filter\(\)"):
        prunelab.prune(layer, 0.5, criterion=FilterCorrelation(), granularity=Kernel())


def test_too_many_units_for_all_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "_PAIRED", 4)
    assert len(FilterCorrelation().score(rows(4, 3, 0), None, None)) == 4
    with pytest.raises(ValueError, match=r'5 units would take .* GiB: use variant="mean"'):
        FilterCorrelation().score(rows(5, 3, 0), None, None)
    assert len(FilterCorrelation(variant="mean").score(rows(5, 3, 0), None, None)) == 5


@pytest.mark.parametrize(
    ("arguments", "message"), [({"measure": "spearman"}, "pearson"), ({"variant": "all"}, "pairs")]
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterCorrelation(**arguments)
