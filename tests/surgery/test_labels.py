"""Labels move as tensors do: each function against numpy on arrays that hold their own channel numbers."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelab.surgery.labels import (
    FIXED,
    compress,
    concatenate,
    extents,
    lift,
    reshape,
    splits,
    spread,
    tidy,
    together,
    varying,
)
from prunelab.surgery.slices import slices_of

small_shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@st.composite
def labels(draw: st.DrawFn) -> tuple[tuple[int, ...], np.ndarray]:
    """(shape of a tensor, a label of it): the tensor's size along some of its dimensions, 1 along the others."""
    shape = tuple(draw(small_shapes))
    own = tuple(size if draw(st.booleans()) else 1 for size in shape)
    return shape, np.array(draw(st.lists(st.integers(1, 9), min_size=math.prod(own), max_size=math.prod(own)))).reshape(
        own
    )


@functools.cache
def factors(size: int) -> list[tuple[int, ...]]:
    """All shapes of up to four dimensions with this many elements."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    return [s for n in (1, 2, 3, 4) for s in itertools.product(divisors, repeat=n) if math.prod(s) == size]


@settings(max_examples=100, derandomize=True)
@given(data=st.data(), pair=labels())
def test_reshape_is_numpys(data: st.DataObject, pair: tuple[tuple[int, ...], np.ndarray]) -> None:
    """Filled out to the whole tensor, the label says of each element what it said before it was viewed otherwise."""
    old, label = pair
    new = data.draw(st.sampled_from(factors(math.prod(old))))
    found = reshape(label, old, new)
    assert found.ndim == len(new)
    assert all(a in (1, b) for a, b in zip(found.shape, new, strict=True))
    np.testing.assert_array_equal(np.broadcast_to(found, new), np.broadcast_to(label, old).reshape(new))


@settings(max_examples=80, derandomize=True)
@given(pair=labels())
def test_compress_says_the_same_in_less(pair: tuple[tuple[int, ...], np.ndarray]) -> None:
    shape, label = pair
    found = compress(label)
    np.testing.assert_array_equal(np.broadcast_to(found, shape), np.broadcast_to(label, shape))
    for dim in varying(found):
        assert (np.diff(found, axis=dim) != 0).any()
    assert all(label.size > 1 for label in tidy([label, found]))


@settings(max_examples=60, derandomize=True)
@given(data=st.data(), dims=st.integers(1, 3), count=st.integers(1, 3))
def test_concatenate_is_numpys(data: st.DataObject, dims: int, count: int) -> None:
    dim = data.draw(st.integers(0, dims - 1))
    common = data.draw(st.lists(st.integers(1, 3), min_size=dims, max_size=dims))
    sizes, parts, whole = [], [], []
    for _ in range(count):
        size = data.draw(st.integers(1, 3))
        shape = [*common[:dim], size, *common[dim + 1 :]]
        own = [n if i == dim or data.draw(st.booleans()) else 1 for i, n in enumerate(shape)]
        part = np.arange(1, 1 + math.prod(own)).reshape(own) if data.draw(st.booleans()) else None
        sizes.append(size)
        parts.append(part)
        whole.append(np.broadcast_to(FIXED if part is None else part, shape))
    found = concatenate(parts, sizes, dim, dims)
    expected = np.concatenate(whole, dim)
    np.testing.assert_array_equal(np.broadcast_to(found, expected.shape), expected)


def test_spread_and_lift() -> None:
    assert spread(np.array([4, 5]), 1, 4).shape == (1, 2, 1, 1)
    assert lift(spread(np.array([4, 5]), 0, 2), 4).shape == (1, 1, 2, 1)
    assert varying(spread(np.array([4, 5]), 1, 3)) == (1,)
    assert varying(spread(np.array([4]), 1, 3)) == ()


@pytest.mark.parametrize(
    ("old", "new", "dim", "found"),
    [
        ((2, 12), (2, 3, 4), 1, [(1, 2)]),
        ((2, 12), (2, 3, 4), 0, []),
        ((2, 12), (2, 12, 1), 1, []),
        ((2, 12), (24,), 1, []),
        ((2, 12), (2, 2, 2, 3), 1, [(1, 2, 3)]),
        ((12, 2), (3, 4, 2), 0, [(0, 1)]),
        ((2, 12), (6, 4), 1, [(0, 1)]),
    ],
)
def test_which_dimensions_a_view_splits(
    old: tuple[int, ...], new: tuple[int, ...], dim: int, found: list[tuple[int, ...]]
) -> None:
    assert splits(spread(np.arange(1, old[dim] + 1), dim, len(old)), old, new) == found


@settings(max_examples=100, derandomize=True)
@given(kept=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=3))
def test_extents_of_two_dimensions(kept: list[list[bool]]) -> None:
    """A box exactly where every row that keeps any keeps as many as the others."""
    counts = {sum(row) for row in kept} - {0}
    rows = sum(any(row) for row in kept)
    found = extents(np.array(kept))
    if not counts:
        assert found == (0, 0)
    elif len(counts) == 1:
        assert found == (rows, counts.pop())
    else:
        assert found is None


@settings(max_examples=60, derandomize=True)
@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_slices_are_numpys_outer_indexing(data: st.DataObject, shape: list[int]) -> None:
    """One label a dimension: what stays is `tensor[np.ix_(...)]`, and the mask is true there."""
    keep = [np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))) for n in shape]
    given_ = [spread(flags, dim, len(shape)) for dim, flags in enumerate(keep)]
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    cut = slices_of(shape, given_)
    expected = tensor.numpy()[np.ix_(*keep)]
    if cut is None:
        assert all(flags.all() for flags in keep)
        return
    assert cut.left == expected.shape
    np.testing.assert_array_equal(cut.keep(tensor).numpy(), expected)
    assert sorted(tensor[cut.mask()].tolist()) == sorted(expected.ravel().tolist())


def test_labels_with_a_common_dimension_are_one_question() -> None:
    """(2, 3) and (1, 3) meet in the second dimension: a position stays if both keep it; the third stands alone."""
    both = np.array([[True, True, False], [True, False, True]])[:, :, None]
    column = np.array([[True, False, True]])[:, :, None]
    alone = np.array([True, False]).reshape(1, 1, 2)
    found = together([both, alone, column])
    assert sorted(dims for _, dims in found) == [(0, 1), (2,)]
    (kept,) = (stays for stays, dims in found if dims == (0, 1))
    np.testing.assert_array_equal(kept[:, :, 0], [[True, False, False], [True, False, True]])
