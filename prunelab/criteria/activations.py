"""What the channels of a layer carry: one number an example and channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.watching import Call, Probe, by_example


@dataclass(frozen=True)
class Activations:
    """The activations of one layer over a data set, in eval mode.

    Attributes:
        inputs: (examples, I), what each input channel carried: its mean over an example's positions (the pixels of a
            convolution, the tokens of a sequence) and over the calls of a layer that runs several times in a forward.
        outputs: (examples, O), likewise for the output channels, before whatever follows the layer.
        activated: (examples, O), likewise after the batch normalisation and the activation function that are applied
            directly to the outputs; the same as `outputs` where none is.
        targets: the targets of the same examples, in the same order: tensors joined along the first dimension where
            their other dimensions agree, else a list with one entry a batch.
    """

    inputs: Tensor
    outputs: Tensor
    activated: Tensor
    targets: Any


class ChannelMeans(Probe):
    """The mean of every channel over the positions of every example, or its maximum: makes `Activations`."""

    def __init__(self, pool: str = "mean") -> None:
        self._pool = pool
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def read(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return self._pooled(by_example(module, inputs))

    def emit(self, module: nn.Module, outputs: Tensor) -> Tensor:
        return self._pooled(by_example(module, outputs))

    def _pooled(self, values: Tensor) -> Tensor:
        return values.amax(2) if self._pool == "max" else values.mean(2)

    def add(self, calls: Sequence[Call], examples: int) -> None:
        seen = [(call.read, call.emitted[0], call.emitted[-1]) for call in calls]
        check_rows([tensor for call in seen for tensor in call], examples)
        inputs, outputs, activated = (torch.stack(parts).mean(0) for parts in zip(*seen, strict=True))
        self._batches.append((inputs, outputs, activated))

    def result(self, labels: Any) -> Activations:
        inputs, outputs, activated = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        return Activations(inputs, outputs, activated, labels)


def check_rows(values: Sequence[Tensor], examples: int) -> None:
    """Raises ValueError where a layer does not see the examples one by one."""
    for one in values:
        if len(one) != examples:
            raise ValueError(
                f"saw {len(one)} rows where the batch has {examples} examples, so it is not known which row "
                "belongs to which; leave it out with exclude=[...]"
            )
