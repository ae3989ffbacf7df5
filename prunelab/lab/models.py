"""Small networks of the pruning papers, for small images, each readable from input to output.

Every maker takes `seed`: with a number the initial weights are reproducible and torch's global random state is left
alone; with None they are drawn from the global state, as torch does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lenet_300_100(inputs: int = 784, classes: int = 10, *, seed: int | None = None) -> nn.Sequential:
    """LeNet-300-100: two hidden layers of 300 and 100 units (LeCun et al. 1998); 266,610 parameters on 28 × 28 images.

    Takes (N, ...) with `inputs` numbers an example (64 for 8 × 8 digits), gives logits (N, classes).
    """
    _positive(inputs=inputs, classes=classes)
    with _initialised(seed):
        return nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                fc1=nn.Linear(inputs, 300),
                relu1=nn.ReLU(),
                fc2=nn.Linear(300, 100),
                relu2=nn.ReLU(),
                fc3=nn.Linear(100, classes),
            )
        )


def lenet5(size: int = 28, channels: int = 1, classes: int = 10, *, seed: int | None = None) -> nn.Sequential:
    """The LeNet-5 of the pruning papers (20 and 50 filters, then 500 units); 431,080 parameters on 28 × 28 images.

    This is Caffe's variant, the "431K" of Han et al. (2015) and after, not the 60K network of 1998. On 8 × 8 images two
    5 × 5 convolutions leave nothing to look at, so there they are 3 × 3 with padding 1: 114,760 parameters.

    Takes (N, channels, size, size), gives logits (N, classes).
    """
    _positive(channels=channels, classes=classes)
    if size not in {8, 28}:
        raise ValueError(f"size={size!r}: lenet5 is made for 28 x 28 and 8 x 8 images; vgg and resnet20 take others")
    kernel, padding, side = (5, 0, 4) if size == 28 else (3, 1, 2)  # side: of the last feature map
    with _initialised(seed):
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 20, kernel, padding=padding),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(20, 50, kernel, padding=padding),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(50 * side * side, 500),
                relu3=nn.ReLU(),
                fc2=nn.Linear(500, classes),
            )
        )


def vgg(channels: int = 1, classes: int = 10, *, width: float = 1.0, seed: int | None = None) -> nn.Sequential:
    """A VGG-like network with BatchNorm: three blocks of two 3 × 3 convolutions (64, 128, 256 filters), each pooled.

    After Simonyan and Zisserman (2015), with global average pooling for the three large linear layers, so it takes
    images (N, channels, H, W) of any H, W >= 8. `width` multiplies the filter counts. With 1 channel and width 1 it has
    1,147,722 parameters.
    """
    _positive(channels=channels, classes=classes, width=width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with _initialised(seed):
        for block, filters in enumerate(_scaled((64, 128, 256), width), start=1):
            for half in ("a", "b"):
                layers[f"conv{block}{half}"] = _conv3x3(channels, filters)
                layers[f"bn{block}{half}"] = nn.BatchNorm2d(filters)
                layers[f"relu{block}{half}"] = nn.ReLU()
                channels = filters
            layers[f"pool{block}"] = nn.MaxPool2d(2)
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions around which the input is carried and added: relu(F(x) + shortcut(x)) (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, projection: bool = False) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.widen = stride, outputs - inputs
        self.shortcut: nn.Sequential | None = None
        if projection and (stride != 1 or self.widen):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self._carried(x))

    def _carried(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            return self.shortcut(x)
        if self.stride == 1 and not self.widen:
            return x
        # Option A: take every second pixel and let the new channels be zero. No parameters.
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.widen))


class ResNet(nn.Module):
    """A stem, three stages of three basic blocks, global average pooling and a linear layer."""

    def __init__(self, channels: int, classes: int, widths: list[int], *, projection: bool) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        previous = widths[0]
        for stage, filters in enumerate(widths):
            for index in range(3):
                stride = 2 if stage and not index else 1  # the first block of stages 2 and 3 halves the image
                blocks.append(BasicBlock(previous, filters, stride=stride, projection=projection))
                previous = filters
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(previous, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.blocks(x)
        return self.fc(x.mean(dim=(2, 3)))


def resnet20(
    channels: int = 1, classes: int = 10, *, width: float = 1.0, projection: bool = False, seed: int | None = None
) -> ResNet:
    """ResNet-20 for small images (He et al. 2016, §4.2): stages of 16, 32 and 64 filters, 20 weighted layers.

    Takes (N, channels, H, W) of any H, W >= 4. `width` multiplies the filter counts. Shortcuts that change the shape
    have no parameters, as in the paper's CIFAR networks (option A): 269,722 parameters with 3 channels and 10 classes,
    269,434 with 1 channel. `projection=True` makes them 1 × 1 convolutions with BatchNorm (option B): 272,474 and
    272,186, the count that is often quoted. Convolutions start from He's normal initialisation (fan-out).
    """
    _positive(channels=channels, classes=classes, width=width)
    with _initialised(seed):
        model = ResNet(channels, classes, _scaled((16, 32, 64), width), projection=projection)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    # No bias: the BatchNorm that follows subtracts it again.
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def _scaled(filters: tuple[int, ...], width: float) -> list[int]:
    return [max(1, round(count * width)) for count in filters]


def _positive(**values: float) -> None:
    for name, value in values.items():
        kinds = (int, float) if name == "width" else int
        if isinstance(value, bool) or not isinstance(value, kinds):
            expected = "number" if name == "width" else "int"
            raise TypeError(f"{name}={value!r} is a {type(value).__name__}; give a positive {expected}")
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}={value!r} must be positive and finite")


@contextmanager
def _initialised(seed: int | None) -> Iterator[None]:
    """Draw initial weights from `seed` inside the context; the global random state comes out as it went in."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would also reseed the GPUs' generators, which are not restored here.
        torch.random.default_generator.manual_seed(seed)
        yield
