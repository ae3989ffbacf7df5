"""Magnitude against the definition of a norm."""

from __future__ import annotations

import math

import pytest
import torch

from prunelab.criteria import Magnitude


@pytest.mark.parametrize(("p", "expected"), [(1, [7.0, 2.0]), (2, [5.0, math.sqrt(2)]), (math.inf, [4.0, 1.0])])
def test_norms_by_hand(p: float, expected: list[float], device: torch.device) -> None:
    rows = torch.tensor([[3.0, -4.0], [1.0, 1.0]], device=device)
    torch.testing.assert_close(Magnitude(p).score(rows, None, None), torch.tensor(expected, device=device))


@pytest.mark.parametrize("p", [1, 2, 3, 0.5, math.inf])
def test_a_single_weight_has_its_absolute_value_as_every_norm(p: float) -> None:
    weights = torch.tensor([[-1e-30], [0.0], [3e38], [-2.5]])  # a power and a root would under- or overflow
    assert Magnitude(p).score(weights, None, None).tolist() == weights.abs().flatten().tolist()


def test_half_precision_is_summed_in_float32() -> None:
    weights = torch.full((1, 70_000), 1.0, dtype=torch.float16)  # the sum is beyond float16
    assert Magnitude().score(weights, None, None).tolist() == [70_000.0]
    assert Magnitude().score(weights.double(), None, None).dtype == torch.float64


def test_no_square_overflows_or_vanishes() -> None:
    for scale in (1e20, 1e-30):
        rows = scale * torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
        torch.testing.assert_close(
            Magnitude(2).score(rows, None, None), scale * torch.tensor([5.0, 1.0, 2.0]), atol=0, rtol=1e-6
        )


def test_units_without_members() -> None:
    for p in (1, math.inf):
        assert Magnitude(p).score(torch.empty(3, 0), None, None).tolist() == [0.0] * 3
