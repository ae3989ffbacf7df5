"""The fast selection against a stable sort of everything, for every float type, ties and edges included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunelab.selection import NotANumberError, keep_largest, keep_largest_in_rows, keep_within_budget, largest, rows

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def by_sorting(values: list[Tensor], remove: int, magnitude: bool) -> list[Tensor]:
    """The definition: sort all values stably, remove the first `remove`."""
    flat = torch.cat([tensor.flatten().double() for tensor in values])
    order = torch.sort(flat.abs() if magnitude else flat, stable=True).indices
    keep = torch.ones(flat.numel(), dtype=torch.bool)
    keep[order[:remove]] = False
    return list(keep.split([tensor.numel() for tensor in values]))


def assert_same(values: list[Tensor], remove: int, magnitude: bool) -> None:
    kept = keep_largest(values, remove, magnitude=magnitude)
    assert all(map(torch.equal, kept, by_sorting(values, remove, magnitude)))


# Few distinct values make ties; the others are the edges of the format.
floats = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 1e-7, float("inf"), -float("inf")]) | st.floats(
    allow_nan=False, width=16
)


@settings(max_examples=300, deadline=None)
@given(
    lists=st.lists(st.lists(floats, max_size=40), min_size=1, max_size=4),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=4, max_size=4),
    fraction=st.floats(0, 1),
    magnitude=st.booleans(),
    sizes=st.sampled_from([(1, 0.5), (3, 0.1), (7, 1), (1 << 16, 3)]),
    on_device=st.booleans(),
)
def test_equals_a_stable_sort(
    lists: list[list[float]],
    dtypes: list[torch.dtype],
    fraction: float,
    magnitude: bool,
    sizes: tuple[int, float],
    on_device: bool,
) -> None:
    values = [torch.tensor(one, dtype=dtype) for one, dtype in zip(lists, dtypes, strict=False)]
    remove = round(fraction * sum(tensor.numel() for tensor in values))
    with pytest.MonkeyPatch.context() as patch:
        # Tiny chunks and samples: many chunks, and brackets that miss.
        patch.setattr(largest, "_CHUNK", sizes[0])
        patch.setattr(largest, "_SAMPLE", sizes[1])
        if on_device:  # the code that GPUs run, here on the CPU
            patch.setattr(largest, "_scan", largest._scan_on_device)
        assert_same(values, remove, magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("magnitude", [True, False])
@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.5, 0.8, 0.999, 1.0])
def test_large_tensors(dtype: torch.dtype, magnitude: bool, sparsity: float, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(n, generator=generator).to(device, dtype) for n in (300_000, 1, 70_000)]
    values[2][10_000:60_000] = 0
    remove = round(sparsity * 370_001)
    kept = keep_largest(values, remove, magnitude=magnitude)
    assert [mask.device.type for mask in kept] == [device.type] * 3
    expected = by_sorting([tensor.cpu() for tensor in values], remove, magnitude)
    assert all(map(torch.equal, [mask.cpu() for mask in kept], expected))


@pytest.mark.parametrize("magnitude", [True, False])
def test_every_bracket_leads_to_the_same_answer(magnitude: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Consecutive floats, so that being one off at either end of a bracket is seen.
    bits = torch.tensor([3, 1, 4, 1, 5, 2, 6, 5, 3], dtype=torch.int16)
    values = bits.view(torch.float16) * torch.tensor([1, -1] * 4 + [1])
    for low in range(-7, 8):
        for high in range(low, 8):
            for tied in (None, low - 1):
                monkeypatch.setattr(largest, "_bracket", lambda *_, low=low, high=high, tied=tied: (low, high, tied))
                for remove in range(10):
                    assert_same([values[:4], values[4:]], remove, magnitude)


@pytest.mark.parametrize("magnitude", [True, False])
def test_many_ties_where_the_threshold_lies(magnitude: bool, device: torch.device) -> None:
    """A model that was pruned before: most of its weights are one value, zero."""
    generator = torch.Generator().manual_seed(2)
    values = [torch.randn(n, generator=generator).to(device) for n in (200_000, 5, 70_000)]
    for tensor in values:
        tensor[torch.rand(tensor.shape, generator=generator).to(device) < 0.8] = 0
    zeros = sum(int((tensor == 0).sum()) for tensor in values)
    for remove in (1, 1000, zeros // 2, zeros - 1, zeros, zeros + 1, 220_000, 260_000, 270_004):
        expected = by_sorting([tensor.cpu() for tensor in values], remove, magnitude)
        kept = keep_largest(values, remove, magnitude=magnitude)
        assert all(map(torch.equal, [mask.cpu() for mask in kept], expected))


def test_zeros_tie_whatever_their_sign() -> None:
    values = torch.tensor([0.0, -0.0, 0.0, -0.0])
    for magnitude in (True, False):
        assert keep_largest([values], 2, magnitude=magnitude)[0].tolist() == [False, False, True, True]


def test_an_adversarial_sample_only_costs_another_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    # The sample takes every third value; those are all huge, so the bracket lies far above the threshold.
    monkeypatch.setattr(largest, "_SAMPLE", 5)
    values = torch.rand(3000)
    values[1::3] += 1000
    assert_same([values], 1500, magnitude=True)
    values[1::3] -= 5000
    assert_same([values], 1500, magnitude=False)


def test_infinities_are_ranked_and_nan_refused(device: torch.device) -> None:
    values = torch.tensor([1.0, float("-inf"), 0.0, float("inf")], device=device)
    assert keep_largest([values], 2, magnitude=True)[0].tolist() == [False, True, False, True]
    assert keep_largest([values], 1)[0].tolist() == [True, False, True, True]
    for sign, remove, magnitude in itertools.product((1, -1), (0, 1, 5), (True, False)):
        bad = [values, torch.tensor([sign * float("nan")], device=device)]
        with pytest.raises(NotANumberError) as caught:
            keep_largest(bad, remove, magnitude=magnitude)
        assert caught.value.index == 1


@pytest.mark.parametrize("remove", [-1, 4])
def test_refuses_to_remove_what_is_not_there(remove: int) -> None:
    with pytest.raises(ValueError, match=f"cannot remove {remove} of 3"):
        keep_largest([torch.zeros(3)], remove)


def test_does_not_change_its_input() -> None:
    values = torch.randn(100, dtype=torch.float32).t()
    before = values.clone()
    keep_largest([values], 50, magnitude=True)
    assert torch.equal(values, before)


@settings(max_examples=300, deadline=None)
@given(
    units=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 6)), max_size=30),
    fraction=st.floats(0, 1),
)
def test_budget_walk_is_the_walk(units: list[tuple[int, int]], fraction: float) -> None:
    scores = torch.tensor([float(score) for score, _ in units])
    sizes = torch.tensor([size for _, size in units], dtype=torch.int64)
    budget = round(fraction * int(sizes.sum()))
    expected, spent = np.ones(len(units), dtype=bool), 0
    for unit in sorted(range(len(units)), key=lambda i: (units[i][0], i)):
        if spent + units[unit][1] <= budget:
            spent += units[unit][1]
            expected[unit] = False
    assert keep_within_budget(scores, sizes, budget).tolist() == expected.tolist()


# --- within rows ----------------------------------------------------------------------------------------------------


def rows_by_sorting(values: Tensor, remove: int, magnitude: bool, alive: Tensor | None) -> list[list[bool]]:
    """The definition, in plain Python: in every row a stable sort, what is gone first, then the smallest."""
    kept = []
    for i, row in enumerate(values.double().tolist()):
        gone = [alive is not None and not alive[i, j] for j in range(len(row))]
        order = sorted(
            range(len(row)), key=lambda j: (not gone[j], 0 if gone[j] else abs(row[j]) if magnitude else row[j])
        )
        removed = set(order[:remove]) | {j for j in order if gone[j]}
        kept.append([j not in removed for j in range(len(row))])
    return kept


@settings(max_examples=400, deadline=None)
@given(data=st.data(), columns=st.integers(0, 20), count=st.integers(0, 5), magnitude=st.booleans())
def test_rows_equal_a_stable_sort_of_each(data: st.DataObject, columns: int, count: int, magnitude: bool) -> None:
    of_rows = st.lists(st.lists(floats, min_size=columns, max_size=columns), min_size=count, max_size=count)
    values = torch.tensor(data.draw(of_rows), dtype=data.draw(st.sampled_from(DTYPES))).reshape(count, columns)
    remove = data.draw(st.integers(0, columns))
    alive = None
    if data.draw(st.booleans()):
        bits = st.lists(st.booleans(), min_size=count * columns, max_size=count * columns)
        alive = torch.tensor(data.draw(bits), dtype=torch.bool).reshape(count, columns)
        values[~alive] = data.draw(st.sampled_from([0.0, float("nan"), float("inf")]))  # what is gone is not looked at
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_CHUNK", data.draw(st.sampled_from([1, 7, 1 << 16])))
        patch.setattr(rows, "_PAIRS", data.draw(st.sampled_from([0, 8, 20])))
        kept = keep_largest_in_rows(values, remove, magnitude=magnitude, alive=alive)
    assert kept.shape == values.shape
    assert kept.tolist() == rows_by_sorting(values, remove, magnitude, alive)
    if values.numel():  # the code that GPUs run, here on the CPU
        on_device = rows._on_device(values, remove, rows.Ranking(values.dtype, magnitude), alive)
        assert on_device.tolist() == kept.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("magnitude", [True, False])
@pytest.mark.parametrize(("shape", "remove"), [((300, 700), 350), ((50_000, 4), 2), ((1, 100_000), 99_999)])
def test_rows_of_large_matrices(
    dtype: torch.dtype, magnitude: bool, shape: tuple[int, int], remove: int, device: torch.device
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2)).round(decimals=1).to(device, dtype)
    kept = keep_largest_in_rows(values, remove, magnitude=magnitude)
    assert kept.device == values.device
    ranked = values.double().abs() if magnitude else values.double()
    order = ranked.sort(dim=1, stable=True).indices
    assert torch.equal(kept, torch.ones_like(kept).scatter(1, order[:, :remove], False))


def test_rows_refuse_nan_and_impossible_counts(device: torch.device) -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, float("nan")]], device=device)
    for sign, remove, magnitude, width in itertools.product((1, -1), (0, 1, 2), (True, False), (1, 9)):
        with pytest.raises(NotANumberError):
            keep_largest_in_rows((sign * values).repeat(1, width), remove, magnitude=magnitude)
    with pytest.raises(ValueError, match="cannot remove 3 of 2 values"):
        keep_largest_in_rows(values, 3)


def test_rows_do_not_change_their_input() -> None:
    values = torch.randn(20, 30).t()
    alive = torch.rand(30, 20) > 0.3
    before, alive_before = values.clone(), alive.clone()
    keep_largest_in_rows(values, 10, alive=alive)
    assert torch.equal(values, before)
    assert torch.equal(alive, alive_before)
