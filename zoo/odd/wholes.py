"""Networks that are unusual as a whole: what they return, when their layers run, how their parameters are held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architecture import Architecture, Inputs, images, numbers

IMAGES = images(8)


@dataclass
class Result:
    logits: Tensor
    features: dict[str, Tensor]


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Base(nn.Module):
    """Two convolutions and a linear layer; subclasses change one thing."""

    def __init__(self, *, bias: bool = True, channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1, bias=bias)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.head = nn.Linear(channels, 5, bias=bias)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x).mean((2, 3)))


class ManyOutputs(Base):
    """Logits and, nested in what `wrap` makes, the channels themselves, which therefore cannot go."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        out = self.features(x)
        return self.wrap(self.head(out.mean((2, 3))), out)


class TrainingOnly(Base):
    """A layer on the same channels that only runs in training mode, and one that only runs in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary, self.scale = nn.Conv2d(16, 5, 1), nn.Conv2d(16, 16, 1, groups=16)

    def forward(self, x: Tensor) -> Any:
        out = self.features(x)
        if self.training:
            return self.head(out.mean((2, 3))), self.auxiliary(out).mean((2, 3))
        return self.head(self.scale(out).mean((2, 3)))


class Unused(Base):
    """Has layers that no forward calls."""

    def __init__(self) -> None:
        super().__init__()
        self.spare, self.matrix = nn.Conv2d(16, 16, 3), nn.Parameter(torch.zeros(16, 16))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder transposed, with a layer of the same weight beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.middle, self.twin = nn.Linear(20, 16), nn.Linear(16, 16), nn.Linear(20, 16)
        self.twin.weight = self.encoder.weight
        self.shift = nn.Parameter(torch.zeros(20))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.encoder(x)) + F.relu(self.twin(x.flip(1)))
        hidden = F.relu(self.middle(F.relu(self.middle(hidden))))
        return F.linear(hidden, self.encoder.weight.t(), self.shift)


class Siamese(Base):
    """Two images through the same network; the distance of their features."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        a, b = (self.features(image).mean((2, 3)) for image in (x, other))
        return torch.cat([self.head((a - b).abs()), self.head(a * b)], 1)


class Keywords(Base):
    """Arguments by name; an optional one that is used when it is given."""

    def forward(self, *, image: Tensor, gate: Tensor | None = None) -> dict[str, Tensor]:
        out = self.features(image)
        return {"logits": self.head((out if gate is None else out * gate).mean((2, 3)))}


class Flattened(nn.Module):
    """Channels and places become features of a linear layer; a second linear layer reads the first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(F.relu(self.conv(x)).view(x.shape[0], -1))))


class Volumes(nn.Module):
    """One- and three-dimensional convolutions, and a reshape from one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(3, 16, 3, padding=1)
        self.volume, self.norm, self.head = nn.Conv3d(16, 12, 3, padding=1), nn.BatchNorm3d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.line(x.flatten(2))).unflatten(2, (4, 4, 4))
        return self.head(F.relu(self.norm(self.volume(x))).mean((2, 3, 4)))


