"""Barriers against closed forms: the line through a quadratic bowl, a hill, and networks with batch normalisation."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunelab.lottery.recipe import Recipe
from prunelab.lottery.search import find_ticket
from prunelab.lottery.stability import Barrier, barrier, instability
from prunelab.lottery.state import mixed
from prunelab.masks import Masks


def linear(*weights: float, dtype: torch.dtype = torch.float64) -> nn.Linear:
    layer = nn.Linear(len(weights), 1, bias=False, dtype=dtype)
    layer.weight.data.copy_(torch.tensor([weights], dtype=dtype))
    return layer


def bowl(model: nn.Module) -> float:
    """‖w‖²"""
    return float((model.get_parameter("weight") ** 2).sum().detach())


numbers = st.floats(-3, 3)


# --- the closed form -------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(a=st.tuples(numbers, numbers), b=st.tuples(numbers, numbers), steps=st.integers(1, 12))
def test_a_bowl(a: tuple[float, float], b: tuple[float, float], steps: int) -> None:
    """A convex loss has its maximum at an end: the height is half the difference of the ends."""
    found = barrier(linear(*a), linear(*b), loss=bowl, steps=steps)
    ends = sum(x * x for x in a), sum(x * x for x in b)
    assert found.height == pytest.approx(abs(ends[0] - ends[1]) / 2, abs=1e-9)
    for at, value in zip(found.at, found.values, strict=True):
        # ‖(1-α)a + αb‖² = (1-α)‖a‖² + α‖b‖² - α(1-α)‖a - b‖²
        apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        assert value == pytest.approx((1 - at) * ends[0] + at * ends[1] - at * (1 - at) * apart, abs=1e-9)


@settings(max_examples=20)
@given(a=st.tuples(numbers, numbers), b=st.tuples(numbers, numbers))
def test_a_hill(a: tuple[float, float], b: tuple[float, float]) -> None:
    """-‖w‖² between points of one size: the middle is higher by ‖a - b‖² / 4. A score is a loss turned round."""
    size = math.hypot(*b) or 1.0
    b = (b[0] / size * math.hypot(*a), b[1] / size * math.hypot(*a)) if math.hypot(*b) else a
    apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    downhill = barrier(linear(*a), linear(*b), loss=lambda model: -bowl(model), steps=2)
    assert downhill.height == pytest.approx(apart / 4, abs=1e-9)
    score = barrier(linear(*a), linear(*b), score=bowl, steps=2)
    assert score.height == downhill.height
    assert score.values == tuple(-value for value in downhill.values)


def test_the_ends_are_exact_and_what_both_have_stays() -> None:
    a, b = linear(0.1, 0.7, 0.3, dtype=torch.float32), linear(0.3, 0.7, -5e8, dtype=torch.float32)
    seen: list[Tensor] = []

    def watch(model: nn.Module) -> float:
        seen.append(model.get_parameter("weight").detach().clone())
        return 0.0

    assert barrier(a, b, watch, steps=7).height == 0.0
    assert torch.equal(seen[0], a.weight)
    assert torch.equal(seen[-1], b.weight)
    assert all(weight[0, 1] == a.weight[0, 1] for weight in seen)


def test_the_networks_stay_as_they_are_and_are_measured_in_eval_mode() -> None:
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    b = copy.deepcopy(a)
    b[0].weight.data.add_(1)
    before = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
    modes: list[bool] = []

    def measure(model: nn.Module) -> float:
        modes.append(any(module.training for module in model.modules()))
        return float(model(torch.ones(2, 3)).sum().detach())

    data = [(torch.randn(8, 3), torch.zeros(8)), (torch.randn(8, 3), torch.zeros(8))]
    barrier(a, b, measure, data=data)
    barrier(a, b, measure)
    assert not any(modes)
    assert a.training
    assert b.training
    for model, state in zip((a, b), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# --- batch normalisation -----------------------------------------------------------------------------------------------


class Opposed(nn.Module):
    """A normalised feature and its negative: the same network up to the sign, whose middle computes nothing."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False)
        self.first.weight.data.fill_(sign)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x))


def test_running_statistics_are_interpolated_or_measured_anew(device: torch.device) -> None:
    x = torch.arange(8.0)[:, None] * 3 + 5
    a, b = Opposed(1.0).to(device), Opposed(3.0).to(device)
    for model in (a, b):  # running statistics that are right at the ends: mean 15.5 w, variance 54 w²
        model.norm.momentum = None
        model(x.to(device))
        model.norm.momentum = 0.1

    def spread(model: nn.Module) -> float:
        return float(model(x.to(device)).var().detach())

    plain = barrier(a, b, score=spread, steps=2)
    # In the middle w = 2: the variance is 4 · 54, the interpolated one (1 + 9)/2 · 54.
    assert plain.values == pytest.approx((1.0, 0.8, 1.0), rel=1e-4)
    anew = barrier(a, b, score=spread, steps=2, data=[(x, x)])
    assert anew.values == pytest.approx((1.0, 1.0, 1.0), rel=1e-4)
    assert (plain.height, anew.height) == pytest.approx((0.2, 0.0), abs=1e-3)


