"""Competition within rows: exact counts in each, whatever the units, against a stable sort of every row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab.criteria import Magnitude
from prunelab.granularity import Channel, Filter, Granularity, Group, Kernel, Layer, Layout
from prunelab.scope import Candidates, PerRow

MODULES = [
    lambda: nn.Linear(7, 4),
    lambda: nn.Linear(1, 5),
    lambda: nn.Conv2d(4, 6, 3, groups=2),
    lambda: nn.Conv2d(4, 4, 3, groups=4),
    lambda: nn.ConvTranspose2d(4, 6, (2, 3), groups=2),
    lambda: nn.Conv1d(3, 2, 5, bias=False),
    lambda: nn.Conv3d(1, 3, 2),
]


def matrix(module: nn.Module, values: Tensor) -> Tensor:
    """The weight's values as (O, I/g·K), written out: one row an output channel."""
    groups, transposed = getattr(module, "groups", 1), isinstance(module, nn.ConvTranspose2d)
    if not transposed:
        return values.reshape(values.shape[0], -1)
    per_group, outs = values.shape[0] // groups, values.shape[1]
    return torch.stack(
        [values[g * per_group : (g + 1) * per_group, o].flatten() for g in range(groups) for o in range(outs)]
    )


def sorted_rows(scores: list[list[float]], remove: int) -> list[list[bool]]:
    kept = []
    for row in scores:
        gone = set(sorted(range(len(row)), key=lambda j: (row[j], j))[:remove])
        kept.append([j not in gone for j in range(len(row))])
    return kept


@pytest.mark.filterwarnings("ignore::prunelab.scope.LayerCollapseWarning")  # rows of one
@pytest.mark.parametrize("make", MODULES)
@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.5, 0.75, 1.0])
def test_weights_are_sorted_in_each_row(make, sparsity: float, device: torch.device) -> None:
    torch.manual_seed(0)
    module = make()
    module.weight.data = (4 * module.weight.data).round(decimals=1)  # ties
    rows = matrix(module, module.weight.data).abs().tolist()
    masks = prunelab.prune(module.to(device), sparsity, scope=PerRow())
    assert matrix(module, masks["weight"].cpu()).tolist() == sorted_rows(rows, round(sparsity * len(rows[0])))


@pytest.mark.parametrize("make", [MODULES[2], MODULES[4], MODULES[0]])
@pytest.mark.parametrize("p", [1, 2])
def test_kernels_compete_within_their_filter(make, p: int) -> None:
    torch.manual_seed(0)
    module = make()
    filters = matrix(module, module.weight.data)
    area = max(1, module.weight[0, 0].numel())
    scores = filters.view(len(filters), -1, area).abs().pow(p).sum(2)
    masks = prunelab.prune(module, 0.5, granularity=Kernel(), criterion=Magnitude(p), scope=PerRow())
    kept = matrix(module, masks["weight"]).view(len(filters), -1, area)
    assert torch.equal(kept.all(2), kept.any(2))
    assert kept.all(2).tolist() == sorted_rows(scores.tolist(), round(0.5 * scores.shape[1]))


def test_blocks_compete_within_a_row_of_blocks() -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 6)
    scores = module.weight.data.view(3, 2, 4, 2).abs().sum((1, 3))  # blocks of 2 x 2
    masks = prunelab.prune(module, 0.5, granularity=Group(2, 2), scope=PerRow())
    assert masks["weight"].view(3, 2, 4, 2).all(3).all(1).tolist() == sorted_rows(scores.tolist(), 2)


def test_a_row_that_ends_in_a_short_block_is_a_walk_over_sizes() -> None:
    # Two rows of 5 weights in blocks of 2, 2 and 1. Budget round(0.5 * 5) = 2 in each.
    module = nn.Linear(5, 2, bias=False)
    module.weight.data = torch.tensor([[1.0, 1, 2, 2, 1], [1, 1, 2, 2, 3]])
    masks = prunelab.prune(module, 0.5, granularity=Group(1, 2), scope=PerRow())
    # Row 0: the single 1 goes, then nothing of size 2 fits. Row 1: the two ones go.
    assert masks["weight"].int().tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    # A short last row of blocks changes nothing: its units are alike.
    tall = nn.Linear(4, 3, bias=False)
    assert prunelab.prune(tall, 0.5, granularity=Group(2, 2), scope=PerRow()).removed == 6


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_permuting_rows_permutes_the_masks_and_masks_nest(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 20))
    scores = torch.tensor(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0]), min_size=rows * columns, max_size=rows * columns))
    ).view(rows, columns)
    low, high = sorted(data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    order = torch.tensor(data.draw(st.permutations(range(rows))))

    def keep(values: Tensor, sparsity: float, alive: Tensor | None = None) -> Tensor:
        one = Candidates("w", values.flatten(), 1, None if alive is None else alive.flatten(), shape=(rows, columns))
        return PerRow().keep([one], sparsity)[0].view(rows, columns)

    first = keep(scores, low)
    assert ((~first).sum(1) == round(low * columns)).all()
    assert torch.equal(keep(scores[order], low), first[order])
    second = keep(scores, high, first)
    assert torch.equal(second, keep(scores, high))
    assert torch.equal(second & first, second)


def test_what_was_removed_before_counts_in_its_row() -> None:
    module = nn.Linear(4, 2, bias=False)
    module.weight.data = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1]])
    before = prunelab.Masks({"weight": torch.tensor([[False, True, True, True], [True, True, True, True]])})
    masks = prunelab.prune(module, 0.5, scope=PerRow(), within=before, apply=False)
    assert masks["weight"].int().tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    with pytest.raises(
        ValueError, match=r"means 0 units removed from each row of weight, but within= has already .* 1"
    ):
        prunelab.prune(module, 0.0, scope=PerRow(), within=before)


@pytest.mark.parametrize("granularity", [Filter(), Channel(), Layer()], ids=repr)
def test_units_that_do_not_tile_rows_are_refused(granularity: Granularity) -> None:
    with pytest.raises(
        ValueError, match=r"PerRow\(\) lets .* no units within a row; use granularity.Weight\(\), Kernel"
    ):
        prunelab.prune(nn.Linear(3, 3), 0.5, granularity=granularity, scope=PerRow())


def test_vectors_have_no_rows_and_empty_weights_no_units() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 0), nn.Linear(0, 3))
    with pytest.raises(ValueError, match=r"'0.bias' of shape \(3,\) has none; leave it out with exclude="):
        prunelab.prune(model, 0.5, scope=PerRow(), parameters=["0.bias"])
    assert prunelab.prune(model, 1 / 3, scope=PerRow()).removed == 3
    empty = Candidates("w", torch.empty(0), 1, shape=(0, 4), layout=Layout())
    assert PerRow().keep([empty], 0.5)[0].shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_infinities_and_nan(dtype: torch.dtype, device: torch.device) -> None:
    module = nn.Linear(20, 2, bias=False).to(device, dtype)
    module.weight.data[0, 0], module.weight.data[1, 3] = float("inf"), -float("inf")
    kept = prunelab.prune(module, 0.95, scope=PerRow(), apply=False)["weight"]
    assert torch.equal(kept, module.weight.isinf())
    module.weight.data[0, 1] = float("nan")
    with pytest.raises(ValueError, match=r"'weight' has 1 NaN among its 40 weights"):
        prunelab.prune(module, 0.5, scope=PerRow())
    with pytest.raises(ValueError, match=r"'weight' has 1 NaN among its 40 scores"):
        prunelab.prune(module, 0.5, scope=PerRow(), granularity=Kernel())
