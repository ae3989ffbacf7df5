"""A whole network, layer by layer, each with the inputs that it gets from the layers that were pruned before it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import measuring
from prunelab.curvature.layerwise.damping import warn_of_damping
from prunelab.curvature.layerwise.samples import readable
from prunelab.curvature.layerwise.settings import Method, Settings, checked
from prunelab.curvature.layerwise.solving import Covariances, check_weight, relative_error, solve
from prunelab.curvature.layerwise.walk import Walk
from prunelab.curvature.progress import Progress
from prunelab.granularity import Filter
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.targets import Target, find_targets, unwrap


@dataclass(frozen=True)
class PrunedLayer:
    """What became of one layer.

    `error` is the part of its outputs, bias aside, that it lost, ‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖², where X are its inputs once the
    layers before it were pruned; `samples` is how many these were, and `damping` what its covariance was given.
    """

    name: str
    shape: tuple[int, ...]
    sparsity: float
    error: float
    damping: float
    samples: int


@dataclass(frozen=True)
class LayerwiseResult:
    """A pruned copy of a network, the masks of its weights, and a record of each layer, in the order they were pruned.

    `masks.hold(model, optimizer)` keeps what is zero at zero while the copy is trained on.
    """

    model: nn.Module
    masks: Masks
    layers: tuple[PrunedLayer, ...]

    @property
    def errors(self) -> dict[str, float]:
        """Each layer's relative error, by the name of its weight."""
        return {layer.name: layer.error for layer in self.layers}

    def __repr__(self) -> str:
        worst = max(self.layers, key=lambda layer: layer.error)
        return (
            f"LayerwiseResult({len(self.layers)} layers, sparsity {self.masks.sparsity:.4f}, largest relative error "
            f"{worst.error:.3g} in {worst.name})"
        )


@torch.no_grad()
def prune_layerwise(
    model: nn.Module,
    batches: Iterable[Any],
    sparsity: float | None = None,
    method: Method = "sparsegpt",
    *,
    pattern: tuple[int, int] | None = None,
    damping: float | None = None,
    refit: bool = False,
    block_size: int = 128,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> LayerwiseResult:
    """Prune a network layer by layer with `prune_layer`, each as soon as all before it are pruned.

    Linear layers and convolutions, grouped ones too, wherever they are in the network; also the output projection of
    `nn.MultiheadAttention`. A layer's inputs are those that it gets in the network pruned so far. In memory are the
    covariance of one layer at a time, what one block of the network is called with, and what the finished ones put out.
    A block hands on what it computes by returning it; one that writes elsewhere than to its own tensors is run as part
    of the whole network, each time.

    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> result = prune_layerwise(model, [torch.randn(64, 8)], 0.5)
    >>> result.masks.sparsity, [layer.name for layer in result.layers]
    (0.5, ['0.weight', '2.weight'])

    Args:
        model: any module; it is not changed.
        batches: what to run it on: inputs (a tensor, a dict of keyword arguments), or pairs (inputs, targets), whose
            inputs may also be a tuple of positional arguments and whose targets are not used. They are kept in memory.
            Padding counts as samples too: put sentences of one length into a batch.
        sparsity, method, pattern, damping, refit, block_size: as for `prune_layer`, in every layer.
        parameters: names or globs of the weights to prune; by default those of all Linear and convolution modules.
        exclude: weights to leave out: names, globs, functions (name, parameter) → bool, or a list of these.
        dtype: of the covariances, float32 or float64; see `InputCovariance`.
        progress: say how far it is, on a terminal or in a notebook, where it takes more than two seconds.

    Returns:
        a `LayerwiseResult`: `.model`, a pruned copy; `.masks`; `.layers` and `.errors`.

    Raises:
        TypeError, ValueError: an argument that cannot be meant, NaN or infinite weights or inputs, a layer that does
            not run, or one of which it is not known what it reads (a transposed convolution, for example).

    Warns:
        DampingWarning: the covariances of the layers that it names are singular, so that more damping was needed.
    """
    settings = checked(sparsity, method, pattern, damping, refit, block_size)
    inputs = _inputs(batches)
    with torch.inference_mode(False):  # where it is on, copies could not be written to later
        pruned = copy.deepcopy(model)
    targets = find_targets(pruned, parameters, exclude)
    for target in targets:
        _check(target)
    layers: list[PrunedLayer] = []
    masks: dict[str, Tensor] = {}

    def prune(several: list[Target], covariances: Covariances) -> None:
        for target in several:
            layer, masks[target.name] = _prune(target, covariances, settings)
            layers.append(layer)
            bar.show(len(layers))

    with (
        torch.inference_mode(False),
        measuring(unwrap(pruned)),
        Progress(f"pruning by {method}", len(targets), progress) as bar,
    ):
        Walk(unwrap(pruned), targets, inputs, dtype).run(prune)
    damped = [layer for layer in layers if layer.damping > settings.damping]
    if damped:
        names = ", ".join(layer.name for layer in damped)
        warn_of_damping(settings.damping, max(layer.damping for layer in damped), names)
    return LayerwiseResult(pruned, Masks(masks, pruned), tuple(layers))


def _inputs(batches: Iterable[Any]) -> list[Any]:
    """The inputs of every batch, as `run` takes them."""
    if isinstance(batches, Tensor | Mapping) or not isinstance(batches, Iterable):
        raise TypeError(f"batches must be a list or loader of batches, not {type(batches).__name__}; one is [inputs]")
    inputs = []
    for batch in batches:
        if isinstance(batch, tuple | list):
            if len(batch) not in (1, 2):
                raise TypeError(
                    f"a batch is its inputs or a pair (inputs, targets), not {len(batch)} things; several positional "
                    "arguments are ((first, second, third), None)"
                )
            batch = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
        inputs.append(batch)
    if not inputs:
        raise ValueError("batches is empty: give at least one batch of inputs")
    return inputs


def _check(target: Target) -> None:
    """Raises ValueError unless it is known what the weight reads, and it is finite."""
    why = target.obstacle
    if not target.modules:
        why = "belongs to no Linear or convolution module"
    elif not all(map(readable, target.modules)):
        why = "is that of a transposed convolution"
    if why:
        raise ValueError(
            f"{target.name!r} {why}, so what it reads is not known; leave it out with exclude=[{target.name!r}]"
        )
    check_weight(target.weight.flatten(1), repr(target.name))


def _prune(target: Target, covariances: Covariances, settings: Settings) -> tuple[PrunedLayer, Tensor]:
    """Prune one layer in place: its record, and the mask of its weight."""
    rows, shape = target.view(target.weight.detach(), Filter()), target.weight.shape
    new, kept, used = solve(rows, covariances, settings)
    error = relative_error(rows, new, covariances)
    target.weight.copy_(Filter().restore(new, shape, target.layout))
    mask = Filter().restore(kept, shape, target.layout).contiguous()
    sparsity = Masks({target.name: mask}).sparsity
    return PrunedLayer(target.name, tuple(shape), sparsity, error, used, covariances[0].samples), mask
