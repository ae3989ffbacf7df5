"""Erdős–Rényi-kernel densities: against numbers worked out by hand, and an independent solver."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunelab
from prunelab.granularity import Filter, Kernel
from prunelab.scope import ERK, Candidates


def removed(masks: prunelab.Masks) -> list[int]:
    return [int((~mask).sum()) for mask in masks.values()]


def test_a_network_by_hand() -> None:
    """Raw densities of a Linear and a convolution, and the counts that follow.

    Linear(8, 4): (8 + 4) / 32, so 12 of its 32 weights for a scale of 1. Conv2d(2, 6, 3): (2 + 6 + 3 + 3) / 108, so 14.
    With 70 of the 140 weights kept the scale is 70 / 26: 32.3 of the 32, too many; it stays whole, and 38 are left.
    With 13 kept the scale is 1/2: 6 and 7.
    """
    model = nn.Sequential(nn.Linear(8, 4), nn.Conv2d(2, 6, 3))
    assert removed(prunelab.prune(model, 0.5, scope=ERK(), apply=False)) == [0, 70]
    assert removed(prunelab.prune(model, 1 - 13 / 140, scope=ERK(), apply=False)) == [26, 101]


def test_groups_and_transposed_convolutions_by_hand() -> None:
    # A filter of Conv2d(4, 4, 3, groups=2) has 2 inputs: (2 + 4 + 6) / 72. Conv1d(3, 6, 2): (3 + 6 + 2) / 36.
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv1d(3, 6, 2))
    for other in (model, nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.ConvTranspose1d(3, 6, 2))):
        assert removed(prunelab.prune(other, 1 - 23 / 108, scope=ERK(), apply=False)) == [72 - 12, 36 - 11]


def test_lenet_300_100() -> None:
    """0.1 of 266200 weights: 1084, 400 and 110 of 1594 parts; the last layer's 1837 are capped at its 1000."""
    model = nn.Sequential(nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10))
    kept = [1084 * 25620 / 1484, 400 * 25620 / 1484, 1000]  # 18714.4, 6905.7, 1000
    assert removed(prunelab.prune(model, 0.9, scope=ERK(), apply=False)) == [235200 - 18714, 30000 - 6906, 0]
    assert sum(kept) == pytest.approx(26620)


def water_filling(shapes: list[tuple[int, int]], living: list[int], keep: int, power: float) -> list[float]:
    """The scale by bisection instead of by capping: the sum of min(scale * share, living) grows with the scale."""
    share = [((a + b) / (a * b)) ** power * a * b for a, b in shapes]
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        if sum(min(middle * s, count) for s, count in zip(share, living, strict=True)) < keep:
            low = middle
        else:
            high = middle
    return [min(high * s, count) for s, count in zip(share, living, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6),
    sparsities=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    power=st.sampled_from([0, 0.5, 1.0, 2]),
    seed=st.integers(0, 100),
)
def test_shares_are_those_of_water_filling_and_masks_nest(
    shapes: list[tuple[int, int]], sparsities: tuple[float, float], power: float, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    low, high = sorted(sparsities)
    total = sum(a * b for a, b in shapes)
    layers = [Candidates(str(i), torch.rand(a * b, generator=draw), 1, shape=(a, b)) for i, (a, b) in enumerate(shapes)]
    alive = [torch.ones(a * b, dtype=torch.bool) for a, b in shapes]
    for sparsity in (low, high):
        living = [int(keep.sum()) for keep in alive]
        layers = [
            Candidates(one.name, one.scores, 1, keep, shape=one.shape) for one, keep in zip(layers, alive, strict=True)
        ]
        kept = ERK(power).keep(layers, sparsity)
        counts = [int(keep.sum()) for keep in kept]
        assert total - sum(counts) == round(sparsity * total)
        ideal = water_filling(shapes, living, total - round(sparsity * total), power)
        assert all(abs(count - share) < 1 + 1e-6 for count, share in zip(counts, ideal, strict=True))
        for one, keep, before in zip(layers, kept, alive, strict=True):
            assert not (keep & ~before).any()
            if keep.any() and (before & ~keep).any():
                assert one.scores[keep].min() >= one.scores[before & ~keep].max()
        alive = kept


def test_remainders_go_to_the_largest_and_to_the_first_of_equals() -> None:
    # Three equal layers of 4: 7 of 12 to remove are 2 1/3 each; the first of the equals gives the odd one.
    layers = [Candidates(str(i), torch.arange(4.0), 1, shape=(2, 2)) for i in range(3)]
    assert [int((~kept).sum()) for kept in ERK().keep(layers, 7 / 12)] == [3, 2, 2]


def test_units_of_several_sizes_get_shares_of_the_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))
    kernels = prunelab.prune(model, 0.5, granularity=Kernel(), scope=ERK(), apply=False)  # of one size: exact
    assert kernels.removed == 9 * round(0.5 * (24 + 64))
    filters = prunelab.prune(model, 0.5, granularity=Filter(), scope=ERK(), apply=False)
    # 396 of 792 to keep, 17 to 22 parts: 172.6 and 223.4; so 43.4 and 352.6 to remove, which holds 1 and 4 filters.
    assert removed(filters) == [27, 288]


def test_what_was_removed_before_counts_and_stays() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    before = prunelab.Masks({"0.weight": torch.arange(100).view(10, 10) >= 80})
    masks = prunelab.prune(model, 0.5, scope=ERK(), within=before, apply=False)
    assert removed(masks) == [80, 20]
    with pytest.raises(ValueError, match="means 60 units removed from the model, but within= has already removed 80"):
        prunelab.prune(model, 0.3, scope=ERK(), within=before)


def test_what_erk_refuses() -> None:
    with pytest.raises(ValueError, match=r"'0.bias' of shape \(3,\) has none; leave it out with exclude="):
        prunelab.prune(nn.Sequential(nn.Linear(2, 3)), 0.5, scope=ERK(), parameters=["0.weight", "0.bias"])
    for bad in (-1, float("nan"), float("inf"), "1", True):
        with pytest.raises(ValueError, match="the power is a number, 0 or more"):
            ERK(bad)  # type: ignore[arg-type]
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 0), nn.Linear(0, 3))
    assert prunelab.prune(model, 0.5, scope=ERK()).removed == 3
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"'0\.weight' has 1 NaN"):
        prunelab.prune(model, 0.5, scope=ERK())
