"""Wanda against its definition: with all weights but one at zero, a layer puts out just what that weight multiplies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunelab
from prunelab import scope
from prunelab.criteria import Wanda
from prunelab.granularity import Channel, Filter, Granularity, Weight
from prunelab.targets import find_targets

LAYERS = {
    "linear": (nn.Linear(5, 4), (7, 5)),
    "linear over tokens": (nn.Linear(5, 4), (3, 2, 4, 5)),
    "plain": (nn.Conv2d(3, 4, 3), (2, 3, 6, 5)),
    "grouped, strided, padded": (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2), (3, 4, 6, 5)),
    "dilated": (nn.Conv2d(2, 3, 2, dilation=(2, 1), padding=(1, 0)), (2, 2, 6, 6)),
    "depthwise": (nn.Conv2d(3, 6, 3, groups=3, padding="same"), (2, 3, 5, 5)),
    "circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 4, 4)),
    "reflected": (nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect", stride=2), (2, 2, 7)),
    "three dimensions": (nn.Conv3d(2, 2, 2, bias=False), (2, 2, 3, 3, 3)),
    "one example": (nn.Conv2d(2, 3, 2), (2, 4, 4)),
    "transposed": (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (2, 3, 4, 3)),
    "transposed, grouped": (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2, padding=2, dilation=2), (2, 4, 5)),
}


def norms_by_definition(layer: nn.Module, x: Tensor) -> Tensor:
    """‖X‖ of each weight: the norm of what the layer puts out when that weight is 1 and all others are 0."""
    norms = torch.zeros(layer.weight.shape, dtype=torch.float64)
    for index in range(layer.weight.numel()):
        weight = torch.zeros_like(layer.weight, dtype=torch.float64)
        weight.view(-1)[index] = 1
        bias = {} if layer.bias is None else {"bias": torch.zeros_like(layer.bias, dtype=torch.float64)}
        out = torch.func.functional_call(layer, {"weight": weight, **bias}, (x.double(),))
        norms.view(-1)[index] = out.norm()
    return norms


def wanda(model: nn.Module, data: Sequence[Tensor], granularity: Granularity | None = None) -> dict[str, Tensor]:
    batches = [(x, torch.zeros(len(x))) for x in data]
    return prunelab.score(model, Wanda(), granularity or Weight(), data=batches)


@pytest.mark.parametrize("case", LAYERS)
def test_every_weight_is_scored_by_exactly_what_it_multiplies(case: str, device: torch.device) -> None:
    layer, shape = LAYERS[case]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = layer.weight.detach().abs().double() * norms_by_definition(layer, x)
    (target,) = find_targets(layer)
    for granularity in (Weight(), Filter(), Channel()):
        found = wanda(layer.to(device), [x], granularity)["weight"]
        torch.testing.assert_close(
            found.cpu().double(), target.view(expected, granularity).sum(1), rtol=1e-5, atol=1e-7
        )


def test_an_output_size_that_is_asked_for_at_the_call() -> None:
    class Larger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose1d(1, 1, 2, stride=3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x, output_size=[2 + 3 * (x.shape[-1] - 1) + self.extra])

        extra = 0

    model, x = Larger(), torch.tensor([[[1.0, 2.0, 4.0]]])
    for model.extra in (0, 1):  # the weights reach no further, wherever the output ends
        norms = wanda(model, [x])["up.weight"] / model.up.weight.detach().abs().flatten()
        torch.testing.assert_close(norms, torch.full((2,), 21.0).sqrt().to(norms))


def test_the_published_formula_and_selection() -> None:
    generator = torch.Generator().manual_seed(0)
    layer, x = nn.Linear(16, 8), torch.randn(4, 10, 16, generator=generator)
    tokens = x.reshape(-1, 16)
    metric = layer.weight.detach().abs() * tokens.square().sum(0).sqrt()  # |W_ij| ‖X_j‖₂, as the paper has it
    gone = metric.argsort(dim=1, stable=True)[:, :8]
    expected = torch.ones(8, 16, dtype=torch.bool).scatter_(1, gone, False)
    masks = prunelab.prune(layer, 0.5, criterion=Wanda(), scope=scope.PerRow(), data=[(x, torch.zeros(4))])
    assert torch.equal(masks["weight"], expected)


class Tower(nn.Module):
    """A convolution that runs twice, and a linear layer over what comes out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x).relu()).mean((2, 3)))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_batches_add_up_whatever_their_sizes(sizes: list[int]) -> None:
    model, x = Tower(), torch.randn(sum(sizes), 2, 4, 4, generator=torch.Generator().manual_seed(1))
    together, split = wanda(model, [x]), wanda(model, x.split(sizes))
    for name in together:
        torch.testing.assert_close(split[name], together[name], rtol=1e-5, atol=1e-7)


def test_a_layer_that_runs_twice_has_seen_both_inputs() -> None:
    model, x = Tower(), torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        first, second = (norms_by_definition(model.conv, value) for value in (x, model.conv(x).relu()))
    expected = model.conv.weight.detach().abs() * (first.square() + second.square()).sqrt()
    torch.testing.assert_close(wanda(model, [x])["conv.weight"].double(), expected.flatten(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_of_squares_beyond_half_precision(dtype: torch.dtype) -> None:
    layer = nn.Linear(2, 1, bias=False).to(dtype)
    layer.weight.data[:] = torch.tensor([[1.0, -2.0]])
    x = torch.tensor([[300.0, 0.0]]).expand(400, 2).to(dtype)  # a square alone is beyond float16
    norm = 20 * float(x[0, 0])
    found = wanda(layer, [x])["weight"]
    assert found.tolist() == pytest.approx([norm, 0.0], rel=1e-6)
    assert found.dtype in (torch.float32, torch.float64)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_inputs_outputs_or_examples() -> None:
    for inputs, outputs, examples in ((0, 3, 2), (3, 0, 2)):
        layer = nn.Linear(inputs, outputs)
        assert wanda(layer, [torch.ones(examples, inputs)])["weight"].shape == (0,)
    layer = nn.Linear(2, 2)
    with_empty = wanda(layer, [torch.ones(0, 2), torch.ones(3, 2)])
    assert torch.equal(with_empty["weight"], wanda(layer, [torch.ones(3, 2)])["weight"])


def test_in_inference_mode_and_without_a_trace_in_the_model() -> None:
    model = Tower().train()
    model.head.weight.requires_grad_(False)
    x = torch.randn(2, 2, 4, 4)
    expected = wanda(model, [x])
    with torch.inference_mode():
        inside = wanda(model, [x])
    assert all(torch.equal(inside[name], expected[name]) for name in expected)
    assert model.training
    assert not model.head.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError):
        wanda(model, [x, torch.randn(2, 3, 4, 4)])
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="Wanda needs data and weights, so it must be given data="):
        prunelab.score(model, Wanda())


def test_a_weight_that_two_layers_store_differently_is_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(2, 2, 1), nn.ConvTranspose1d(2, 2, 1)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    with pytest.raises(ValueError, match=r"'a.weight' shares its weight with one that stores it differently.*exclude="):
        wanda(Tied(), [torch.ones(1, 2, 3)])
