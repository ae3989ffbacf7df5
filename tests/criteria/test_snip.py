"""SNIP against autograd with respect to a mask that is really there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import prunelab
from prunelab.criteria import SNIP, Taylor
from prunelab.granularity import Filter, Granularity, Kernel, Layer, Weight


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 2, 6, 6, generator=generator, dtype=torch.float64), torch.arange(6) % 3


@pytest.mark.parametrize("granularity", [Weight(), Kernel(), Filter(), Layer()], ids=str)
def test_the_gradient_of_an_explicit_mask(granularity: Granularity, device: torch.device) -> None:
    model, (x, y) = network().to(device), examples()
    scores = prunelab.score(model, SNIP(), granularity, data=[(x[:4], y[:4]), (x[4:], y[4:])], loss=F.cross_entropy)
    weights = {key: p.detach() for key, p in model.named_parameters() if p.dim() > 1}
    sizes = {key: granularity.units(w.shape) for key, w in weights.items()}
    masks = {
        key: torch.ones(units, 1, dtype=torch.float64, device=device, requires_grad=True)
        for key, (units, _) in sizes.items()
    }
    masked = {key: w * granularity.restore(masks[key].expand(sizes[key]), w.shape) for key, w in weights.items()}
    F.cross_entropy(functional_call(model, masked, (x.to(device),)), y.to(device)).backward()
    total = sum(mask.grad.abs().sum() for mask in masks.values())
    for key, found in scores.items():
        torch.testing.assert_close(found, masks[key].grad[:, 0].abs() / total)
    assert sum(found.sum().item() for found in scores.values()) == pytest.approx(1)


def test_it_removes_what_first_order_taylor_removes() -> None:
    data = [examples()]
    for granularity in (Weight(), Filter()):
        one, other = (
            prunelab.prune(
                network(),
                0.5,
                criterion=criterion,
                granularity=granularity,
                scope="local",
                data=data,
                loss=F.cross_entropy,
            )
            for criterion in (SNIP(), Taylor())
        )
        assert one == other


def test_a_loss_without_slope_scores_zero_and_not_nan() -> None:
    model = nn.Linear(2, 2)
    scores = prunelab.score(model, SNIP(), data=[(torch.ones(1, 2), torch.zeros(1))], loss=lambda o, _: 0 * o.sum())
    assert scores["weight"].tolist() == [0.0] * 4
