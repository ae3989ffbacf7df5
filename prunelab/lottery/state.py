"""Where a training run stands: weights, optimizer, step; and the seeds of chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunelab.evaluate.seeding import LARGEST
from prunelab.schedule.base import check_step
from prunelab.targets import unwrap


@dataclass(frozen=True, eq=False)
class State:
    """A training run in the middle: all that `Recipe.train` needs to go on, bit for bit.

    Attributes:
        weights: the model's `state_dict`, its buffers included; tensors of its own.
        optimizer: the optimizer's `state_dict`; None for one that has taken no step.
        step: optimizer steps that are done.
        losses: (steps of this run,) float32 on the CPU, the mean loss of each batch before its step, as this call of
            `train` met it; empty where it took no step.
    """

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] | None = None
    step: int = 0
    losses: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(torch.isfinite(value).all()) for value in self.weights.values() if value.is_floating_point())

    def __repr__(self) -> str:
        return f"State(step {self.step}, {len(self.weights)} tensors)"


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's `state_dict`, copied. Raises TypeError for one that holds something else than tensors."""
    state = unwrap(model).state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"the model's state_dict has {name!r}, which is no tensor but {type(value).__name__}")
    return {name: value.detach().clone() for name, value in state.items()}


def load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give the model these weights. Raises ValueError, and changes nothing, where they are another model's."""
    check_fits(model, weights)
    unwrap(model).load_state_dict(dict(weights))


def check_fits(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError where the weights are another model's."""
    state = unwrap(model).state_dict()
    if missing := set(state) ^ set(weights):
        raise ValueError(
            f"these weights belong to another model: only one of the two has {', '.join(sorted(missing)):.200}"
        )
    for name, value in state.items():
        if value.shape != weights[name].shape or value.dtype != weights[name].dtype:
            raise ValueError(
                f"these weights belong to another model: {name!r} is {described(weights[name])}, in the model "
                f"{described(value)}"
            )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, a shared one once. Raises ValueError where there is none."""
    found = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not found:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient: there is nothing to train")
    return found


def mixed(*numbers: int) -> int:
    """One seed from several numbers; any change of any of them gives an unrelated one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_seed(seed: int) -> int:
    """`seed` as an int from 0 to 2**63 - 1. Raises ValueError for anything else."""
    if check_step(seed, "seed") >= LARGEST:
        raise ValueError(f"a seed is a whole number from 0 to 2**63 - 1, not {seed!r}")
    return int(seed)


def described(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
