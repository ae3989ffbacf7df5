"""N:M patterns: exact in every group of every layer, for any n < m."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunelab
from prunelab.criteria import Magnitude
from prunelab.granularity import Filter, Granularity, Group, Kernel
from prunelab.scope import NM, Candidates


def by_hand(rows: list[list[float]], n: int, m: int) -> list[list[bool]]:
    """Of each m consecutive values of a row the n largest stay; of equals the last."""
    kept = []
    for row in rows:
        decision: list[bool] = []
        for start in range(0, len(row), m):
            group = row[start : start + m]
            order = sorted(range(len(group)), key=lambda j: (group[j], j))
            removed = set(order[: max(0, len(group) - n)])
            decision += [j not in removed for j in range(len(group))]
        kept.append(decision)
    return kept


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_group_keeps_n_of_m(data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 20))
    n = data.draw(st.integers(0, m - 1))
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    values = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, math.inf]) | st.floats(0, 8, width=16)
    scores = data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    tensor = torch.tensor(scores, dtype=dtype)
    one = Candidates("w", tensor.flatten(), 1, shape=(rows, columns))
    kept = NM(n, m).keep([one], 1 - n / m)[0].view(rows, columns)
    assert kept.tolist() == by_hand(tensor.double().tolist(), n, m)
    for start in range(0, columns, m):
        group = kept[:, start : start + m]
        assert (group.sum(1) == min(n, group.shape[1])).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(16, 3),
        lambda: nn.Linear(10, 4),
        lambda: nn.Conv2d(8, 4, 3, groups=2),
        lambda: nn.Conv2d(3, 5, 3),
        lambda: nn.Conv1d(4, 2, 1),
        lambda: nn.Conv2d(4, 4, 3, groups=4),
    ],
)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 2), (5, 16), (3, 7)])
def test_along_the_flattened_inputs_of_each_output(make, n: int, m: int, device: torch.device) -> None:
    torch.manual_seed(0)
    module = make()
    rows = module.weight.detach().flatten(1).abs().tolist()
    masks = prunelab.prune(module.to(device), scope=NM(n, m))
    assert masks["weight"].flatten(1).tolist() == by_hand(rows, n, m)


def test_transposed_convolutions_group_along_their_inputs_too() -> None:
    torch.manual_seed(0)
    module = nn.ConvTranspose2d(4, 3, 1)
    rows = module.weight.detach()[:, :, 0, 0].t().abs().tolist()
    assert prunelab.prune(module, scope=NM(2, 4))["weight"][:, :, 0, 0].t().tolist() == by_hand(rows, 2, 4)


@pytest.mark.parametrize("criterion", [Magnitude(), Magnitude(2, normalize="layer")], ids=repr)
def test_n_of_m_with_ties_keeps_more_than_n(criterion: Magnitude) -> None:
    """A threshold in each group, `>=` to keep: all that tie with it stay. Here the first of equals go."""
    module = nn.Linear(8, 2, bias=False)
    module.weight.data = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0], [2, 1, -1, 1, 0, 3, 0, 0]])
    masks = prunelab.prune(module, scope=NM(2, 4), criterion=criterion)
    assert masks["weight"].int().tolist() == [[0, 0, 1, 1, 0, 0, 1, 1], [1, 0, 0, 1, 0, 1, 0, 1]]


def test_within_keeps_what_is_left_of_a_group() -> None:
    module = nn.Linear(8, 1, bias=False)
    module.weight.data = torch.tensor([[1.0, 2, 3, 4, 1, 2, 3, 4]])
    before = prunelab.Masks({"weight": torch.tensor([[1, 1, 1, 0, 0, 1, 0, 0]], dtype=torch.bool)})
    masks = prunelab.prune(module, scope=NM(2, 4), within=before, apply=False)
    assert masks["weight"].int().tolist() == [[0, 1, 1, 0, 0, 1, 0, 0]]
    module = nn.Linear(16, 16)
    half = prunelab.prune(module, scope=NM(4, 8))
    quarter = prunelab.prune(module, scope=NM(2, 8), within=half)
    assert quarter & half == quarter
    assert (quarter["weight"].view(-1, 8).sum(1) == 2).all()
    filters = prunelab.prune(nn.Linear(8, 4), 0.5, granularity=Filter())
    both = prunelab.prune(nn.Linear(8, 4), scope=NM(2, 4), within=filters)
    assert (both["weight"].sum(1) == 4 * filters["bias"]).all()


def test_the_sparsity_is_none_or_the_patterns() -> None:
    module = nn.Linear(12, 2)
    for scope, sparsity in ((NM(2, 4), 0.5), (NM(1, 3), 2 / 3), (NM(1, 3), 1 - 1 / 3), (NM(3, 4), torch.tensor(0.25))):
        assert prunelab.prune(module, sparsity, scope=scope, apply=False) == prunelab.prune(
            module, scope=scope, apply=False
        )
    with pytest.raises(ValueError, match=r"NM\(2, 4\) removes 0\.5 of the weights, so sparsity must be that or None"):
        prunelab.prune(module, 0.6, scope=NM(2, 4))
    with pytest.raises(ValueError, match=r"did you mean 0\.5"):
        prunelab.prune(module, 50, scope=NM(2, 4))


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 4), (-1, 4), (0, 0), (0, -1)])
def test_n_is_below_m(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=r"0 <= n < m; 2:4 is NM\(2, 4\)"):
        NM(n, m)


def test_n_and_m_are_whole_numbers() -> None:
    import numpy as np

    assert NM(np.int64(2), 4) == NM(2, 4)
    for bad in (2.0, "2", True, None):
        with pytest.raises(TypeError, match="n is a whole number of weights"):
            NM(bad, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("granularity", [Filter(), Kernel(), Group(1, 4)], ids=repr)
def test_patterns_of_larger_units_are_refused(granularity: Granularity) -> None:
    with pytest.raises(ValueError, match=r"NM\(2, 4\) is a pattern of single weights, .* use granularity.Weight\(\)"):
        prunelab.prune(nn.Linear(4, 4), scope=NM(2, 4), granularity=granularity)


def test_vectors_nan_and_empty_weights(device: torch.device) -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 0), nn.Linear(0, 2)).to(device)
    with pytest.raises(ValueError, match=r"'0\.bias' of shape .* has none"):
        prunelab.prune(model, scope=NM(1, 2), parameters=["0.bias"])
    assert prunelab.prune(model, scope=NM(1, 2)).removed == 4
    model[0].weight.data[1, 1] = float("nan")
    with pytest.raises(ValueError, match=r"'0\.weight' has 1 NaN among its 8 weights"):
        prunelab.prune(model, scope=NM(1, 2))
