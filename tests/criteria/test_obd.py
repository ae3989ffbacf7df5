"""OBD's saliency against the exact Hessian of small networks, and against what really happens at a minimum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import prunelab
from prunelab.criteria import OBD
from prunelab.granularity import Channel, Filter, Granularity, Group, Head, Weight


def mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def diagonal(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """∂²L/∂w² of every weight, from the whole Hessian of each parameter."""
    found = {}
    for name, parameter in model.named_parameters():

        def value(values: Tensor, name: str = name) -> Tensor:
            return mean_square(functional_call(model, {name: values}, (x,)), y)

        count = parameter.numel()
        full = torch.autograd.functional.hessian(value, parameter.detach()).reshape(count, count)
        found[name] = full.diag().reshape(parameter.shape)
    return found


def test_by_hand(device: torch.device) -> None:
    model = nn.Linear(2, 2, bias=False).to(device)
    model.weight.data[:] = torch.tensor([[2.0, 1.0], [-3.0, 4.0]])
    criterion = OBD({"weight": torch.tensor([[1.0, 6.0], [2.0, -0.5]])})  # moved to the weight's device
    assert prunelab.score(model, criterion)["weight"].tolist() == [2.0, 3.0, 9.0, -4.0]
    assert prunelab.score(model, criterion, Filter())["weight"].tolist() == [5.0, 5.0]
    assert prunelab.score(model, criterion, Channel())["weight"].tolist() == [11.0, -1.0]


@pytest.mark.parametrize("granularity", [Weight(), Filter(), Channel(), Group(2, 2)], ids=str)
def test_the_diagonal_of_a_small_networks_hessian(granularity: Granularity) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    curvature = diagonal(model, x, y)
    scores = prunelab.score(model, OBD(curvature), granularity)
    assert list(scores) == ["0.weight", "2.weight"]
    for name, found in scores.items():
        saliency = curvature[name] * model.get_parameter(name).detach() ** 2 / 2
        torch.testing.assert_close(found, granularity.view(saliency).sum(1))


def test_it_is_the_increase_at_the_minimum_of_a_quadratic_loss_with_a_diagonal_hessian() -> None:
    torch.manual_seed(0)
    x = torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64))[0] * torch.tensor([1.0, 2.0, 3.0, 0.5]).double()
    y = torch.randn(9, 2, dtype=torch.float64)
    model = nn.Linear(4, 2, bias=False).double()
    model.weight.data = torch.linalg.lstsq(x, y).solution.T.contiguous()
    for granularity in (Weight(), Filter(), Channel()):
        scores = prunelab.score(model, OBD(diagonal(model, x, y)), granularity)["weight"]
        units, members = granularity.units(model.weight.shape)
        for unit in range(units):
            keep = (torch.arange(units) != unit)[:, None].expand(units, members)
            left = {"weight": model.weight * granularity.restore(keep, model.weight.shape)}
            increase = mean_square(functional_call(model, left, (x,)), y) - mean_square(model(x), y)
            torch.testing.assert_close(scores[unit], increase.detach())


def test_heads_transposed_and_shared_weights() -> None:
    attention = nn.MultiheadAttention(4, 2).double()
    ones = {name: torch.full_like(p, 2.0) for name, p in attention.named_parameters()}
    (scores,) = prunelab.score(attention, OBD(ones), Head(2)).values()
    total = attention.in_proj_weight.square().sum() + attention.out_proj.weight.square().sum()
    torch.testing.assert_close(scores.sum(), total.detach())
    transposed = nn.ConvTranspose2d(4, 6, 2, groups=2)
    curvature = torch.rand(4, 3, 2, 2)
    filters = prunelab.score(transposed, OBD({"weight": curvature}), Filter())["weight"]
    saliency = curvature * transposed.weight.detach() ** 2 / 2
    torch.testing.assert_close(filters, torch.cat([saliency[:2].sum((0, 2, 3)), saliency[2:].sum((0, 2, 3))]))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert list(prunelab.score(tied, OBD({"0.weight": torch.ones(3, 3)}))) == ["0.weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_no_square_of_a_half_precision_weight_overflows(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 1, bias=False).to(dtype)
    model.weight.data.fill_(512)
    scores = prunelab.score(model, OBD({"weight": torch.full((1, 2), 0.25, dtype=dtype)}), Filter())["weight"]
    assert scores.tolist() == [65536.0]
    assert scores.dtype == (dtype if dtype == torch.float64 else torch.float32)


def test_within_counts_what_is_left() -> None:
    model = nn.Linear(3, 1, bias=False)
    model.weight.data[:] = torch.tensor([[1.0, 2.0, 3.0]])
    criterion = OBD({"weight": torch.tensor([[9.0, 4.0, 1.0]])})  # saliencies 4.5, 8, 4.5
    masks = prunelab.prune(model, 1 / 3, criterion=criterion)
    assert masks["weight"].tolist() == [[False, True, True]]
    assert prunelab.prune(model, 2 / 3, criterion=criterion, within=masks)["weight"].tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("curvature", "kind", "message"),
    [
        ([1.0], TypeError, r"OBD needs curvature=\{parameter name: tensor of ∂²L/∂w².*\}, not list"),
        ({"weight": [1.0]}, TypeError, r"that of 'weight' is list"),
        ({"weight": torch.ones(2, 3, dtype=torch.int64)}, TypeError, "that of 'weight' is torch.int64"),
        ({"fc.weight": torch.ones(2, 3)}, ValueError, r"no curvature for 'weight'.*shape \(2, 3\).*it has fc.weight"),
        ({}, ValueError, "it has none"),
        ({"weight": torch.ones(3, 2)}, ValueError, r"shape \(3, 2\), the parameter \(2, 3\)"),
    ],
)
def test_curvature_that_does_not_fit_is_refused(curvature: Any, kind: type[Exception], message: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(kind, match=message):
        prunelab.prune(model, 0.5, criterion=OBD(curvature))
    assert model.weight.all()
