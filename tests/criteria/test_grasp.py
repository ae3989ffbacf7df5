"""GraSP against the exact Hessian, and against what happens to the gradient's norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import prunelab
from prunelab.criteria import GraSP
from prunelab.granularity import Channel, Filter, Granularity, Weight

NAMES = ["0.weight", "2.weight"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 3, generator=generator, dtype=torch.float64), torch.arange(7) % 3


def flat(model: nn.Module) -> Tensor:
    return torch.cat([model.get_parameter(key).detach().flatten() for key in NAMES])


def mean_loss(model: nn.Module, values: Tensor) -> Tensor:
    """The mean loss with these 24 weights."""
    x, y = examples()
    parts = {"0.weight": values[:12].reshape(4, 3), "2.weight": values[12:].reshape(3, 4)}
    return F.cross_entropy(functional_call(model, parts, (x,)), y)


def scored(model: nn.Module, granularity: Granularity | None = None, sizes: tuple[int, ...] = (7,)) -> Tensor:
    x, y = examples()
    data = list(zip(x.split(sizes), y.split(sizes), strict=True))
    scores = prunelab.score(model, GraSP(), granularity, data=data, loss=F.cross_entropy)
    return torch.cat([scores[key] for key in NAMES])


@pytest.mark.parametrize("sizes", [(7,), (4, 3), (1, 5, 1)])
def test_the_weight_times_the_hessian_times_the_gradient(sizes: tuple[int, ...]) -> None:
    model = network()
    values = flat(model).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_loss(model, values), [values])
    hessian = torch.autograd.functional.hessian(lambda v: mean_loss(model, v), values.detach())
    torch.testing.assert_close(scored(model, sizes=sizes), values.detach() * (hessian @ gradient))


@pytest.mark.parametrize("granularity", [Weight(), Filter(), Channel()], ids=str)
def test_the_flow_of_gradients_falls_by_twice_the_score_as_a_unit_fades(granularity: Granularity) -> None:
    model = network()
    values, scores, eps = flat(model), scored(model, granularity), 1e-6

    def flow(at: Tensor) -> float:
        at = at.clone().requires_grad_()
        return float(torch.autograd.grad(mean_loss(model, at), [at])[0].square().sum())

    rows = [granularity.units(model.get_parameter(key).shape) for key in NAMES]
    for unit in range(len(scores)):
        first = unit < rows[0][0]
        key, (units, members) = NAMES[0 if first else 1], rows[0 if first else 1]
        chosen = torch.zeros(units, members, dtype=torch.float64)
        chosen[unit if first else unit - rows[0][0]] = eps
        fade = {name: torch.zeros_like(model.get_parameter(name)) for name in NAMES}
        fade[key] = granularity.restore(chosen, fade[key].shape)
        step = values * torch.cat([fade[name].flatten() for name in NAMES])
        slope = (flow(values - step) - flow(values + step)) / (2 * eps)  # from the whole unit to none of it
        assert slope == pytest.approx(-2 * float(scores[unit]), rel=1e-5, abs=1e-9)


def test_regression_the_paper_removes_the_highest_of_its_scores_and_keeps_the_lowest() -> None:
    model, (x, y) = network(), examples()
    of_the_paper = -scored(model)  # -θ · Hg
    masks = prunelab.prune(model, 0.25, criterion=GraSP(), data=[(x, y)], loss=F.cross_entropy)
    removed = ~torch.cat([masks[key].flatten() for key in NAMES])
    assert removed.sum() == 6
    assert of_the_paper[removed].min() > of_the_paper[~removed].max()


def test_what_was_removed_before_has_no_part_in_the_gradient() -> None:
    model, (x, y) = network(), examples()
    masks = prunelab.prune(model, 0.5)
    before = flat(model)
    kept = torch.cat([masks[key].flatten() for key in NAMES])
    second = prunelab.prune(
        model, 0.75, criterion=GraSP(), data=[(x, y)], loss=F.cross_entropy, within=masks, apply=False
    )
    values = before.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mean_loss(model, values), [values])
    hessian = torch.autograd.functional.hessian(lambda v: mean_loss(model, v), before)
    scores = before * (hessian @ (gradient * kept))
    lowest = scores.masked_fill(~kept, torch.inf).argsort()[:6]
    expected = kept.clone()
    expected[lowest] = False
    assert torch.equal(torch.cat([second[key].flatten() for key in NAMES]), expected)
    assert not torch.equal(scores, before * (hessian @ gradient))


def test_a_linear_loss_has_no_curvature() -> None:
    model = nn.Linear(3, 2)
    scores = prunelab.score(model, GraSP(), data=[(torch.ones(2, 3), torch.zeros(2))], loss=lambda o, _: o.mean())
    assert scores["weight"].tolist() == [0.0] * 6
