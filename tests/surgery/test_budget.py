"""Budgets: never more than asked, as little removed as gets there, and the counts are the small network's own."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab.trace import trace


class Net(nn.Module):
    """Residual, grouped and depthwise convolutions, attention, and layers without biases that constants give one."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, 12, 1, groups=2)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12, bias=bias)
        self.wide, self.back = nn.Conv2d(12, 3 * width, 1, bias=bias), nn.Conv2d(3 * width, 12, 1, bias=bias)
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True)
        self.hidden, self.head = nn.Linear(12, 20, bias=bias), nn.Linear(20, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.grouped(self.norm(self.stem(x)).sigmoid()))
        x = x + self.back(self.wide(x).sigmoid())
        x = x.flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x)[0]
        return self.head(self.hidden(x.mean(1)).sigmoid())


def counts(model: nn.Module, x: Any) -> dict[str, int]:
    return {"params": sum(p.numel() for p in model.parameters()), "macs": trace(model, x).macs}


@settings(max_examples=12, derandomize=True)
@given(
    width=st.sampled_from([4, 8, 10]),
    bias=st.booleans(),
    what=st.sampled_from(["params", "macs"]),
    share=st.floats(0.45, 1.0),
    scope=st.sampled_from(["local", "global"]),
)
def test_never_above(width: int, bias: bool, what: Any, share: float, scope: Any) -> None:
    torch.manual_seed(0)
    model, x = Net(width, bias).eval(), torch.randn(2, 3, 6, 6)
    dense = counts(model, x)
    small = prunelab.shrink(model, x, budget=(what, share), scope=scope, verify=False)
    left = counts(small.model, x)
    assert left[what] <= share * dense[what]
    assert small.plan.params == (dense["params"], left["params"])
    assert small.plan.macs == (dense["macs"], left["macs"])


@pytest.mark.parametrize("what", ["params", "macs"])
def test_as_little_goes_as_gets_there(what: Literal["params", "macs"]) -> None:
    """One group: with one channel more than is left the budget would be exceeded."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5)), torch.randn(3, 6)

    def cost(width: int) -> int:
        return 6 * width + 5 * width + (width + 5 if what == "params" else 0)

    for share in (0.97, 0.5, 0.333, 0.1):
        small = prunelab.shrink(model, x, budget=(what, share))
        left = small.model[0].out_features
        rows = 3 if what == "macs" else 1
        assert rows * cost(left) <= share * counts(model, x)[what] < rows * cost(left + 1)


def test_the_biases_that_constants_give_are_counted() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 64), nn.Sigmoid(), nn.Linear(64, 40, bias=False), nn.Sigmoid(), nn.Linear(40, 3, bias=False)]
    model, x = nn.Sequential(*layers), torch.randn(2, 6)
    whole = counts(model, x)["params"]
    for share in (0.9, 0.7, 0.5, 0.3, 0.1):
        small = prunelab.shrink(model, x, budget=("params", share))
        assert small.plan.biases
        assert counts(small.model, x)["params"] == small.plan.params[1] <= share * whole


@pytest.mark.parametrize("what", ["params", "macs", "latency"])
def test_the_whole_budget_changes_nothing(what: Any) -> None:
    torch.manual_seed(0)
    model, x = Net(8, False).eval(), torch.randn(2, 3, 6, 6)
    small = prunelab.shrink(model, x, budget=(what, 1.0))
    assert not small.plan.slices
    assert counts(small.model, x) == counts(model, x)
    assert torch.equal(small.model(x), model(x))


@pytest.mark.parametrize("what", ["params", "macs"])
@pytest.mark.parametrize("options", [{}, {"minimum": 30}, {"multiple_of": 32}, {"exclude": "0"}])
def test_a_budget_out_of_reach_is_refused(what: Any, options: dict[str, Any]) -> None:
    model, x = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5)), torch.randn(3, 6)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"budget=\('(params|macs)', [\d.]+\) cannot be reached.*larger budget"):
        prunelab.shrink(model, x, budget=(what, 0.4 if options else 0.01), **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_least_that_is_named_can_be_reached() -> None:
    model, x = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5)), torch.randn(3, 6)
    with pytest.raises(ValueError, match=r"0\.0250 of the macs"):
        prunelab.shrink(model, x, budget=("macs", 0.0249))
    assert prunelab.shrink(model, x, budget=("macs", 0.025)).plan.macs[1] == 3 * 11


def test_a_budget_with_limits() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5)), torch.randn(3, 6)
    small = prunelab.shrink(model, x, budget=("macs", 0.5), multiple_of=8)
    assert small.model[0].out_features == 16
    small = prunelab.shrink(model, x, budget=["macs", 0.5], minimum=15)  # a list, as JSON has it
    assert small.model[0].out_features == 20


def test_nothing_to_count() -> None:
    """Without products or parameters every budget is met."""
    for what in ("macs", "params"):
        assert prunelab.shrink(nn.ReLU(), torch.randn(3, 4), budget=(what, 0.5)).plan.macs == (0, 0)
    with pytest.raises(ValueError, match="cannot be reached"):
        prunelab.shrink(nn.BatchNorm1d(4), torch.randn(3, 4), budget=("params", 0.5))


def test_shared_weights_count_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 2)
            self.c.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.d(self.c(self.b(self.a(x).relu()).relu()).relu())

    torch.manual_seed(0)
    model, x = Shared(), torch.randn(3, 4)
    small = prunelab.shrink(model, x, budget=("params", 0.5))
    assert small.model.b.weight is small.model.c.weight
    assert counts(small.model, x)["params"] == small.plan.params[1] <= 0.5 * counts(model, x)["params"]
