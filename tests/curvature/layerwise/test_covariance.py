"""Covariances that are added up a batch at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunelab.curvature import InputCovariance, prune_layer


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(sum))
def test_batches_add_up_to_the_whole(sizes: list[int]) -> None:
    x = torch.randn(sum(sizes), 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = InputCovariance(5)
    for part in x.split(sizes):
        covariance.add(part)
    assert covariance.samples == len(x)
    torch.testing.assert_close(covariance.matrix, x.T @ x / len(x))
    torch.testing.assert_close(covariance.norms, x.norm(dim=0))


def test_all_dimensions_but_the_last_count_samples(device: torch.device) -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).to(device)
    covariance = InputCovariance(4)
    covariance.add(x)
    assert covariance.samples == 6
    assert covariance.matrix.dtype == torch.float64
    assert covariance.matrix.device.type == device.type
    torch.testing.assert_close(covariance.matrix.float(), torch.einsum("abi,abj->ij", x, x) / 6)


def test_what_float64_sees_and_float32_does_not() -> None:
    x = torch.tensor([[1.0, 1.0], [1e-4, -1e-4]], dtype=torch.float64)
    for dtype, seen in ((torch.float64, 2e-8), (torch.float32, 0.0)):
        covariance = InputCovariance(2, dtype)
        covariance.add(x)
        difference = covariance.matrix[0, 0] - covariance.matrix[0, 1]
        assert float(difference) == pytest.approx(seen / 2, rel=1e-6, abs=1e-12)


def test_half_precision_does_not_overflow() -> None:
    x = torch.full((10, 2), 300.0, dtype=torch.float16)
    for dtype in (torch.float64, torch.float32):
        covariance = InputCovariance(2, dtype)
        covariance.add(x)
        assert covariance.matrix.tolist() == [[9e4, 9e4]] * 2


def test_a_batch_that_is_refused_leaves_no_trace() -> None:
    covariance = InputCovariance(2, torch.float32)
    covariance.add(torch.ones(3, 2))
    for bad, message in (
        (torch.tensor([[1.0, torch.inf]]), "1 values that are NaN or infinite"),
        (torch.full((1, 2), 1e20), "too large to be squared in torch.float32"),
        (torch.ones(2, 3), r"do not fit: the layer reads 2 features"),
    ):
        with pytest.raises(ValueError, match=message):
            covariance.add(bad)
    assert covariance.samples == 3
    assert covariance.matrix.tolist() == [[1.0, 1.0]] * 2
    with pytest.raises(ValueError, match=r"float64 or torch.float32, not torch.float16"):
        InputCovariance(2, torch.float16)
    with pytest.raises(ValueError, match="no inputs were added"):
        _ = InputCovariance(2).matrix


def test_a_covariance_says_as_much_as_its_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(60, 12, generator=draw, dtype=torch.float64), torch.randn(4, 12, generator=draw).double()
    covariance = InputCovariance(12)
    covariance.add(x)
    for method in ("obs", "sparsegpt", "wanda"):
        new, mask = prune_layer(weight, x, 0.5, method)
        again, same = prune_layer(weight, covariance, 0.5, method)
        assert torch.equal(new, again)
        assert torch.equal(mask, same)
