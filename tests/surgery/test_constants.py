"""What a channel without weights still emits: kept where it must be, added to biases where that is exact.

The oracle is the masked network itself, in float64, on inputs that `shrink` never saw.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import prunelab
from prunelab import Masks
from prunelab.granularity import Channel, Filter
from prunelab.scope import LayerCollapseWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{LayerCollapseWarning.__module__}.LayerCollapseWarning")

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.GELU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6, nn.Mish,
    nn.Hardsigmoid, nn.Softsign, nn.Identity, nn.Dropout,
]  # fmt: skip
POOLS: list[Callable[[], nn.Module]] = [
    lambda: nn.MaxPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(3, 1, 1),
    lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    lambda: nn.AdaptiveAvgPool2d(3),
    lambda: nn.AdaptiveMaxPool2d(3),
    lambda: nn.Upsample(scale_factor=2),
    lambda: nn.ReflectionPad2d(1),
]
READERS: list[Callable[[int, int], nn.Module]] = [
    lambda i, o: nn.Conv2d(i, o, 1),
    lambda i, o: nn.Conv2d(i, o, 1, bias=False),
    lambda i, o: nn.Conv2d(i, o, 3, padding=1),
    lambda i, o: nn.Conv2d(i, o, 3, padding="same", padding_mode="circular"),
    lambda i, o: nn.Conv2d(i, o, 1, groups=2),
    lambda i, o: nn.Conv2d(i, i, 3, padding=1, groups=i),
    lambda i, o: nn.Conv2d(i, i, 1, groups=i),
    lambda i, o: nn.ConvTranspose2d(i, o, 3, padding=1),
    lambda i, o: nn.ConvTranspose2d(i, o, 1, groups=2),
]


class Gate(nn.Module):
    """Squeeze and excite: (N, C, H, W) -> the same, each channel times a number from 0 to 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(functional.silu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()


class Residual(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


class Beside(nn.Module):
    """Two layers that read the same, one behind the other along the channels."""

    def __init__(self, width: int, one: int, other: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(width, one, 1), nn.Conv2d(width, other, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x).tanh()], 1)


def randomise(model: nn.Module) -> nn.Module:
    """Evaluation mode, float64; normalisations and biases that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(0.2 if name.endswith("weight") else 0.0)
    return model.double().eval()


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Images (N, 3, 6, 6) -> (N, 3), through layers of every kind that emits, passes on or reads a constant."""
    torch.manual_seed(draw(st.integers(0, 999)))
    width, layers = 8, list[nn.Module]()
    layers.append(nn.Conv2d(3, width, 3, padding=draw(st.integers(0, 1))))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["reader", "reader", "norm", "act", "act", "pool", "gate", "residual", "beside"]))
        if kind == "norm":
            layers.append(nn.BatchNorm2d(width, affine=draw(st.booleans())))
        elif kind == "act":
            layers.append(draw(st.sampled_from(ACTIVATIONS))())
        elif kind == "pool":
            layers.append(draw(st.sampled_from(POOLS))())
        elif kind == "gate":
            layers.append(Gate(width))
        elif kind == "residual":
            layers.append(Residual(draw(st.sampled_from(READERS[:4]))(width, width)))
        elif kind == "beside":
            layers.append(Beside(width, 4, 6))
            width = 10
        else:
            layer = draw(st.sampled_from(READERS))(width, 6)
            layers += [layer, draw(st.sampled_from(ACTIVATIONS))()]
            width = 6 if layer.out_channels == 6 else width
    if draw(st.booleans()):
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(width * 4, 5), nn.Sigmoid()]
    else:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5, bias=False), nn.SiLU()]
    return randomise(nn.Sequential(*layers, nn.Linear(5, 3)))


