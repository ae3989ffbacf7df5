"""Walks a network from layer to layer, so that each is seen with the inputs that it has once those before are pruned.

One whole forward for each layer would do. Here a *stage*, such as a block of a transformer, is taken out of the network
while its layers are worked on: what it is called with is recorded, once for each batch, and only the stage is run
again. When it is done, what it puts out is kept, and returned in its place whenever the network runs. So the whole is
computed a few times however many layers there are, and nothing need be known of how the stages are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import run
from prunelab.curvature.layerwise.covariance import InputCovariance
from prunelab.curvature.layerwise.samples import groups_of, samples
from prunelab.curvature.layerwise.survey import Visit, survey
from prunelab.targets import Target
from prunelab.trace import map_tensors

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _Reached(BaseException):
    """What was to be seen in this forward has been seen. No `except Exception` of a model stops it."""


Prune = Callable[[list[Target], list[InputCovariance]], None]


class Walk:
    """`run(prune)` calls prune(layers that read the same, their covariances), in the order in which layers run.

    It prunes these layers: the next ones are read as they then are. The covariances are one for each group of a
    convolution, of `dtype`; those of one call are gone before the next. It runs inside of `measuring`, which puts back
    what stands in for the stages that are done.
    """

    def __init__(self, model: nn.Module, targets: Sequence[Target], batches: Sequence[Any], dtype: torch.dtype) -> None:
        self._model, self._targets, self._batches, self._dtype = model, targets, batches, dtype
        self._now = 0  # the batch that runs

    def run(self, prune: Prune) -> None:
        visits = survey(self._model, self._targets, self._batches)
        for stage, inside in groupby(visits, key=lambda visit: visit.stage):
            calls = [] if stage is None else self._calls_of(stage)
            for visit in inside:
                replay = stage is not None and visit.inside
                prune(visit.targets, self._read(visit, stage if replay else None, calls))
            if stage not in (None, visits[-1].stage):
                self._close(stage, calls)

    def _network(self, batch: int) -> None:
        self._now = batch
        with suppress(_Reached):
            run(self._model, self._batches[batch])

    def _calls_of(self, stage: nn.Module) -> list[Arguments | None]:
        """What the stage is called with, for each batch; None where it is not called."""
        calls: list[Arguments | None] = [None] * len(self._batches)

        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[self._now] = args, kwargs
            raise _Reached

        with stage.register_forward_pre_hook(record, with_kwargs=True):
            for batch in range(len(self._batches)):
                self._network(batch)
        return calls

    def _read(self, visit: Visit, stage: nn.Module | None, calls: Sequence[Arguments | None]) -> list[InputCovariance]:
        """The covariances of what the visit's layers read, from the stage's calls or from whole forwards."""
        weight, module = visit.targets[0].weight, visit.targets[0].modules[0]
        covariances = [InputCovariance(weight[0].numel(), self._dtype) for _ in range(groups_of(module))]

        def add(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for part in samples(called, args, kwargs):
                for covariance, rows in zip(covariances, part, strict=True):
                    covariance.add(rows)
            if visit.once:
                raise _Reached

        handles = [one.register_forward_pre_hook(add, with_kwargs=True) for one in visit.modules]
        try:
            for batch in range(len(self._batches)):
                if stage is None:
                    self._network(batch)
                elif (call := calls[batch]) is not None:
                    with suppress(_Reached):
                        stage(*call[0], **call[1])
        except ValueError as error:
            raise ValueError(f"{visit.targets[0].name!r}: {error}") from error
        finally:
            for handle in handles:
                handle.remove()
        return covariances

    def _close(self, stage: nn.Module, calls: Sequence[Arguments | None]) -> None:
        """The stage is done: what it puts out now takes its place in the network."""
        outputs = [None if call is None else stage(*call[0], **call[1]) for call in calls]
        # Copies: whatever reads them may write to them too.
        stage.forward = lambda *_, **__: map_tensors(Tensor.clone, outputs[self._now])
