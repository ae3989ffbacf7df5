"""SparseGPT against the published algorithm, written here from the paper, and against what it must be equal to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunelab.curvature import prune_layer


def problem(outputs: int, inputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight, and correlated inputs: four times as many samples as features."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=draw, dtype=torch.float64)
    x = torch.randn(4 * inputs, inputs, generator=draw, dtype=torch.float64) @ mixing
    return torch.randn(outputs, inputs, generator=draw, dtype=torch.float64), x


def published(
    weight: Tensor, x: Tensor, sparsity: float, pattern: tuple[int, int] | None, block: int, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of Frantar & Alistarh, with the block for choosing masks as large as that for lazy updates."""
    weight, (rows, columns) = weight.clone(), weight.shape
    hessian = 2 * x.T @ x / len(x)
    hessian += damping * hessian.diagonal().mean() * torch.eye(columns, dtype=x.dtype)
    inverse = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    gone = 0
    for i in range(0, columns, block):
        stop = min(i + block, columns)
        errors = torch.zeros_like(weight[:, i:stop])
        for j in range(i, stop):
            wide = stop - j if pattern is None else min(pattern[1], stop - j)
            costs = weight[:, j : j + wide] ** 2 / inverse.diagonal()[j : j + wide] ** 2
            if pattern is None and j == i:  # exactly so many up to here (the authors' code removes one more a block)
                quota = round(sparsity * (rows * stop)) - gone
                gone += quota
                lowest = costs.flatten().argsort(stable=True)[:quota]
                mask[:, j:stop] = torch.ones(costs.numel(), dtype=torch.bool).scatter(0, lowest, False).view_as(costs)
            elif pattern is not None and (j - i) % pattern[1] == 0:
                lowest = costs.argsort(dim=1, stable=True)[:, : max(0, wide - pattern[0])]
                mask[:, j : j + wide] = torch.ones_like(costs, dtype=torch.bool).scatter(1, lowest, False)
            errors[:, j - i] = weight[:, j] / inverse[j, j] * ~mask[:, j]
            weight[:, j:stop] -= torch.outer(errors[:, j - i], inverse[j, j:stop])
        weight[:, stop:] -= errors @ inverse[i:stop, stop:]
    return weight * mask, mask


@pytest.mark.parametrize("pattern", [None, (2, 4), (1, 4), (3, 8), (0, 5), (4, 7)])
@pytest.mark.parametrize(
    ("outputs", "inputs", "block"), [(5, 48, 16), (7, 37, 40), (3, 50, 7), (1, 5, 1), (4, 300, 128)]
)
def test_it_is_the_published_algorithm(
    outputs: int, inputs: int, block: int, pattern: tuple[int, int] | None, device: torch.device
) -> None:
    weight, x = problem(outputs, inputs)
    if pattern is not None:
        block = -(-block // pattern[1]) * pattern[1]
    expected, mask = published(weight, x, 0.5, pattern, block)
    sparsity = 0.5 if pattern is None else None
    new, kept = prune_layer(weight.to(device), x.to(device), sparsity, "sparsegpt", pattern=pattern, block_size=block)
    assert torch.equal(kept.cpu(), mask)
    torch.testing.assert_close(new.cpu(), expected, rtol=1e-8, atol=1e-10)
    assert not new[~kept].any()


@settings(max_examples=25)
@given(
    outputs=st.integers(1, 6), inputs=st.integers(1, 40), block=st.integers(1, 50), sparsity=st.floats(0, 1), seed=st.integers(0, 99)
)  # fmt: skip
def test_exactly_so_many_have_gone_after_every_block(
    outputs: int, inputs: int, block: int, sparsity: float, seed: int
) -> None:
    """Keeping the k-th smallest as a threshold, with <=, removed k + 1 of every block, and had no value at 100 %."""
    weight, x = problem(outputs, inputs, seed)
    new, mask = prune_layer(weight, x, sparsity, "sparsegpt", block_size=block)
    for stop in (*range(block, inputs, block), inputs):
        assert int((~mask[:, :stop]).sum()) == round(sparsity * (outputs * stop))
    assert torch.equal(new != 0, mask)
    if sparsity == 0:
        assert torch.equal(new, weight)


@pytest.mark.parametrize("pattern", [(2, 4), (1, 3), (5, 8)])
def test_a_pattern_does_not_depend_on_the_block_size(pattern: tuple[int, int]) -> None:
    weight, x = problem(6, 96)
    first = prune_layer(weight, x, method="sparsegpt", pattern=pattern, block_size=pattern[1])
    for block in (1, 30, 64, 500):
        new, mask = prune_layer(weight, x, method="sparsegpt", pattern=pattern, block_size=block)
        assert torch.equal(mask, first[1])
        torch.testing.assert_close(new, first[0], rtol=1e-9, atol=1e-11)


def test_inputs_that_do_not_depend_on_each_other_make_all_methods_one() -> None:
    """With a diagonal covariance nothing can make up for a weight: at 2:4 SparseGPT, OBS and Wanda are the same."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 64, generator=draw, dtype=torch.float64)
    x = torch.diag(torch.rand(64, generator=draw, dtype=torch.float64) + 0.1)
    wanda, mask = prune_layer(weight, x, method="wanda", pattern=(2, 4))
    assert torch.equal(wanda, weight * mask)
    for method in ("sparsegpt", "obs"):
        new, kept = prune_layer(weight, x, method=method, pattern=(2, 4), damping=0)
        assert torch.equal(kept, mask)
        torch.testing.assert_close(new, wanda, rtol=1e-14, atol=0)


def test_single_precision_is_enough() -> None:
    weight, x = problem(32, 128)
    exact, mask = prune_layer(weight, x, 0.5, "sparsegpt")
    new, kept = prune_layer(weight.float(), x.float(), 0.5, "sparsegpt")
    assert new.dtype == torch.float32
    assert (kept != mask).float().mean() < 1e-3
    assert (new - exact).norm() / exact.norm() < 1e-2
