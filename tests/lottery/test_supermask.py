"""Supermasks: exact top-k against sorting, gradients against the formula, and weights that nobody trained."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunelab.lab import data as lab_data
from prunelab.lab import train as lab_train
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.supermask import BernoulliMask, EdgePopup, Search, Supermask, supermask
from prunelab.masks import Masks

X = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
RECIPE = Recipe(X, Y, steps=12, batch_size=20, learning_rate=0.5)


def conv_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3, bias=False), nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 2), nn.Flatten(), nn.Linear(18, 3),
    )  # fmt: skip


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# --- the two searches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 0.8, 1.0])
def test_edge_popup_keeps_exactly_the_largest(keep: float) -> None:
    scores = torch.randn(7, 9, generator=torch.Generator().manual_seed(1)).round(decimals=1)  # with ties
    flat = scores.flatten().abs().tolist()
    order = sorted(range(63), key=lambda i: (flat[i], i))  # from the first to go to the last
    expected = torch.zeros(63, dtype=torch.bool)
    expected[order[63 - round(keep * 63) :]] = True
    assert torch.equal(EdgePopup(keep).mask(scores), expected.reshape(7, 9))


def test_edge_popups_gradient_is_straight_through() -> None:
    scores = torch.tensor([0.3, -0.9, 0.1, -0.4], requires_grad=True)
    gate = EdgePopup(0.5).gate(scores, training=True)
    assert gate.tolist() == [0.0, 1.0, 0.0, 1.0]
    (gate * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1.0, -2.0, 3.0, -4.0]  # the slope times the sign of the score, in use or not


def test_a_bernoulli_gate_is_open_as_often_as_its_probability_and_has_its_gradient() -> None:
    chances = torch.tensor([0.05, 0.3, 0.5, 0.95])
    logits = chances.logit().requires_grad_()
    torch.manual_seed(0)
    drawn = torch.stack([BernoulliMask().gate(logits, training=True) for _ in range(4000)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(drawn.mean(0), chances, atol=4 * 0.5 / math.sqrt(4000))
    drawn[0].sum().backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, chances * (1 - chances))  # σ'
    assert BernoulliMask().gate(logits, training=False).tolist() == [0.0, 0.0, 0.0, 1.0]


# --- the search as a whole -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initialisation", ["signed constant", "kaiming", None])
@pytest.mark.parametrize("search", [EdgePopup(0.3), BernoulliMask()])
def test_weights_are_bit_for_bit_those_that_were_drawn(search: Any, initialisation: Any) -> None:
    found = supermask(conv_net, RECIPE, search, seed=3, initialisation=initialisation)
    model, drawn = found.model, conv_net(3)
    assert list(model.state_dict()) == list(drawn.state_dict())
    assert all(type(a) is type(b) for a, b in zip(model.modules(), drawn.modules(), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, parameter in drawn.named_parameters():
        value = model.get_parameter(name).detach()
        if name not in found.masks:  # biases and normalisations
            assert torch.equal(value, parameter)
            continue
        kept = found.masks[name]
        assert (value[~kept] == 0).all()
        if initialisation is None:
            assert torch.equal(value[kept], parameter.detach()[kept])
        if initialisation == "signed constant":
            assert torch.equal(value[kept].sign(), parameter.detach()[kept].sign())
            assert len(value[kept].abs().unique()) == 1
    if isinstance(search, EdgePopup):
        for name, mask in found.masks.items():
            assert int(mask.sum()) == round(0.3 * mask.numel()), name


def test_the_size_of_the_signed_constant_is_kaimings() -> None:
    found = supermask(conv_net, RECIPE, EdgePopup(1.0))
    sizes = {name: float(found.model.get_parameter(name).detach().abs().max()) for name in found.masks}
    fan_in = {"0.weight": 9, "3.weight": 2 * 9, "5.weight": 6 * 4, "7.weight": 18}
    assert sizes == pytest.approx({name: math.sqrt(2 / fan) for name, fan in fan_in.items()})


def test_the_scores_follow_the_loss_of_the_masked_network() -> None:
    """One step of SGD on one linear layer, by hand."""
    inputs, targets = torch.randn(8, 3), torch.randn(8, 2)
    recipe = Recipe(
        inputs, targets, steps=1, batch_size=8, momentum=0.0, learning_rate=0.7, loss=nn.functional.mse_loss
    )

    def make(seed: int) -> nn.Linear:
        torch.manual_seed(seed)
        return nn.Linear(3, 2, bias=False)

    found = supermask(make, recipe, EdgePopup(0.5), seed=5, initialisation=None)
    weight = make(5).weight.detach()
    scores = EdgePopup(0.5).start((2, 3), 3, torch.Generator().manual_seed(5))
    in_use = (weight * EdgePopup(0.5).mask(scores)).requires_grad_()
    nn.functional.mse_loss(inputs @ in_use.T, targets).backward()
    assert in_use.grad is not None
    scores -= 0.7 * in_use.grad * weight * scores.sign()
    assert torch.equal(found.masks["weight"], EdgePopup(0.5).mask(scores))


def test_one_seed_one_mask() -> None:
    first, again, other = (supermask(conv_net, RECIPE, EdgePopup(0.4), seed=seed) for seed in (1, 1, 2))
    assert first.masks == again.masks
    assert first.masks != other.masks


def test_a_shared_weight_has_one_mask() -> None:
    recipe = Recipe(torch.randn(16, 4), torch.arange(16) % 2, steps=3, batch_size=8)
    found = supermask(lambda _: Tied(), recipe, EdgePopup(0.5))
    assert list(found.masks) == ["first.weight", "head.weight"]
    model = found.model
    assert isinstance(model, Tied)
    assert model.second.weight is model.first.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype, device: torch.device) -> None:
    recipe = Recipe(X.to(dtype), Y, steps=2, batch_size=20)
    found = supermask(lambda seed: conv_net(seed).to(device, dtype), recipe, EdgePopup(0.5))
    assert all(parameter.dtype == dtype for parameter in found.model.parameters())
    assert all(mask.device.type == device.type for mask in found.masks.values())


def test_a_function_that_trains_will_do_and_frozen_parameters_stay_frozen() -> None:
    def make(seed: int) -> nn.Module:
        model = conv_net(seed)
        model[7].bias.requires_grad_(False)
        return model

    seen: list[set[str]] = []

    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        seen.append({name for name, parameter in model.named_parameters() if parameter.requires_grad})
        RECIPE.train(model, masks, seed)

    found = supermask(make, train, exclude=["7.weight"])
    assert seen == [{f"{layer}.parametrizations.weight.0.numbers" for layer in (0, 3, 5)}]
    assert "7.weight" not in found.masks
    assert not found.model.get_parameter("7.bias").requires_grad


@pytest.mark.parametrize(
    ("search", "rate"), [(EdgePopup(0.5), 0.1), (BernoulliMask(), 20.0)], ids=["edge", "Bernoulli"]
)
def test_digits_without_training_a_weight(search: Search, rate: float) -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10)
        )

    digits = lab_data.digits()
    found = supermask(make, Recipe(*digits.train, steps=150, learning_rate=rate), search)
    assert lab_train.accuracy(found.model, digits.test) >= 0.8
    for name, mask in found.masks.items():  # as many of the same weights, but chosen by chance
        drawn = make(0).get_parameter(name).detach()
        constant = torch.where(drawn < 0, -1, 1) * math.sqrt(2 / drawn.shape[1])
        order = torch.randperm(mask.numel(), generator=torch.Generator().manual_seed(1))
        found.model.get_parameter(name).data = constant * mask.flatten()[order].reshape(mask.shape)
    assert lab_train.accuracy(found.model, digits.test) < 0.4


# --- what goes wrong -----------------------------------------------------------------------------------------------------


def test_gates_come_off_when_training_fails() -> None:
    model = conv_net(0)
    before, names = copy.deepcopy(model.state_dict()), list(model._modules["0"]._parameters)

    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError, match="the power went out"):
        supermask(lambda _: model, train, initialisation=None)
    assert list(model.state_dict()) == list(before)
    assert list(model._modules["0"]._parameters) == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_training_a_weight_is_refused() -> None:
    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        with torch.no_grad():
            model.get_parameter("1.weight").add_(1)

    with pytest.raises(ValueError, match=r"train changed '1\.weight'"):
        supermask(conv_net, train)


def test_diverged_scores_are_refused() -> None:
    def train(model: nn.Module, masks: Masks, seed: int) -> None:
        next(p for p in model.parameters() if p.requires_grad).data.fill_(math.nan)

    with pytest.raises(ValueError, match="not finite"):
        supermask(conv_net, train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": 0.5}, r"EdgePopup\(keep\) or BernoulliMask"),
        ({"initialisation": "xavier"}, "signed constant"),
        ({"train": 3}, "a Recipe or a function"),
        ({"parameters": ["9.weight"]}, "unknown parameter"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        supermask(**({"make_model": conv_net, "train": RECIPE} | arguments))


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, math.nan, True, "half"])
def test_a_fraction_to_keep(keep: Any) -> None:
    with pytest.raises(ValueError, match="keep="):
        EdgePopup(keep)


@pytest.mark.parametrize("initial", [0.0, 1.0, math.nan, 1])
def test_a_probability(initial: Any) -> None:
    with pytest.raises(ValueError, match="probability"):
        BernoulliMask(initial)


def test_weights_that_a_gate_would_miss_are_refused() -> None:
    def make(seed: int) -> nn.Module:
        return nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2))

    with pytest.raises(ValueError, match="cannot be gated"):
        supermask(make, lambda *_: None, parameters=["0.weight_ih_l0"])


def test_the_result() -> None:
    found = supermask(conv_net, RECIPE, seed=2)
    assert isinstance(found, Supermask)
    assert found.seed == 2
    assert found.masks.sparsity == pytest.approx(0.5, abs=0.01)
