"""One interface for every curvature matrix: products, blocks and inverses against the matrix itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab import curvature
from prunelab.curvature.inverse import BATCH, ShrinkingInverse, positive_inverse, positive_shift
from prunelab.curvature.matrices import BlockDiagonal, Dense, Factored
from prunelab.curvature.places import Places

PLACES = Places(("a", "b", "c"), ((2, 3), (1,), (3,)))


def draw(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def positive(size: int, seed: int = 0, smallest: float = 0.1) -> Tensor:
    X = draw(size + 5, size, seed)
    return X.T @ X / size + smallest * torch.eye(size, dtype=torch.float64)


def kinds() -> dict[str, Any]:
    X, matrix = draw(4, 10), positive(10)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1, bias=False), nn.Linear(1, 1)).double()
    data = [(draw(6, 2, 1), draw(6, 1, 2))]
    return {
        "dense": Dense(PLACES, matrix),
        "exact": curvature.exact(model, data, F.mse_loss, weight_decay=3.0),
        "wide": Factored(PLACES, X, ridge=0.3),
        "tall": Factored(PLACES, draw(25, 10), ridge=0.3),
        "blocks": Dense(PLACES, matrix).blocks(),
        "blocks of four": Factored(PLACES, X, ridge=0.3).blocks(4),
    }


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_every_kind_does_what_its_matrix_does(name: str, damping: float) -> None:
    H = kinds()[name]
    size = H.places.size
    matrix, vectors = H.matrix(), draw(size, 3, 5)
    inverse = torch.linalg.inv(matrix + damping * torch.eye(size, dtype=torch.float64))
    close = {"atol": 1e-10, "rtol": 0}
    torch.testing.assert_close(H @ vectors, matrix @ vectors, **close)
    torch.testing.assert_close(H @ vectors[:, 0], matrix @ vectors[:, 0], **close)
    torch.testing.assert_close(H.diagonal(), matrix.diag(), **close)
    torch.testing.assert_close(H.inverse(damping), inverse, **close)
    torch.testing.assert_close(H.solve(vectors, damping), inverse @ vectors, **close)
    torch.testing.assert_close(H.solve(vectors[:, 1], damping), inverse @ vectors[:, 1], **close)
    torch.testing.assert_close(H.inverse_columns([0, size - 1], damping), inverse[:, [0, size - 1]], **close)
    assert H.shift(damping) == 0.0
    for rows, columns in (([1, 3], None), (slice(2, 6), [0]), (4, None), (torch.tensor([5]), slice(None)), ([], None)):
        down = torch.arange(size)[torch.as_tensor(rows).reshape(-1).long() if not isinstance(rows, slice) else rows]
        across = down if columns is None else torch.arange(size)[columns]
        torch.testing.assert_close(H.block(rows, columns), matrix[down][:, across], **close)


def test_parameters_by_name() -> None:
    H = Dense(PLACES, positive(10))
    torch.testing.assert_close(H.block("a", "c"), H.matrix()[:6, 7:])
    torch.testing.assert_close(H.block("b"), H.matrix()[6:7, 6:7])
    torch.testing.assert_close(H.inverse_columns("c"), torch.linalg.inv(H.matrix())[:, 7:])
    parts = H.by_parameter(H.diagonal())
    assert {name: tuple(part.shape) for name, part in parts.items()} == {"a": (2, 3), "b": (1,), "c": (3,)}
    assert parts["c"][2] == H.matrix()[9, 9]
    with pytest.raises(ValueError, match="no parameter 'd' among those of this matrix: a, b, c"):
        H.block("d")
    with pytest.raises(IndexError):
        H.block(10)


def test_blocks_keep_what_lies_on_the_diagonal_only() -> None:
    H = Dense(PLACES, positive(10))
    by_parameter = H.blocks()
    assert isinstance(by_parameter, BlockDiagonal)
    matrix = H.matrix()
    expected = torch.block_diag(matrix[:6, :6], matrix[6:7, 6:7], matrix[7:, 7:])
    torch.testing.assert_close(by_parameter.matrix(), expected)
    torch.testing.assert_close(H.blocks(1).matrix(), torch.diag(matrix.diag()))
    torch.testing.assert_close(H.blocks(10).matrix(), matrix)
    torch.testing.assert_close(H.blocks(99).matrix(), matrix)
    for size in (0, -1, 2.5, True, "4"):
        with pytest.raises(ValueError, match="size must be a whole number of rows"):
            H.blocks(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("spectrum", [[-2.0, 1.0, 3.0], [-1e-7, 1.0, 2.0], [0.0, 0.0, 5.0], [1e-17, 1.0, 2.0]])
def test_an_indefinite_matrix_is_shifted_so_that_its_smallest_eigenvalue_is_1e_4(spectrum: list[float]) -> None:
    Q = torch.linalg.qr(draw(3, 3))[0]
    matrix = Q @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ Q.T
    H = Dense(Places(("w",), ((3,),)), (matrix + matrix.T) / 2)
    expected = 1e-4 - spectrum[0]
    assert H.shift() == pytest.approx(expected, abs=1e-14)
    raised = H.matrix() + H.shift() * torch.eye(3, dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(raised)[0]) == pytest.approx(1e-4, abs=1e-12)
    torch.testing.assert_close(H.inverse(), torch.linalg.inv(raised), atol=1e-6, rtol=1e-9)
    assert H.shift(damping=3.0) == 0.0  # enough damping needs no shift


@pytest.mark.parametrize("smallest", [1e-9, 1e-6, 1.0])
def test_a_positive_definite_matrix_is_left_alone_however_small_its_eigenvalues(smallest: float) -> None:
    Q = torch.linalg.qr(draw(4, 4))[0]
    matrix = Q @ torch.diag(torch.tensor([smallest, 1.0, 2.0, 3.0], dtype=torch.float64)) @ Q.T
    assert positive_shift((matrix + matrix.T) / 2) == 0.0


def test_a_wide_factor_is_singular_without_a_ridge() -> None:
    H = Factored(PLACES, draw(4, 10))
    assert H.shift() == pytest.approx(1e-4)
    raised = H.matrix() + 1e-4 * torch.eye(10, dtype=torch.float64)
    torch.testing.assert_close(
        H.solve(draw(10, 2, 3)), torch.linalg.solve(raised, draw(10, 2, 3)), atol=1e-6, rtol=1e-9
    )
    torch.testing.assert_close(H.inverse(), torch.linalg.inv(raised), atol=1e-6, rtol=1e-9)


def test_each_block_is_shifted_by_what_it_needs() -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, -3.0, 4.0], dtype=torch.float64))
    H = Dense(Places(("a", "b"), ((2,), (2,))), matrix).blocks()
    assert [part.shift() for part in H.parts] == pytest.approx([0.0, 3.0001])
    assert H.shift() == pytest.approx(3.0001)
    torch.testing.assert_close(H.inverse()[:2, :2], torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64)))


def test_a_shift_below_rounding_is_an_error_and_not_an_inverse() -> None:
    with pytest.raises(ValueError, match=r"stays singular when its smallest eigenvalue, .* give more damping"):
        positive_inverse(torch.diag(torch.tensor([1e20, 0.0, -1.0], dtype=torch.float64)) + 1e19)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            positive_shift(torch.full((2, 2), bad))


# --- taking rows and columns out of an inverse -------------------------------------------------------------------


@settings(max_examples=25)
@given(size=st.integers(2, 40), seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_a_shrunk_inverse_is_the_inverse_of_what_is_left(size: int, seed: int, share: float) -> None:
    matrix = positive(size, seed, smallest=1e-3)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[: int(share * (size - 1))]
    shrinking = ShrinkingInverse(torch.linalg.inv(matrix))
    for q in order:
        shrinking.remove(q[None], matrix.new_ones(1))
    left = torch.ones(size, dtype=torch.bool)
    left[order] = False
    rows = left.nonzero()[:, 0]
    exact = torch.linalg.inv(matrix[rows][:, rows])
    scale = float(exact.abs().max())
    torch.testing.assert_close(shrinking.columns(rows)[rows], exact, atol=1e-10 * scale, rtol=0)
    torch.testing.assert_close(shrinking.diagonal[rows], exact.diag(), atol=1e-10 * scale, rtol=0)
    torch.testing.assert_close(shrinking.block(rows[:2]), exact[:2, :2], atol=1e-10 * scale, rtol=0)
    assert torch.equal(shrinking.left, left)
    assert bool(shrinking.diagonal[~left].isinf().all())


def test_many_removals_pass_through_the_base_and_its_compaction() -> None:
    size = 3 * BATCH + 20
    matrix = positive(size, smallest=0.5)
    original = torch.linalg.inv(matrix)
    shrinking = ShrinkingInverse(original.clone())
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    for number, q in enumerate(order[: size - 5], start=1):
        weights = draw(size, 1, number)[:, 0]
        left = shrinking.left.nonzero()[:, 0]
        change = shrinking.remove(torch.tensor([q]), weights[[q]])
        if number in {1, BATCH, BATCH + 1, 2 * BATCH + 3, size - 6}:
            exact = torch.zeros(size, size, dtype=torch.float64)
            exact[left[:, None], left] = torch.linalg.inv(matrix[left][:, left])
            torch.testing.assert_close(change[left], (exact[:, q] * weights[q] / exact[q, q])[left], atol=1e-10, rtol=0)
    rows = torch.tensor(sorted(order[size - 5 :]))
    torch.testing.assert_close(shrinking.block(rows), torch.linalg.inv(matrix[rows][:, rows]), atol=1e-10, rtol=0)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_group_at_once_is_its_members_one_by_one(seed: int, sizes: list[int]) -> None:
    size = sum(sizes) + 3
    matrix = positive(size, seed)
    together, single = (ShrinkingInverse(torch.linalg.inv(matrix)) for _ in range(2))
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    weights = draw(size, 1, seed)[:, 0]
    left = torch.arange(size)
    for part in order[: sum(sizes)].split(sizes):
        change = together.remove(part, weights[part])
        exact = torch.linalg.inv(matrix[left][:, left])
        at = torch.searchsorted(left, part)
        expected = exact[:, at] @ torch.linalg.solve(exact[at][:, at], weights[part])
        torch.testing.assert_close(change[left], expected, atol=1e-9, rtol=0)
        torch.testing.assert_close(change[part], weights[part], atol=1e-12, rtol=0)  # they become zero
        for q in part:
            single.remove(q[None], weights[q][None])
        left = left[~torch.isin(left, part)]
    torch.testing.assert_close(together.columns(left)[left], single.columns(left)[left], atol=1e-9, rtol=0)


def test_the_inverse_that_is_given_is_not_changed() -> None:
    inverse = torch.linalg.inv(positive(5))
    before = inverse.clone()
    shrinking = ShrinkingInverse(inverse)
    shrinking.remove(torch.tensor([1, 2]), inverse.new_ones(2))
    assert torch.equal(inverse, before)
