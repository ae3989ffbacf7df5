"""Which way to run a stack of models: the fastest that computes what each of them computes alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from prunelab.lottery.stacking.chain import Chain
from prunelab.lottery.stacking.dense import Dense
from prunelab.lottery.stacking.functional import Functional
from prunelab.lottery.stacking.grouping import pays
from prunelab.lottery.stacking.leaves import is_plain, leaves
from prunelab.lottery.stacking.losses import Slopes
from prunelab.lottery.stacking.stack import Stack

# Relative to the largest output: room for rounding in another order. A wrong reading of a model is wrong by far more.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


class Network(Protocol):
    """B models as one."""

    stack: Stack

    def outputs(self, x: Tensor) -> Tensor:
        """(B, N, ...) → (B, N, ...)."""

    def gradients(self, x: Tensor, targets: Tensor, slopes: Slopes) -> Tensor:
        """Write every model's gradient into the stack, and return the losses, (B,); see `losses.slopes_of`."""


def network_of(stack: Stack, models: Sequence[nn.Module], x: Tensor, *, training: bool = True) -> Network | None:
    """The models as one network; None where they can only be run one by one, or where that is faster.

    Args:
        stack: their numbers.
        models: of one architecture; they stay as they are.
        x: a batch for each, (B, N, ...). Ways that rely on a module's own code, or on the shape of its inputs, are
            tried on it beside the models.
        training: run them as in train mode, else as in eval mode.
    """
    if not all(is_plain(module) for model in models for module in model.modules()):
        return None
    chain = leaves(models[0])
    dense = chain is not None and Dense.fits(chain, x[0])
    if not pays(dense, stack.weights, stack.models, x.device):
        return None
    if chain is not None and dense:
        return Dense(stack, chain)
    made: Network
    if chain is not None and Chain.fits(chain):
        made = Chain(stack, chain, training=training)
    else:
        made = Functional(stack, copy.deepcopy(models[0]).train(training))
    return made if _agrees(made, models, x, training) else None


@torch.no_grad()
def _agrees(network: Network, models: Sequence[nn.Module], x: Tensor, training: bool) -> bool:
    """Whether the network's outputs and buffers are those of the models, apart from rounding."""
    before = {name: value.clone() for name, value in network.stack.buffers.items()}
    try:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            together = network.outputs(x)
            tolerance = _TOLERANCE[x.dtype] * float(together.abs().max().nan_to_num(posinf=0.0))
            for b, model in enumerate(models):
                alone = copy.deepcopy(model).train(training)
                _give(alone, network.stack, before, b)
                pairs = [(alone(x[b]), together[b])]
                pairs += [
                    (dict(alone.named_buffers())[name], value[b]) for name, value in network.stack.buffers.items()
                ]
                if not all(_close(mine, theirs, tolerance) for mine, theirs in pairs):
                    return False
    except Exception:  # whatever torch or the model raises where its code cannot run for many at once
        return False
    finally:
        for name, value in before.items():
            network.stack.buffers[name].copy_(value)
    return True


def _give(model: nn.Module, stack: Stack, buffers: dict[str, Tensor], b: int) -> None:
    """Model b of the stack, with its buffers as they were."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in {**stack.values, **stack.constants, **buffers}.items():
        own[name].copy_(value[b])


def _close(mine: Tensor, theirs: Tensor, tolerance: float) -> bool:
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return False
    return torch.allclose(mine.double(), theirs.double(), rtol=1e-4, atol=tolerance, equal_nan=True)
