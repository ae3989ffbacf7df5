"""What the zoo knows about an architecture: how to build it, what to feed it, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.trace import call_arguments

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """`build()` gives the model with its library's initial weights, `inputs(batch)` random example inputs for it.

    `batch_normalised` marks the convolutional networks whose norms are all BatchNorms: the ones held to what
    Torch-Pruning removes.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    batch_normalised: bool = False

    def model(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, with every parameter and statistic drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build()
            randomise(model)
            calibrate(model.eval(), self.inputs(4))
        return model

    def example(self, seed: int, batch: int = 2) -> Inputs:
        """Example inputs drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.inputs(batch)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's outputs for example inputs, as `shrink` and `report` take them."""
    positional, named = call_arguments(inputs, None)
    return model(*positional, **named)


def images(size: int = 64, channels: int = 3) -> Callable[[int], Tensor]:
    """Normal random images (batch, channels, size, size)."""
    return lambda batch: torch.randn(batch, channels, size, size)


def numbers(*shape: int) -> Callable[[int], Tensor]:
    """Normal random numbers (batch, *shape)."""
    return lambda batch: torch.randn(batch, *shape)


def tokens(vocabulary: int, length: int = 12) -> Callable[[int], Tensor]:
    """Random token numbers (batch, length)."""
    return lambda batch: torch.randint(vocabulary, (batch, length))


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Draw every parameter, so that nothing is 0 or 1 by its initialisation.

    Matrices keep the size of what flows through them, scales (vectors that start as a constant other than 0) lie in
    [0.5, 1.5], biases are small. A fresh network hides mistakes: with biases 0 a removed channel leaves no
    constant behind, and with a layer scale of 1e-6 a whole branch does not matter.
    """
    for parameter in {id(p): p for p in model.parameters()}.values():
        if parameter.dim() >= 2 and parameter.numel() > parameter.shape[0] > 1 and not _scale_like(parameter):
            gain = 2.0 if parameter.dim() == 4 else 1.0  # a convolution is mostly followed by a rectifier
            parameter.normal_(0, (gain / (parameter.numel() / parameter.shape[0])) ** 0.5)
        elif _scale_like(parameter):
            parameter.uniform_(0.5, 1.5)
        elif parameter.dim():
            parameter.normal_(0, 0.2)


@torch.no_grad()
def calibrate(model: nn.Module, inputs: Inputs) -> None:
    """Give each BatchNorm the statistics of what it sees, up to chance: else deep networks forget their inputs."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    call(model, inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        variance.clamp_(min=0.1 * float(variance.mean())).mul_(torch.empty_like(variance).uniform_(0.5, 2))
        mean.add_(0.3 * variance.sqrt() * torch.randn_like(mean))
        norm.num_batches_tracked.zero_()


def _scale_like(parameter: Tensor) -> bool:
    first = parameter.flatten()[:1]
    return parameter.dim() > 0 and bool(first != 0) and bool((parameter == first).all())
