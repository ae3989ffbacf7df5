"""Constants that look as if a bias could take them up: the smaller network against the large one, nothing folded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunelab


class Layers(nn.Module):
    """Layers, and a function of them and the inputs."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


class Deaf(nn.Linear):
    """It would have a bias, says its class, and does not read it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x * 2, self.weight)


def two() -> dict[str, nn.Module]:
    return {"a": nn.Linear(6, 16), "b": nn.Linear(5, 16), "o": nn.Linear(16, 3)}


def shared_bias() -> nn.Module:
    layers = {"a": nn.Linear(6, 16), "b": nn.Linear(16, 16), "c": nn.Linear(16, 16), "o": nn.Linear(16, 3)}
    layers["c"].bias = layers["b"].bias
    return Layers(lambda s, x: s.o(s.c(s.b(s.a(x).relu()).relu()).relu()), **layers)


def masked_attention(s: Any, x: Tensor) -> Tensor:
    """The last queries see no key, and get zeros."""
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[3:] = False
    q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (s.q, s.k, s.v))
    result: Tensor = s.o(functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
    return result


def heads() -> dict[str, nn.Module]:
    return {"q": nn.Linear(6, 16), "k": nn.Linear(6, 16), "v": nn.Linear(6, 16), "o": nn.Linear(16, 3)}


def bias_kv() -> nn.Module:
    attention = nn.MultiheadAttention(8, 4, batch_first=True, add_bias_kv=True)
    nn.init.normal_(attention.in_proj_bias)
    return Layers(lambda s, x: s.o(s.a(x, x, x, need_weights=False)[0]), a=attention, o=nn.Linear(8, 3))


def draw(*sizes: int) -> Tensor:
    return torch.randn(*sizes)


CASES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "tokens of two encoders": lambda: (
        Layers(lambda s, x, y: s.o(torch.cat([s.a(x).relu(), s.b(y).relu()], 1)), **two()),
        (draw(2, 4, 6), draw(2, 3, 5)),
    ),
    "two encoders, stacked": lambda: (
        Layers(lambda s, x, y: s.o(torch.stack([s.a(x), s.b(y)], 1)), **two()),
        (draw(2, 6), draw(2, 5)),
    ),
    "padded with zeros": lambda: (
        Layers(lambda s, x: s.o(torch.cat([h := s.a(x).relu(), h.new_zeros(2, h.shape[1])], 0)), **two()),
        (draw(3, 6),),
    ),
    "a bias of two layers": lambda: (shared_bias(), (draw(4, 6),)),
    "a bias that is returned": lambda: (
        Layers(lambda s, x: (s.o(s.a(x).relu()), s.o.bias.square().sum()), **two()),
        (draw(4, 6),),
    ),
    "a bias that is not read": lambda: (
        Layers(lambda s, x: s.o(s.a(x).relu()), a=nn.Linear(6, 16), o=Deaf(16, 3)),
        (draw(4, 6),),
    ),
    "a graph's matrix": lambda: (
        Layers(lambda s, x, edges: edges @ s.o((edges @ s.a(x)).relu()), **two()),
        (draw(5, 6), torch.rand(5, 5)),
    ),
    "queries that see nothing": lambda: (Layers(masked_attention, **heads()), (draw(2, 4, 6),)),
    "keys and values of their own": lambda: (bias_kv(), (draw(2, 5, 8),)),
}


def made_by_zeros(model: nn.Module, small: prunelab.Shrunk, *, silent: bool) -> nn.Module:
    """By hand: the rows of weights that make removed channels are zero; `silent`: those of the biases, too."""
    found = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            cut = small.plan.slices.get(name)
            if cut is None:
                continue
            rows = torch.from_numpy(np.asarray(~cut.rows()))
            if parameter.dim() > 1 and len(rows) == len(parameter) and "bias_" not in name:
                parameter[rows] = 0
            elif silent or "bias_" in name:
                parameter[~cut.mask(parameter.device)] = 0
    return found


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_kept_constants_are_what_the_network_computes(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    model.eval()
    small = prunelab.shrink(model, inputs, sparsity=0.5, constants="keep")
    same(small.model(*inputs), made_by_zeros(model, small, silent=False)(*inputs))


@pytest.mark.parametrize("name", CASES)
def test_constants_that_are_set_to_zero_are_told(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    model.eval()
    small = prunelab.shrink(model, inputs, sparsity=0.5)
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in model.parameters())
    lost = any("set to zero" in note for note in small.plan.notes)
    same(small.model(*inputs), made_by_zeros(model, small, silent=lost)(*inputs))


@pytest.mark.parametrize("name", ["tokens of two encoders", "a graph's matrix", "a bias that is not read"])
def test_dead_channels_stay_where_their_constants_would_be_lost(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = CASES[name]()
    with torch.no_grad():
        for number, layer in enumerate((model.a, model.b) if hasattr(model, "b") else (model.a,), start=1):
            layer.weight[:4] = 0  # type: ignore[index, operator]
            layer.bias[:4] = torch.tensor([0, 0, number, number])  # type: ignore[index, operator]
    small = prunelab.shrink(model.eval(), inputs)
    same(small.model(*inputs), model(*inputs))
    assert small.model.a.out_features == 14  # type: ignore[union-attr]
    assert any("2 units without weights stay" in note for note in small.plan.notes)
