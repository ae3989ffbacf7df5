"""Networks that do unusual things: each is pruned and computes the same, or stays whole with a reason. Never an error.

The networks are in `zoo/odd`; here is what must become of them.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunelab
from zoo.architecture import Architecture, images, randomise
from zoo.check import Outcome, check, difference
from zoo.odd.middles import CASES as MIDDLES
from zoo.odd.middles import PRUNED, Middle
from zoo.odd.wholes import CASES as WHOLES
from zoo.odd.wholes import Base, Whole


def stays_with_a_reason(outcome: Outcome, layer: str) -> bool:
    """explain() says of the layer that its channels stay, and why; or that all of them are one unit."""
    lines = [line.strip("├─└│ ") for line in outcome.small.explain().splitlines()]
    line = next((line for line in lines if line.startswith(f"{layer}:")), "")
    return " 0 of 1 " in line or ("stay" in line and len(line.split("stay", 1)[1]) > 10)


@pytest.mark.parametrize("case", MIDDLES, ids=lambda case: case.name)
def test_between_two_convolutions(case: Middle) -> None:
    outcome = check(case.architecture())
    stem, after = (outcome.small.model.get_submodule(name).weight for name in ("stem", "after"))
    if case.expected == PRUNED:
        assert stem.shape[0] == 8, outcome.small.explain()
    elif stem.shape[0] == 16:
        assert stays_with_a_reason(outcome, "stem"), outcome.small.explain()
    # What the middle does concerns the layer behind it only through what that reads.
    assert after.shape[0] == 12, outcome.small.explain()


@pytest.mark.parametrize("case", WHOLES, ids=lambda case: case.name)
def test_as_a_whole(case: Whole) -> None:
    outcome = check(case.architecture())
    small, whole = dict(outcome.small.model.named_parameters()), dict(case.build().named_parameters())
    for name in case.smaller:
        assert small[name].shape != whole[name].shape, f"{name} has not shrunk:\n{outcome.small.explain()}"
    if not outcome.removed:
        assert "stay" in outcome.small.explain()


# --- how the tensors are held --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)]
)
def test_other_precisions(dtype: torch.dtype, tolerance: float) -> None:
    inputs = images(8)
    outcome = check(
        Architecture("precise", "here", lambda: Base().to(dtype), lambda n: inputs(n).to(dtype)), tolerance=tolerance
    )
    assert outcome.removed > 0.7
    assert {p.dtype for p in outcome.small.model.parameters()} == {dtype}


def base(seed: int = 0) -> Base:
    torch.manual_seed(seed)
    model = Base()
    randomise(model)
    return model.eval()


def same(small: Any, model: nn.Module) -> bool:
    torch.manual_seed(1)
    return difference(small.model.eval(), small.plan.masked(model).eval(), torch.randn(3, 3, 8, 8)) < 1e-5


def test_a_model_in_training_mode_stays_in_it() -> None:
    model = base().train()
    model.second.eval()
    small = prunelab.shrink(model, torch.randn(2, 3, 8, 8), sparsity=0.5)
    for network in (model, small.model):
        assert {name: m.training for name, m in network.named_modules()} == {
            "": True, "first": True, "second": False, "head": True
        }  # fmt: skip
    assert same(small, model)


def test_a_model_with_gradients_keeps_them() -> None:
    model = base()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    small = prunelab.shrink(model, torch.randn(2, 3, 8, 8), sparsity=0.5)
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None or p.grad.shape == p.shape for p in small.model.parameters())


def test_frozen_parameters_may_go_and_stay_frozen() -> None:
    model = base()
    model.first.requires_grad_(False)
    small = prunelab.shrink(model, torch.randn(2, 3, 8, 8), sparsity=0.5)
    assert small.model.first.weight.shape == (8, 3, 3, 3)
    assert {name: p.requires_grad for name, p in small.model.named_parameters()} == {
        name: p.requires_grad for name, p in model.named_parameters()
    }
    assert same(small, model)


def test_channels_last_stays_channels_last() -> None:
    model = base().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    small = prunelab.shrink(model, x, sparsity=0.5)
    assert small.model.second.weight.shape == (8, 8, 3, 3)
    assert small.model.second.weight.is_contiguous(memory_format=torch.channels_last)
    assert same(small, model)


@pytest.mark.parametrize(
    "wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel], ids=["compiled", "data_parallel"]
)
def test_a_wrapped_model_is_looked_into(wrap: Any) -> None:
    model = base()
    small = prunelab.shrink(wrap(model), torch.randn(2, 3, 8, 8), sparsity=0.5)
    weights = {p.shape for p in small.model.parameters()}
    assert torch.Size((8, 8, 3, 3)) in weights
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(small.model(x), small.plan.masked(model)(x), atol=1e-5)


def test_an_empty_batch_and_a_batch_of_one() -> None:
    model = base()
    small = prunelab.shrink(model, torch.randn(1, 3, 8, 8), sparsity=0.5)
    assert same(small, model)
    assert small.model(torch.randn(0, 3, 8, 8)).shape == (0, 5)


def test_the_inputs_are_left_alone() -> None:
    class InPlace(Base):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    torch.manual_seed(0)
    model, x = InPlace().eval(), torch.randn(2, 3, 8, 8)
    before = x.clone()
    prunelab.shrink(model, x, sparsity=0.5)
    assert torch.equal(x, before)


def test_an_error_of_the_model_is_the_models_own() -> None:
    """A forward that raises is no network to prune: its own error comes out, and nothing is changed."""

    class Broken(Base):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise ZeroDivisionError("on purpose")

    model = Broken()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        prunelab.shrink(model, torch.randn(2, 3, 8, 8), sparsity=0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model._forward_hooks


@pytest.mark.parametrize("sparsity", [0.0, 1.0])
def test_nothing_goes_and_everything_goes(sparsity: float) -> None:
    """At 0 the network is the same; at 1 one channel of every group stays, for a layer of none computes nothing."""
    model = base()
    small = prunelab.shrink(model, torch.randn(2, 3, 8, 8), sparsity=sparsity)
    assert small.model.first.weight.shape[0] == (1 if sparsity else 16)
    assert same(small, model)


def test_weights_that_are_no_numbers_are_refused() -> None:
    model = base()
    with torch.no_grad():
        model.second.weight[3, 2, 1, 1] = float("nan")
    with pytest.raises(ValueError, match=r"nan|NaN|finite"):
        prunelab.shrink(model, torch.randn(2, 3, 8, 8), sparsity=0.5)


def test_a_pooling_that_draws_places_for_each_channel_keeps_its_channels() -> None:
    """With fewer channels it would draw other places for those that stay."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.FractionalMaxPool2d(2, output_ratio=0.5), nn.Conv2d(8, 6, 1), nn.ReLU(),
                          nn.Conv2d(6, 2, 1))  # fmt: skip
    small = prunelab.shrink(model, torch.randn(2, 3, 12, 12), sparsity=0.5)
    assert (small.model[0].out_channels, small.model[2].out_channels) == (8, 3)
    assert "fractional_max_pool2d" in small.explain()


class Gated(nn.Module):
    """A depthwise convolution, then a product with a gate; no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(3, 8, 1, bias=False)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep(self.stem(x)) * self.gate(x).sigmoid())


@pytest.mark.parametrize(("layer", "left"), [("stem", 4), ("deep", 4), ("gate", 8)])
def test_masks_on_one_layer_of_coupled_ones(layer: str, left: int) -> None:
    """What a zero in one layer silences goes everywhere; a gate that is σ(0) = ½ silences nothing."""
    model = Gated()
    masks = prunelab.prune(model, 0.5, granularity=prunelab.granularity.Filter(), parameters=[f"{layer}.weight"],
                           apply=False)  # fmt: skip
    small = prunelab.shrink(model, torch.randn(1, 3, 6, 6), masks=masks)
    assert [m.out_channels for m in small.model.children()] == [left, left, left, 4]
    assert small.model.deep.groups == left