class Cells(nn.Module):
    """A loop over an LSTM cell and a GRU cell, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.head = nn.LSTMCell(6, 12), nn.GRUCell(12, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 12)
        g = x.new_zeros(x.shape[0], 10)
        for step in x.unbind(1):
            h, c = self.lstm(step, (h, c))
            g = self.gru(h, g)
        return self.head(g)


class CrossAttention(nn.Module):
    """nn.MultiheadAttention with keys and values of other widths, its weights returned too."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, kdim=6, vdim=6, batch_first=True)
        self.query, self.head = nn.Linear(6, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, weights = self.attention(self.query(x), x, x)
        return self.head(out), weights


class WidthFromInputs(nn.Module):
    """Attention whose code gives its output the width of its input: with fewer heads it does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out, self.heads = nn.Linear(6, 16), nn.Linear(16, 48), nn.Linear(16, 5), 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, length, width = x.shape
        q, k, v = (a.view(n, length, self.heads, -1).transpose(1, 2) for a in self.qkv(x).chunk(3, -1))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(out.reshape(n, length, width))


class Lists(nn.Module):
    """Layers in a dict and a list, chosen by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict({"relu": nn.Linear(6, 16), "tanh": nn.Linear(6, 16)})
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = sum(getattr(torch, name)(layer(x)) for name, layer in self.by_name.items())
        for layer in self.layers:
            x = x + F.relu(layer(x))
        return self.head(x)


class Hooked(Base):
    """A forward hook of its own doubles what the first layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first.register_forward_hook(lambda module, inputs, output: 2 * output)


class Counting(Base):
    """Counts its calls in a buffer and in an attribute, and remembers its last features."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.times, self.last = 0, None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.times += 1
        out = self.features(x)
        self.last = out.detach()
        return self.head(out.mean((2, 3)))


class WithoutGradient(Base):
    """The first layer is run without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = F.relu(self.first(x))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class Bilinear(nn.Module):
    """nn.Bilinear between two hidden layers, and an embedding bag."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.both, self.head = (
            nn.Linear(6, 12),
            nn.Linear(6, 8),
            nn.Bilinear(12, 8, 10),
            nn.Linear(10, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.both(F.relu(self.a(x)), F.relu(self.b(x)))))


def two_images(batch: int) -> Inputs:
    return torch.randn(batch, 3, 8, 8), torch.randn(batch, 3, 8, 8)


def by_name(batch: int) -> Inputs:
    return {"image": torch.randn(batch, 3, 8, 8), "gate": torch.rand(batch, 1, 8, 8)}


@dataclass(frozen=True)
class Whole:
    """A network, its inputs, and the names of weights of which channels must have gone (none: nothing can go)."""

    name: str
    build: Callable[[], nn.Module]
    smaller: tuple[str, ...]
    inputs: Callable[[int], Inputs] = IMAGES

    def architecture(self) -> Architecture:
        return Architecture(f"odd_{self.name}", __name__, self.build, self.inputs)


CASES = [
    Whole("plain", Base, ("first.weight", "second.weight", "head.weight")),
    Whole("no_bias", lambda: Base(bias=False), ("first.weight", "second.weight", "head.weight")),
    Whole("one_channel", lambda: Base(channels=1), ()),
    Whole("outputs_tuple", lambda: ManyOutputs(lambda a, b: (a, (b,))), ("first.weight",)),
    Whole("outputs_list", lambda: ManyOutputs(lambda a, b: [a, [b]]), ("first.weight",)),
    Whole("outputs_named_tuple", lambda: ManyOutputs(Pair), ("first.weight",)),
    Whole("outputs_dict", lambda: ManyOutputs(lambda a, b: {"logits": a, "inner": {"features": b}}), ("first.weight",)),
    Whole("outputs_dataclass", lambda: ManyOutputs(lambda a, b: Result(a, {"last": b})), ("first.weight",)),
    Whole("training_only", TrainingOnly, ("first.weight", "second.weight", "auxiliary.weight", "scale.weight")),
    Whole("unused_layers", Unused, ("first.weight", "second.weight")),
    Whole("tied", Tied, ("encoder.weight", "middle.weight"), numbers(20)),
    Whole("siamese", Siamese, ("first.weight", "second.weight"), two_images),
    Whole("keywords", Keywords, ("first.weight", "second.weight"), by_name),
    Whole("flattened", Flattened, ("conv.weight", "hidden.weight")),
    Whole("volumes", Volumes, ("line.weight", "volume.weight"), numbers(3, 8, 8)),
    Whole("cells", Cells, (), numbers(4, 6)),
    Whole("cross_attention", CrossAttention, (), numbers(4, 6)),
    Whole("width_from_inputs", WidthFromInputs, (), numbers(4, 6)),
    Whole("lists", Lists, ("by_name.relu.weight", "layers.2.weight"), numbers(6)),
    Whole("hooked", Hooked, ("first.weight", "second.weight")),
    Whole("counting", Counting, ("first.weight",)),
    Whole("without_gradient", WithoutGradient, ("first.weight", "second.weight")),
    Whole("bilinear", Bilinear, ("both.weight",), numbers(6)),
]
