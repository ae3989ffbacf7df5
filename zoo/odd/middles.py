"""What can stand between two convolutions: one case for each way in which code touches channels.

Every network here is `stem` (3 to 16 channels), a rectifier, the middle, `after` (to 24 channels), a rectifier, the
mean over the image, `head`. The middle alone decides what becomes of the stem's 16 channels:

- PRUNED: it hands every channel on, or mixes them in a way from which one can be left out exactly.
- EITHER: leaving a channel out changes something, or nobody can know; then it stays and explain() says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.architecture import Architecture, images

PRUNED, EITHER = "pruned", "either"


class Odd(nn.Module):
    """`parts`: further modules, parameters, buffers and plain attributes that the middle uses; `reads`: what it gives."""

    def __init__(self, middle: Callable[[Odd, Tensor], Tensor], parts: dict[str, Any], reads: int) -> None:
        super().__init__()
        self.stem, self.after, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(reads, 24, 1), nn.Linear(24, 5)
        self.middle = middle
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) -> (N, 5)."""
        x = self.middle(self, F.relu(self.stem(x)))
        return self.head(F.relu(self.after(x)).mean((2, 3)))


@dataclass(frozen=True)
class Middle:
    """`middle(net, x)` takes (N, 16, 8, 8) and gives (N, reads, ...)."""

    name: str
    middle: Callable[[Odd, Tensor], Tensor]
    expected: str
    parts: Callable[[], dict[str, Any]] = field(default=dict)
    reads: int = 16

    def architecture(self) -> Architecture:
        return Architecture(f"odd_{self.name}", __name__, lambda: Odd(self.middle, self.parts(), self.reads), images(8))


def vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))


# --- the same tensor under several names --------------------------------------------------------------------------------


def in_place(net: Odd, x: Tensor) -> Tensor:
    out = net.conv(x).mul_(0.5)
    out += net.other(x)
    return out.clamp_(max=4).relu_()


def in_place_on_a_slice(net: Odd, x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :8] += net.other(x)
    return out


def write_through_a_view(net: Odd, x: Tensor) -> Tensor:
    x = x.clone()
    x.view(x.shape[0], 4, -1, 8, 8)[:, 1].mul_(2.0)
    return x


def into_zeros(net: Odd, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], 32, 8, 8)
    out[:, :16] = x
    out[:, 16:] = net.other(x)
    return out


def into_zeros_by_shape(net: Odd, x: Tensor) -> Tensor:
    other = net.other(x)
    out = torch.zeros(x.shape[0], x.shape[1] + other.shape[1], 8, 8, dtype=x.dtype, device=x.device)
    out[:, : x.shape[1]] = x
    out[:, x.shape[1] :] = other
    return out


def views_of_views(net: Odd, x: Tensor) -> Tensor:
    halves = x.view(x.shape[0], 2, 8, 64)
    quarter = halves[:, 1].view(x.shape[0], 8, 8, 8)[:, 4:]
    return torch.cat([x[:, :8][:, 4:], quarter], 1)


def shared_module(net: Odd, x: Tensor) -> Tensor:
    return net.conv(F.relu(net.conv(x)))


def module_called_on_two(net: Odd, x: Tensor) -> Tensor:
    return (net.conv(x) - net.conv(x.flip(3))).abs()


def shared_weight(net: Odd, x: Tensor) -> Tensor:
    return F.conv2d(F.relu(net.conv(x)), net.conv.weight, net.other.bias)


def tied_transposed(net: Odd, x: Tensor) -> Tensor:
    hidden = F.relu(F.linear(x.permute(0, 2, 3, 1), net.matrix))
    return F.linear(hidden, net.matrix.t()).permute(0, 3, 1, 2)


# --- parameters and code outside layers ----------------------------------------------------------------------------------


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def scaled_by_parameter(net: Odd, x: Tensor) -> Tensor:
    return x * net.scale + net.shift


def parameter_list(net: Odd, x: Tensor) -> Tensor:
    for matrix in net.matrices:
        x = torch.einsum("nchw,dc->ndhw", x, matrix)
    return x


def functional_convolution(net: Odd, x: Tensor) -> Tensor:
    return F.conv2d(x, net.weight, net.shift.flatten(), padding=1)


def functional_batch_norm(net: Odd, x: Tensor) -> Tensor:
    return F.batch_norm(x, net.mean, net.variance, net.scale.flatten(), net.shift.flatten())


def buffer_added(net: Odd, x: Tensor) -> Tensor:
    return x + net.places


def loop_and_table(net: Odd, x: Tensor) -> Tensor:
    step = 0
    while step < 3 and x.shape[0]:
        x = {"even": torch.tanh, "odd": F.silu}["even" if step % 2 == 0 else "odd"](x)
        step += 1
    return net.conv(x) if x.shape[-1] > 4 else x


