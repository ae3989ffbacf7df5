"""exact=False: what cannot be removed exactly really goes, the network runs, and the difference is told."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunelab
from prunelab.granularity import Filter


def normed(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 12), norm, nn.ReLU(), nn.Linear(12, 2))


def imaged(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 12, 1), norm, nn.ReLU(), nn.Conv2d(12, 2, 1))


CASES: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "layer_norm": (lambda: normed(nn.LayerNorm(12)), (5, 4), 6),
    "layer_norm_no_bias": (lambda: normed(nn.LayerNorm(12, bias=False)), (5, 4), 6),
    "layer_norm_plain": (lambda: normed(nn.LayerNorm(12, elementwise_affine=False)), (5, 4), 6),
    "rms_norm": (lambda: normed(nn.RMSNorm(12)), (5, 4), 6),
    "rms_norm_plain": (lambda: normed(nn.RMSNorm(12, elementwise_affine=False)), (5, 4), 6),
    "softmax": (lambda: normed(nn.Softmax(-1)), (5, 4), 6),
    "group_norm": (lambda: imaged(nn.GroupNorm(2, 12)), (5, 3, 4, 4), 6),
    "group_norm_plain": (lambda: imaged(nn.GroupNorm(2, 12, affine=False)), (5, 3, 4, 4), 6),
    "group_norm_one": (lambda: imaged(nn.GroupNorm(1, 12)), (5, 3, 4, 4), 6),
}


@pytest.mark.parametrize(
    "name",
    CASES,
)  # fmt: skip
def test_widths_shrink_and_the_difference_is_told(name: str) -> None:
    torch.manual_seed(0)
    make, shape, left = CASES[name]
    model, x = make().double().eval(), torch.randn(shape, dtype=torch.float64)
    exact = prunelab.shrink(model, x, sparsity=0.5)
    assert exact.model[0].weight.shape[0] == 12
    assert any(word in exact.explain() for word in ("Norm", "softmax", "mean"))
    small = prunelab.shrink(model, x, sparsity=0.5, exact=False)
    assert small.model[0].weight.shape[0] == left
    assert small.model[3].weight.shape[1] == left
    assert small.model(x).shape == model(x).shape
    with torch.no_grad():
        gap = float(
            (small.model(x) - small.plan.masked(model)(x)).abs().max() / small.plan.masked(model)(x).abs().max()
        )
    assert small.check is not None
    assert math.isfinite(small.check.error)
    assert small.check.error >= gap > 1e-3
    small.model(x).sum().backward()  # and it trains
    again = small.plan.apply(make().double().eval())
    again.load_state_dict(small.model.state_dict())
    torch.testing.assert_close(again(x), small.model(x))


def test_unchecked_it_says_nothing() -> None:
    torch.manual_seed(0)
    small = prunelab.shrink(normed(nn.LayerNorm(12)), torch.randn(5, 4), sparsity=0.5, exact=False, verify=False)
    assert small.check is None
    assert small.model[0].out_features == 6


def test_what_is_exact_stays_exact() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2)).double(), torch.randn(5, 4).double()
    small = prunelab.shrink(model, x, sparsity=0.5, exact=False)
    assert small.check is not None
    assert small.check.error <= 1e-12
    assert small.check.holds


class Heads(nn.Module):
    """Attention by hand, whose scale counts the dimensions of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_a_transformer_block_runs_whatever_goes() -> None:
    torch.manual_seed(0)
    for sparsity in (0.3, 0.5, 1.0):
        model, x = (
            nn.Sequential(nn.Linear(4, 12), nn.LayerNorm(12), Heads(), nn.LayerNorm(12), nn.Linear(12, 2)),
            torch.randn(2, 5, 4),
        )
        small = prunelab.shrink(model.eval(), x, sparsity=sparsity, exact=False)
        assert small.model(x).shape == (2, 5, 2)
        assert small.plan.params[1] < small.plan.params[0]
        assert small.check is not None
        assert math.isfinite(small.check.error)


@pytest.mark.parametrize("constants", ["keep", "zero"])
def test_masks_too_never_raise_for_it(constants: Any) -> None:
    torch.manual_seed(0)
    model, x = normed(nn.LayerNorm(12)), torch.randn(5, 4)
    masks = prunelab.prune(model, 0.5, granularity=Filter(), scope="local", parameters=["0.weight"])
    small = prunelab.shrink(model, x, masks=masks, exact=False, constants=constants)
    assert small.model(x).shape == (5, 2)
    assert small.check is not None
    if constants == "zero":
        assert small.model[0].out_features == 6
        assert small.check.error > 1e-3


def test_masks_remove_what_is_dead_under_a_normalisation() -> None:
    torch.manual_seed(0)
    model, x = normed(nn.LayerNorm(12)), torch.randn(5, 4)
    masks = prunelab.prune(model, 0.5, granularity=Filter(), scope="local", parameters=["0.weight"])
    assert prunelab.shrink(model, x, masks=masks, exact=False).model[0].out_features == 6


@pytest.mark.parametrize("what", ["params", "macs"])
def test_a_budget_reaches_further(what: Any) -> None:
    torch.manual_seed(0)
    model, x = normed(nn.LayerNorm(12)), torch.randn(5, 4)
    with pytest.raises(ValueError, match="cannot be reached"):
        prunelab.shrink(model, x, budget=(what, 0.5))
    small = prunelab.shrink(model, x, budget=(what, 0.5), exact=False)
    assert small.plan.params[1] <= 0.6 * small.plan.params[0]
    assert small.model(x).shape == (5, 2)
