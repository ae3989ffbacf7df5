"""What the channels of a layer carry: one number an example and channel, watched with hooks during a forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prunelab.targets import Target


@dataclass(frozen=True)
class Activations:
    """The activations of one layer over a data set, in eval mode.

    Attributes:
        inputs: (examples, I), what each input channel carried: its mean over an example's positions (the pixels of a
            convolution, the tokens of a sequence) and over the calls of a layer that runs several times in a forward.
        outputs: (examples, O), likewise for the output channels, before whatever follows the layer.
        targets: the targets of the same examples, in the same order: tensors joined along the first dimension where
            their other dimensions agree, else a list with one entry a batch.
    """

    inputs: Tensor
    outputs: Tensor
    targets: Any


@dataclass
class _Layer:
    """What one layer's hooks have seen: per batch, the sums over its calls, and how many calls there were."""

    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)


class Watch:
    """Collects the activations of layers while it is entered; `batch` starts each batch of the data."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._targets: list[Any] = []
        self._fresh: set[str] = set()
        self._examples = 0

    def batch(self, targets: Any, examples: int) -> None:
        """The forward that follows is of a new batch with these targets and so many examples."""
        self._targets.append(targets)
        self._examples = examples
        self._fresh = set(self._layers)

    def see(self, name: str, module: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        layer = self._layers[name]
        seen = _per_example(module, inputs), _per_example(module, outputs)
        if any(len(one) != self._examples for one in seen):
            raise ValueError(
                f"the layer of {name!r} saw {len(seen[0])} rows where the batch has {self._examples} examples, so it "
                "is not known which row belongs to which; leave it out with parameters=[...]"
            )
        if name in self._fresh:
            self._fresh.remove(name)
            layer.batches.append(seen)
            layer.calls.append(1)
        else:
            first = layer.batches[-1]
            layer.batches[-1] = first[0] + seen[0], first[1] + seen[1]
            layer.calls[-1] += 1

    @contextmanager
    def on(self, targets: Sequence[Target]) -> Iterator[Watch]:
        """Watch the layers of these parameters; the hooks are gone afterwards, also where the model raised."""
        handles = []
        try:
            for target in targets:
                if not target.modules:
                    raise ValueError(
                        f"{target.name!r} belongs to no Linear or convolution module, so its activations are not "
                        "known; leave it out with parameters=[...]"
                    )
                self._layers[target.name] = _Layer()
                hook = self._hook(target.name)
                handles += [module.register_forward_hook(hook, with_kwargs=True) for module in target.modules]
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            self.see(name, module, (arguments[0] if arguments else named["input"]).detach(), output.detach())

        return hook

    def activations(self) -> Mapping[str, Activations]:
        """What was seen, by parameter name. Raises ValueError for a layer that did not run with every batch."""
        targets = self._targets
        joined: Any = targets
        if targets and all(isinstance(t, Tensor) and t.dim() and t.shape[1:] == targets[0].shape[1:] for t in targets):
            joined = torch.cat(targets)
        found = {}
        for name, layer in self._layers.items():
            if len(layer.batches) != len(targets):
                raise ValueError(
                    f"the layer of {name!r} did not run in every forward (it is skipped, or its weight is read without "
                    "calling it), so its activations are not known; leave it out with parameters=[...]"
                )
            means = [(a / n, b / n) for (a, b), n in zip(layer.batches, layer.calls, strict=True)]
            found[name] = Activations(torch.cat([a for a, _ in means]), torch.cat([b for _, b in means]), joined)
        return found


def _per_example(module: nn.Module, values: Tensor) -> Tensor:
    """(examples, channels): the mean over all positions, in at least float32."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if isinstance(module, _ConvNd):  # (N, C, *positions), or (C, *positions) for one example
        if values.dim() == module.weight.dim() - 1:
            values = values[None]
        return values.flatten(2).mean(2)
    if values.dim() == 1:  # Linear: (N, *positions, C), or (C,) for one example
        values = values[None]
    return values.reshape(values.shape[0], -1, values.shape[-1]).mean(1)