def branch_on_a_value(net: Odd, x: Tensor) -> Tensor:
    return net.conv(x) if x.mean().item() > -1e9 else net.other(x)


def through_numpy(net: Odd, x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy() * 2)


# --- integers in the code ------------------------------------------------------------------------------------------------


def literal_slices(net: Odd, x: Tensor) -> Tensor:
    return torch.cat([x[:, 4:], x[:, :4] * 2], 1)


def literal_reshape(net: Odd, x: Tensor) -> Tensor:
    return x.reshape(-1, 4, 4, 8, 8).sum(1)


def attribute_reshape(net: Odd, x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    x = x.reshape(n, net.parts, net.each, h, w)
    return (x * net.gate.view(1, net.parts, 1, 1, 1)).reshape(n, net.parts * net.each, h, w)


def shuffle_channels(net: Odd, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def groups_by_attribute(net: Odd, x: Tensor) -> Tensor:
    return F.conv2d(x, net.weight, groups=net.how_many)


# --- moving channels about -----------------------------------------------------------------------------------------------


def unfolded(net: Odd, x: Tensor) -> Tensor:
    patches = F.unfold(x, 3, padding=1)  # (N, 16 * 9, 64)
    return (net.matrix @ patches).view(x.shape[0], -1, 8, 8)


def scattered(net: Odd, x: Tensor) -> Tensor:
    index = net.order.view(1, -1, 1, 1).expand(x.shape[0], -1, 8, 8)
    return torch.zeros_like(x).scatter(1, index, x)


def index_put(net: Odd, x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, net.order] = x
    return out


# --- mixing channels -----------------------------------------------------------------------------------------------------


def cosine(net: Odd, x: Tensor) -> Tensor:
    return F.cosine_similarity(x, net.conv(x), dim=1).unsqueeze(1)


def outer(net: Odd, x: Tensor) -> Tensor:
    a, b = x.mean((2, 3)), net.small(x).mean((2, 3))  # (N, 16), (N, 4)
    return torch.einsum("ni,nj->nij", a, b).flatten(1)[..., None, None]


def gram(net: Odd, x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return (flat @ flat.transpose(1, 2)).sum(1)[..., None, None]


def self_attention_over_places(net: Odd, x: Tensor) -> Tensor:
    flat = x.flatten(2).transpose(1, 2)  # (N, 64, 16)
    return F.scaled_dot_product_attention(flat, flat, flat).transpose(1, 2).view_as(x)


def divided_by_width(net: Odd, x: Tensor) -> Tensor:
    return x / math.sqrt(x.shape[1])


def fourier(net: Odd, x: Tensor) -> Tensor:
    return torch.fft.fft(x, dim=1).real


def normed_by_hand(net: Odd, x: Tensor) -> Tensor:
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt() * net.scale


def gated(net: Odd, x: Tensor) -> Tensor:
    value, gate = net.wide(x).chunk(2, 1)
    return value * torch.sigmoid(gate)


def conv(inputs: int = 16, outputs: int = 16, kernel: int = 3, **more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"conv": nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)}


def module(make: Callable[[], nn.Module]) -> tuple[Callable[[Odd, Tensor], Tensor], Callable[[], dict[str, Any]]]:
    """A middle that is one layer."""
    return lambda net, x: net.layer(x), lambda: {"layer": make()}


def layer_case(name: str, expected: str, make: Callable[[], nn.Module], reads: int = 16) -> Middle:
    middle, parts = module(make)
    return Middle(name, middle, expected, parts, reads)


ORDER = torch.tensor([3, 0, 2, 1, 7, 6, 5, 4, 15, 8, 9, 10, 14, 13, 12, 11])
PAIR: Callable[[], dict[str, Any]] = lambda: {"conv": nn.Conv2d(16, 16, 3, padding=1), "other": nn.Conv2d(16, 16, 1)}  # noqa: E731


def scale_and_shift() -> dict[str, Any]:
    return {"scale": vector(1, 16, 1, 1), "shift": vector(1, 16, 1, 1)}


CASES = [
    Middle("nothing", lambda net, x: x, PRUNED),
    # the same tensor under several names
    Middle("in_place", in_place, PRUNED, PAIR),
    Middle("in_place_on_a_slice", in_place_on_a_slice, EITHER, lambda: {"other": nn.Conv2d(16, 8, 1)}),
    Middle("write_through_a_view", write_through_a_view, EITHER),
    Middle("into_zeros", into_zeros, EITHER, PAIR, 32),
    Middle("into_zeros_by_shape", into_zeros_by_shape, EITHER, PAIR, 32),
    Middle("views_of_views", views_of_views, EITHER, reads=8),
    Middle("shared_module", shared_module, PRUNED, conv()),
    Middle("module_called_on_two", module_called_on_two, PRUNED, conv()),
    Middle("shared_weight", shared_weight, PRUNED, lambda: {"conv": nn.Conv2d(16, 16, 1), "other": nn.Conv2d(16, 16, 1)}),
    Middle("tied_transposed", tied_transposed, PRUNED, lambda: {"matrix": vector(12, 16)}),
    # parameters and code outside layers
    Middle("scaled_by_parameter", scaled_by_parameter, PRUNED, scale_and_shift),
    Middle("parameter_list", parameter_list, PRUNED, lambda: {"matrices": nn.ParameterList([vector(12, 16), vector(16, 12)])}),
    Middle("functional_convolution", functional_convolution, PRUNED, lambda: {**scale_and_shift(), "weight": vector(16, 16, 3, 3)}),
    Middle("functional_batch_norm", functional_batch_norm, PRUNED, lambda: {**scale_and_shift(), "mean": torch.randn(16), "variance": torch.rand(16) + 0.5}),
    Middle("buffer_added", buffer_added, PRUNED, lambda: {"places": torch.randn(1, 16, 1, 1)}),
    Middle("loop_and_table", loop_and_table, PRUNED, conv()),
    Middle("branch_on_a_value", branch_on_a_value, EITHER, PAIR),
    Middle("autograd_function", lambda net, x: Doubled.apply(x), PRUNED),
    Middle("checkpointed", lambda net, x: checkpoint(net.conv, x, use_reentrant=False), PRUNED, conv()),
    Middle("through_numpy", through_numpy, EITHER),
    Middle("detached", lambda net, x: x.detach() * 2 + x, PRUNED),
    # integers in the code
    Middle("literal_slices", literal_slices, EITHER),
    Middle("literal_split", lambda net, x: torch.cat([part * 2 for part in x.split([4, 12], 1)], 1), EITHER),
    Middle("literal_reshape", literal_reshape, EITHER, reads=4),
    Middle("attribute_reshape", attribute_reshape, PRUNED, lambda: {"parts": 4, "each": 4, "gate": vector(4)}),
    Middle("attribute_split", lambda net, x: torch.cat([a * 2 for a in x.split(net.cuts, 1)], 1), EITHER, lambda: {"cuts": [4, 12]}),
    Middle("shuffle", shuffle_channels, PRUNED),
    Middle("groups_by_attribute", groups_by_attribute, EITHER, lambda: {"weight": vector(16, 4, 1, 1), "how_many": 4}),
    # moving channels about
    Middle("chunk_and_swap", lambda net, x: torch.cat(x.chunk(2, 1)[::-1], 1), PRUNED),
    Middle("index_select", lambda net, x: x.index_select(1, net.order), EITHER, lambda: {"order": ORDER.clone()}),
    Middle("fancy_index", lambda net, x: x[:, net.order], EITHER, lambda: {"order": ORDER.clone()}),
    Middle("every_second", lambda net, x: x[:, ::2], EITHER, reads=8),
    Middle("scattered", scattered, EITHER, lambda: {"order": ORDER.clone()}),
    Middle("index_put", index_put, EITHER, lambda: {"order": ORDER.clone()}),
    Middle("rolled", lambda net, x: x.roll(1, 1), EITHER),
    Middle("flipped", lambda net, x: x.flip(1), EITHER),
    Middle("pixel_shuffle", lambda net, x: F.pixel_shuffle(x, 2), EITHER, reads=4),
    Middle("pixel_unshuffle", lambda net, x: F.pixel_unshuffle(x, 2), PRUNED, reads=64),
    Middle("padded_channels", lambda net, x: F.pad(x, (0, 0, 0, 0, 4, 4)), EITHER, reads=24),
    Middle("repeated", lambda net, x: x.repeat(1, 2, 1, 1), PRUNED, reads=32),
    Middle("repeat_interleaved", lambda net, x: x.repeat_interleave(2, 1), PRUNED, reads=32),
    Middle("stacked", lambda net, x: torch.stack([x, x * 2], 2).flatten(1, 2), PRUNED, reads=32),
    Middle("unbound", lambda net, x: torch.stack(x.unbind(1)[::-1], 1), EITHER),
    Middle("unfolded", unfolded, PRUNED, lambda: {"matrix": vector(16, 144)}),
    Middle("concatenated_in_space", lambda net, x: torch.cat([x, net.conv(x)], 2), PRUNED, conv()),
    Middle("expanded", lambda net, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8) + x, PRUNED),
    # layers
    layer_case("grouped", PRUNED, lambda: nn.Conv2d(16, 16, 3, padding=1, groups=4)),
    layer_case("depthwise", PRUNED, lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16)),
    layer_case("depthwise_multiplied", PRUNED, lambda: nn.Conv2d(16, 32, 3, padding=1, groups=16), 32),
    layer_case("transposed", PRUNED, lambda: nn.ConvTranspose2d(16, 12, 2, 2), 12),
    layer_case("transposed_grouped", PRUNED, lambda: nn.ConvTranspose2d(16, 8, 2, 2, groups=4), 8),
    layer_case("prelu", PRUNED, lambda: nn.PReLU(16)),
    layer_case("instance_norm", PRUNED, lambda: nn.InstanceNorm2d(16, affine=True)),
    layer_case("instance_norm_tracked", PRUNED, lambda: nn.InstanceNorm2d(16, affine=True, track_running_stats=True)),
    layer_case("batch_norm_plain", PRUNED, lambda: nn.BatchNorm2d(16, affine=False)),
    layer_case("batch_norm_untracked", PRUNED, lambda: nn.BatchNorm2d(16, track_running_stats=False)),
    layer_case("group_norm", EITHER, lambda: nn.GroupNorm(4, 16)),
    layer_case("local_response_norm", EITHER, lambda: nn.LocalResponseNorm(3)),
    layer_case("weight_norm", EITHER, lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))),
    layer_case("spectral_norm", EITHER, lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(16, 16, 1))),
    layer_case("dropout", PRUNED, lambda: nn.Dropout2d(0.5)),
    layer_case("upsampled", PRUNED, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    layer_case("reflected", PRUNED, lambda: nn.ReflectionPad2d(1)),
    # mixing channels
    Middle("summed", lambda net, x: x.sum(1, keepdim=True), PRUNED, reads=1),
    Middle("averaged", lambda net, x: x.mean(1, keepdim=True), EITHER, reads=1),
    Middle("largest", lambda net, x: x.amax(1, keepdim=True), EITHER, reads=1),
    Middle("smallest", lambda net, x: net.conv(x).amin(1, keepdim=True), EITHER, conv(), 1),
    Middle("softmax", lambda net, x: x.softmax(1), EITHER),
    Middle("argmax", lambda net, x: x * (x.argmax(1, keepdim=True) == 2), EITHER),
    Middle("sorted", lambda net, x: x.sort(1).values, EITHER),
    Middle("top_half", lambda net, x: x.topk(8, 1).values, EITHER, reads=8),
    Middle("cumulated", lambda net, x: x.cumsum(1), EITHER),
    Middle("normalised", lambda net, x: F.normalize(x, dim=1), EITHER),
    Middle("cosine_similarity", cosine, EITHER, conv(), 1),
    Middle("outer_product", outer, EITHER, lambda: {"small": nn.Conv2d(16, 4, 1)}, 64),
    Middle("gram_matrix", gram, EITHER),
    Middle("einsum", lambda net, x: torch.einsum("nchw,dc->ndhw", x, net.matrix), PRUNED, lambda: {"matrix": vector(16, 16)}),
    Middle("attention_over_places", self_attention_over_places, EITHER),
    Middle("divided_by_width", divided_by_width, EITHER),
    Middle("fourier", fourier, EITHER),
    Middle("normed_by_hand", normed_by_hand, EITHER, lambda: {"scale": vector(1, 16, 1, 1)}),
    Middle("gated", gated, PRUNED, lambda: {"wide": nn.Conv2d(16, 32, 1)}),
    # values that a channel of zeros does not keep
    Middle("sigmoid", lambda net, x: torch.sigmoid(x), PRUNED),
    Middle("plus_one", lambda net, x: x + 1, PRUNED),
    Middle("exponential", lambda net, x: torch.exp(-x), PRUNED),
    Middle("ones_like", lambda net, x: torch.ones_like(x) - x, PRUNED),
    Middle("logarithm", lambda net, x: (x + 1e-3).log(), EITHER),
    Middle("reciprocal", lambda net, x: 1 / (net.conv(x).abs() + 0.1), EITHER, conv()),
    Middle("ratio_of_channels", lambda net, x: x / (net.conv(x).exp()), EITHER, conv()),
    Middle("compared", lambda net, x: (x > net.conv(x)).to(x.dtype) * x, PRUNED, conv()),
    Middle("where", lambda net, x: torch.where(x > 0.5, x, net.conv(x)), PRUNED, conv()),
    Middle("sigmoid_then_padded", lambda net, x: net.conv(torch.sigmoid(x)), EITHER, conv()),
    Middle("noise_of_fixed_seed", lambda net, x: x * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), EITHER),
]  # fmt: skip
