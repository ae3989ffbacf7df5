"""Convolutional networks of the kinds that differ in how their channels hang together, small and in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def layer(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and BatchNorm; the image keeps its size unless `stride` divides it."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 with a shortcut (He et al. 2016); with groups > 1 that of ResNeXt (Xie et al. 2017)."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.first, self.last = layer(inputs, width), layer(width, outputs)
        self.middle = layer(width, width, 3, stride, groups)
        changes = stride > 1 or inputs != outputs
        self.shortcut = layer(inputs, outputs, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.middle(F.relu(self.first(x))), inplace=True)
        out = self.last(out)
        out += self.shortcut(x)
        return F.relu(out)


def bottleneck_net(groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        layer(3, 16, 3), nn.ReLU(),
        Bottleneck(16, 16, 32, groups=groups), Bottleneck(32, 16, 32, groups=groups),
        Bottleneck(32, 32, 64, 2, groups), Bottleneck(64, 32, 64, groups=groups),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


class DenseNet(nn.Module):
    """Every layer reads all before it, concatenated (Huang et al. 2017): norm, rectifier, convolution."""

    def __init__(self, growth: int = 8, layers: int = 3) -> None:
        super().__init__()
        width = 16
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(2):
            self.blocks.append(nn.Sequential(*(self.dense_layer(width + i * growth, growth) for i in range(layers))))
            width += layers * growth
            halved = nn.Conv2d(width, width // 2, 1)
            self.transitions.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), halved, nn.AvgPool2d(2)))
            width //= 2
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, 10)

    @staticmethod
    def dense_layer(inputs: int, growth: int) -> nn.Sequential:
        return nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth), nn.ReLU(inplace=True), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            features = [x]
            for dense in block.children():
                features.append(dense(torch.cat(features, 1)))
            x = transition(torch.cat(features, 1))
        return self.head(F.relu(self.norm(x)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Each channel times a gate computed from all channel means (Hu et al. 2018)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """Widen, depthwise, gate, narrow (Howard et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            layer(inputs, wide), nn.Hardswish(inplace=True), layer(wide, wide, 3, stride, groups=wide),
            SqueezeExcite(wide, 8), nn.Hardswish(inplace=True), layer(wide, outputs),
        )  # fmt: skip
        self.carried = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.carried else self.body(x)


def mobile_net() -> nn.Sequential:
    return nn.Sequential(
        layer(3, 16, 3, 2), nn.Hardswish(), InvertedResidual(16, 16, 1), InvertedResidual(16, 24, 2),
        InvertedResidual(24, 24, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Dropout(0.2), nn.Linear(24, 10),
    )  # fmt: skip


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are worked on, then the two halves are interleaved (Ma et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            layer(half, half), nn.ReLU(), layer(half, half, 3, groups=half), layer(half, half), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = x.chunk(2, dim=1)
        out = torch.cat((passed, self.body(worked)), dim=1)
        n, c, h, w = out.shape
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shuffle_net() -> nn.Sequential:
    return nn.Sequential(
        layer(3, 24, 3, 2), nn.ReLU(), ShuffleUnit(24), ShuffleUnit(24), layer(24, 48), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


class Inception(nn.Module):
    """Four branches, concatenated (Szegedy et al. 2015)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([
            nn.Sequential(layer(inputs, 8), nn.ReLU()),
            nn.Sequential(layer(inputs, 8), nn.ReLU(), layer(8, 12, 3), nn.ReLU()),
            nn.Sequential(layer(inputs, 4), nn.ReLU(), layer(4, 8, 5), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), layer(inputs, 4), nn.ReLU()),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(nn.Module):
    """Two Inception blocks and, in training only, a second head after the first; then two logits come out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, 3, 2), nn.ReLU())
        self.first, self.second = Inception(16), Inception(32)
        self.auxiliary = nn.Sequential(
            layer(32, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.first(self.stem(x))
        auxiliary = self.auxiliary(x) if self.training else None
        logits = self.head(self.second(x).mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)


class UNet(nn.Module):
    """Down, up again with transposed convolutions, each level beside its counterpart (Ronneberger et al. 2015)."""

    def __init__(self, widths: tuple[int, int, int] = (12, 24, 48)) -> None:
        super().__init__()
        a, b, c = widths
        self.down1, self.down2, self.bottom = self.pair(3, a), self.pair(a, b), self.pair(b, c)
        self.up2, self.up1 = nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)
        self.back2, self.back1 = self.pair(2 * b, b), self.pair(2 * a, a)
        self.out = nn.Conv2d(a, 2, 1)

    @staticmethod
    def pair(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(layer(inputs, outputs, 3), nn.ReLU(), layer(outputs, outputs, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        level1 = self.down1(x)
        level2 = self.down2(F.max_pool2d(level1, 2))
        x = self.bottom(F.max_pool2d(level2, 2))
        x = self.back2(torch.cat([self.up2(x), level2], 1))
        x = self.back1(torch.cat([self.up1(x), level1], 1))
        return self.out(x)


class ChannelsLastNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, MLP over the channels, a scale for each channel, shortcut (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        out = self.depthwise(x).permute(0, 2, 3, 1)
        out = self.scale * self.down(F.gelu(self.up(self.norm(out))))
        return x + out.permute(0, 3, 1, 2)


def convnext() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), ChannelsLastNorm(16), ConvNeXtBlock(16), ConvNeXtBlock(16),
        ChannelsLastNorm(16), nn.Conv2d(16, 32, 2, 2), ConvNeXtBlock(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 10),
    )  # fmt: skip


class Branching(nn.Module):
    """Takes another branch for bright images than for dark ones; both must fit what is left of the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, 3), nn.ReLU())
        self.bright, self.dark = layer(16, 24, 3), layer(16, 24, 3)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        out = self.bright(out) if x.mean() > 0 else self.dark(out)
        return self.head(F.relu(out).mean((2, 3)))