def test_the_mean_over_batches_is_the_statistic() -> None:
    a = Opposed(2.0)
    batches = [(torch.tensor([[1.0], [3.0]]), None), (torch.tensor([[5.0], [9.0]]), None)]
    seen: list[list[float]] = []

    def watch(model: nn.Module) -> float:
        seen.append([float(model.get_buffer("norm.running_mean")), float(model.get_buffer("norm.running_var"))])
        return 0.0

    barrier(a, copy.deepcopy(a), watch, steps=1, data=batches)
    assert seen == [pytest.approx([2 * (2 + 7) / 2, 4 * (2 + 8) / 2])] * 2  # of both ends


# --- two runs from one state ---------------------------------------------------------------------------------------------

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()
RECIPE = Recipe(X, Y, steps=20, batch_size=10, learning_rate=0.3, momentum=0.9)


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def mean_loss(model: nn.Module) -> float:
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(X), Y))


def by_hand(seed: int, step: int, masks: Masks | None) -> tuple[nn.Module, nn.Module]:
    """Train to `step`, part, and go on with the batches of another seed each."""
    parted = []
    for part in (1, 2):
        model = net(seed)
        state = RECIPE.train(model, None, seed, stop=step)
        RECIPE.train(model, masks, mixed(seed, part, 2), resume=state)
        parted.append(model)
    return parted[0], parted[1]


def test_instability_is_the_barrier_between_two_runs_that_part() -> None:
    found = instability(net, RECIPE, loss=mean_loss, rewind_to=[15, 0], seeds=[3, 4], steps=4)
    assert list(found.columns) == ["seed", "rewind_to", "barrier", "measure"]
    assert found[["seed", "rewind_to"]].values.tolist() == [[3, 0], [4, 0], [3, 15], [4, 15]]
    for row in found.itertuples():
        a, b = by_hand(row.seed, row.rewind_to, None)
        expected = barrier(a, b, loss=mean_loss, steps=4)
        assert row.barrier == pytest.approx(expected.height, abs=1e-5)
        assert row.measure == pytest.approx((mean_loss(a) + mean_loss(b)) / 2, abs=1e-5)


def test_a_ticket_is_masked_where_the_runs_part() -> None:
    ticket = find_ticket(net, RECIPE, keep=0.5, rounds=2, seed=5, rewind_to=4, progress=False)
    found = instability([ticket], RECIPE, loss=mean_loss, rewind_to=[4], steps=3)
    own = instability([ticket], RECIPE, loss=mean_loss, steps=3)
    expected = barrier(*by_hand(5, 4, ticket.masks), loss=mean_loss, steps=3)
    assert found.barrier.item() == pytest.approx(expected.height, abs=1e-5)
    assert own.values.tolist() == pytest.approx(found.values, abs=1e-5)  # it starts there by itself too


def test_runs_that_part_at_the_end_are_one() -> None:
    found = instability(net, RECIPE, lambda model: -mean_loss(model), rewind_to=[20], seeds=[0])
    assert found.barrier.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rewind_to": [21]}, "0 to the 20"),
        ({"rewind_to": []}, "name steps"),
        ({"rewind_to": None}, "whole networks"),
        ({"rewind_to": [-1]}, "0 or more"),
        ({"networks": [], "rewind_to": [0]}, "tickets"),
        ({"loss": mean_loss}, "one of score="),
    ],
)
def test_bad_arguments_of_instability(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        instability(**({"networks": net, "recipe": RECIPE, "score": mean_loss, "rewind_to": [0]} | arguments))


# --- what goes wrong -----------------------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    a, b = linear(1.0), linear(2.0)
    measures: list[dict[str, Any]] = [{}, {"score": bowl, "loss": bowl}]
    for measure in measures:
        with pytest.raises(ValueError, match=r"one of score= .* and loss="):
            barrier(a, b, **measure)
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="whole number"):
            barrier(a, b, bowl, steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shapes"):
        barrier(a, linear(1.0, 2.0), bowl)
    with pytest.raises(ValueError, match=r"only one of them has .*bias"):
        barrier(a, nn.Linear(1, 1, dtype=torch.float64), bowl)
    with pytest.raises(ValueError, match=r"NaN at 0\b"):
        barrier(a, b, lambda _: math.nan)


def test_a_barrier_is_a_value() -> None:
    assert barrier(linear(1.0), linear(1.0), bowl, steps=1) == Barrier((0.0, 1.0), (1.0, 1.0), 0.0)