def images(seed: int, count: int = 3, scale: float = 1.0) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def gap(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest difference, relative to the largest output."""
    with torch.no_grad():
        a, b = one(x), other(x)
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))


def without_biases(masks: Masks) -> Masks:
    """Masks of the weights alone: what they remove goes on emitting its bias."""
    return Masks({name: mask for name, mask in masks.items() if not name.endswith("bias")})


@settings(max_examples=30, derandomize=True)
@given(model=networks(), sparsity=st.sampled_from([0.25, 0.5, 0.8]), columns=st.booleans(), bias=st.booleans())
def test_keep_leaves_the_masked_network_as_it_is(model: nn.Module, sparsity: float, columns: bool, bias: bool) -> None:
    masks = prunelab.prune(model, sparsity, granularity=Channel() if columns else Filter(), scope="local", apply=False)
    if bias:
        masks = without_biases(masks)
    masked = masks.apply_(copy.deepcopy(model))
    small = prunelab.shrink(model, images(1), masks=masks).model
    for seed, scale in ((2, 1.0), (3, 30.0), (4, 0.01)):
        assert gap(masked, small, images(seed, scale=scale)) <= 1e-10


@settings(max_examples=20, derandomize=True)
@given(model=networks(), sparsity=st.sampled_from([0.25, 0.5, 0.8]), bias=st.booleans())
def test_zero_is_what_the_plan_says(model: nn.Module, sparsity: float, bias: bool) -> None:
    masks = prunelab.prune(model, sparsity, granularity=Filter(), scope="local", apply=False)
    masked = (without_biases(masks) if bias else masks).apply_(copy.deepcopy(model))
    small = prunelab.shrink(masked, images(1), constants="zero")
    assert gap(small.plan.masked(masked), small.model, images(2, scale=10.0)) <= 1e-10


@settings(max_examples=20, derandomize=True)
@given(model=networks(), sparsity=st.sampled_from([0.25, 0.5, 0.8]), scope=st.sampled_from(["local", "global"]))
def test_by_sparsity_the_plan_says_the_same(model: nn.Module, sparsity: float, scope: Any) -> None:
    """And where no constant was set to zero, the network is the one with the removed filters' weights zeroed."""
    small = prunelab.shrink(model, images(1), sparsity=sparsity, scope=scope)
    assert gap(small.plan.masked(model), small.model, images(2, scale=10.0)) <= 1e-10
    if not small.plan.notes and not any(isinstance(m, nn.ConvTranspose2d) for m in model.modules()):
        assert gap(weights_zeroed(model, small.plan), small.model, images(2, scale=10.0)) <= 1e-10


def weights_zeroed(model: nn.Module, plan: prunelab.Plan) -> nn.Module:
    """The filters that make what goes are zero, but not their biases; nothing else changes."""
    zeroed = copy.deepcopy(model)
    for name in {name for part in plan.parts for name in part.made_by} & plan.slices.keys():
        gone = ~plan.slices[name].mask()
        with torch.no_grad():
            zeroed.get_parameter(name)[gone.flatten(1).all(1)] = 0
    return zeroed


# --- by hand -------------------------------------------------------------------------------------------------------------


def test_a_bias_that_passes_a_sigmoid_is_added_to_the_next() -> None:
    """The literal: 2·σ(0) + 3·σ(ln 3) = 1 + 2.25, in the bias of the layer that reads channels 0 and 2."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 5.0, 3.0]).log().nan_to_num(neginf=0.0))
        model[2].weight.copy_(torch.tensor([[2.0, 7.0, 3.0]]))
        model[2].bias.copy_(torch.tensor([10.0]))
    small = prunelab.shrink(model, torch.randn(4, 2).double())
    assert small.model[0].weight.tolist() == [[1.0, 2.0]]
    assert small.model[2].weight.tolist() == [[7.0]]
    torch.testing.assert_close(small.model[2].bias, torch.tensor([13.25]).double())
    assert small.plan.biases["2.bias"] == pytest.approx((3.25,))


def dead(maker: nn.Module, *after: nn.Module) -> nn.Module:
    """Channels 1 and 2 of the maker have no weights, only a bias."""
    model = randomise(nn.Sequential(maker, *after))
    with torch.no_grad():
        maker.get_parameter("weight")[1:3] = 0
        maker.get_parameter("bias")[1:3] = torch.tensor([0.7, -1.3])
    return model


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([nn.Conv2d(8, 2, 1)], 6),
        ([nn.Conv2d(8, 2, 3, padding=1)], 8),  # at the border it reads zeros instead
        ([nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1)], 7),  # the negative one is gone behind the rectifier
        ([nn.AvgPool2d(2, padding=1), nn.Conv2d(8, 2, 1)], 8),
        ([nn.MaxPool2d(2, padding=1), nn.Conv2d(8, 2, 1)], 6),
        ([nn.ZeroPad2d(1), nn.Conv2d(8, 2, 1)], 8),
        ([nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 2, 1, bias=False)], 6),
        ([nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2)], 6),
        ([nn.Conv2d(8, 8, 1, groups=4), nn.Conv2d(8, 2, 1)], 8),
        ([nn.ConvTranspose2d(8, 2, 3)], 8),
    ],
    ids=["1x1", "padded", "relu_padded", "avg_padded", "max_padded", "zero_pad", "norm", "flat", "grouped", "transposed"],
)  # fmt: skip
def test_what_may_go_and_what_must_stay(layers: list[nn.Module], left: int) -> None:
    """Two of eight channels emit a constant: it is added to a bias, or the channel stays."""
    torch.manual_seed(0)
    model = dead(nn.Conv2d(3, 8, 3), *layers)
    small = prunelab.shrink(model, images(1))
    assert small.model[0].out_channels == left
    assert gap(model, small.model, images(2)) <= 1e-12
    zeroed = prunelab.shrink(model, images(1), constants="zero")
    if not isinstance(layers[0], nn.Conv2d) or layers[0].groups == 1:
        assert zeroed.model[0].out_channels == 6
    assert bool(zeroed.plan.notes) == (left > zeroed.model[0].out_channels)
    assert gap(zeroed.plan.masked(model), zeroed.model, images(2)) <= 1e-12


def test_constants_that_a_shuffle_interleaves() -> None:
    """Four channels with constants of their own become one image of four values: the channels stay."""
    torch.manual_seed(0)
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.Conv2d(2, 4, 1)))
    with torch.no_grad():
        model[0].weight[:4] = 0
    small = prunelab.shrink(model, images(1))
    assert small.model[0].out_channels == 8
    zeroed = prunelab.shrink(model, images(1), constants="zero")
    assert zeroed.model[0].out_channels == 4
    assert zeroed.plan.notes


def test_weights_that_read_nothing_let_their_channel_go() -> None:
    """Only zeros read channels 4 and 5: what makes them may go, whatever it emits, padding or not."""
    torch.manual_seed(0)
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 2, 3, padding=1)))
    with torch.no_grad():
        model[2].weight[:, 4:6] = 0
    small = prunelab.shrink(model, images(1))
    assert small.model[0].out_channels == 6
    assert gap(model, small.model, images(2)) <= 1e-12


def test_a_layer_used_twice_takes_up_a_constant_only_if_it_is_the_same() -> None:
    class Twice(nn.Module):
        def __init__(self, other: nn.Module | None) -> None:
            super().__init__()
            self.first, self.other, self.last = nn.Conv2d(3, 8, 1), other, nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            again = self.first(x.flip(2)) if self.other is None else self.other(x)
            return self.last(self.first(x).sigmoid()) + self.last(again.sigmoid())

    for other, left in ((None, 6), (nn.Conv2d(3, 8, 1), 8)):
        torch.manual_seed(0)
        model = randomise(Twice(other))
        for layer in (model.first, other) if other is not None else (model.first,):
            with torch.no_grad():
                layer.weight[2:4] = 0
        small = prunelab.shrink(model, images(1))
        assert small.model.first.out_channels == left
        assert gap(model, small.model, images(2)) <= 1e-12


class Inline(nn.Module):
    """A convolution of 8 channels, and what a function makes of them with a second layer."""

    def __init__(self, body: Callable[[nn.Module, Tensor], Any], last: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.body = nn.Conv2d(3, 8, 3), last, body

    def forward(self, x: Tensor) -> Any:
        return self.body(self.last, self.first(x))


def rows_to_zero(last: nn.Module, y: Tensor) -> Tensor:
    y[:, :, 0] = 0
    return last(y)


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (lambda last, y: last(functional.avg_pool2d(y, 2, divisor_override=1)), nn.Conv2d(8, 2, 1)),
        (lambda last, y: torch.einsum("nchw,oc->nohw", y, last.weight), nn.Linear(8, 2)),
        (rows_to_zero, nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(y.cumsum(2)), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(y.sum((2, 3))), nn.Linear(8, 2)),
        (lambda last, y: last(y.std((2, 3))), nn.Linear(8, 2)),
        (lambda last, y: last(torch.where(y > 0, y, torch.full_like(y, -1.5))), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(functional.normalize(y, dim=1)), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(y * y.amax(1, keepdim=True)), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(y - y.mean(1, keepdim=True)), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(2 ** (1 - 3 * y)), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(y) + functional.conv2d(y, last.weight), nn.Conv2d(8, 2, 1)),
        (lambda last, y: last(y.mul_(2).add_(1).sigmoid_()), nn.Conv2d(8, 2, 1)),
    ],
    ids=["divisor", "einsum", "written_into", "cumsum", "sum", "std", "where", "normalize", "amax", "mean", "power",
         "two_biases", "in_place"],
)  # fmt: skip
def test_constants_through_plain_code(body: Any, last: nn.Module) -> None:
    """Whether they can be followed or not, the result is the masked network's."""
    torch.manual_seed(0)
    model = randomise(Inline(body, last))
    with torch.no_grad():
        model.first.weight[1:3] = 0
    small = prunelab.shrink(model, images(1))
    assert gap(model, small.model, images(2)) <= 1e-12
    by_half = prunelab.shrink(model, images(1), sparsity=0.5)
    assert gap(by_half.plan.masked(model), by_half.model, images(2)) <= 1e-12


class ReadElsewhere(nn.Module):
    def __init__(self, extra: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.extra = nn.Linear(3, 8), nn.Linear(8, 2), extra
        self.form = nn.Bilinear(8, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y) + self.extra(self, y, x)


@pytest.mark.parametrize(
    "extra",
    [lambda m, y, x: y.sum(1, keepdim=True), lambda m, y, x: m.form(y, x), lambda m, y, x: (y * y) @ y.T[:, :2]],
    ids=["sum", "bilinear", "with_itself"],
)
def test_a_channel_that_something_else_reads_stays(extra: Any) -> None:
    """The layer's weights of channel 3 are zero, but it is read by more than this layer."""
    torch.manual_seed(0)
    model = ReadElsewhere(extra).double()
    with torch.no_grad():
        model.last.weight[:, 3] = 0
    x = torch.randn(4, 3, dtype=torch.float64)
    small = prunelab.shrink(model, x)
    assert small.model.first.out_features == 8
    torch.testing.assert_close(small.model(x * 7), model(x * 7))


def test_a_grouped_layer_without_a_bias_gets_one_of_its_size() -> None:
    """Its weight is cut along two dimensions at once; the new bias has the rows that stay."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 12, 1, groups=2, bias=False), nn.Sigmoid()]
    model = randomise(nn.Sequential(*layers, nn.Conv2d(12, 3, 1)))
    for verify in (True, False):
        small = prunelab.shrink(model, images(1), sparsity=0.5, verify=verify)
        assert (small.model[2].out_channels, small.model[2].groups) == (6, 2)
        assert small.model[2].bias.shape == (6,)
        assert small.plan.params[1] == sum(p.numel() for p in small.model.parameters())
        assert gap(small.plan.masked(model), small.model, images(2)) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_constants_in_every_float_type(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = dead(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2, bias=False)).to(dtype)
    x = torch.randn(16, 4, dtype=dtype)
    small = prunelab.shrink(model, x)
    assert small.model[0].out_features == 6
    assert {p.dtype for p in small.model.parameters()} == {dtype}
    assert small.model[2].bias is not None
    fresh = torch.randn(32, 4, dtype=dtype)
    assert gap(model, small.model, fresh) <= 8 * torch.finfo(dtype).eps
