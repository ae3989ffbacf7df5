"""One optimizer for all models: torch's own, on one long vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from prunelab.lottery.stacking.stack import Stack

# Each treats every number on its own, so that a vector of all weights moves as the weights one by one would.
ELEMENTWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
_COMMON = "step"  # in the state of these, the one entry that is not one number a weight


def is_elementwise(optimizer: Optimizer) -> bool:
    """Whether one like it on the vector of many models does to each what it would do alone.

    Its own class, not one derived from it, one group of parameters, and no hooks of anybody's.
    """
    hooks = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    return type(optimizer) in ELEMENTWISE and len(optimizer.param_groups) == 1 and not any(hooks)


def optimizer_like(template: Optimizer, stack: Stack) -> Optimizer:
    """An optimizer of the template's class and settings for the stack's vector."""
    made = type(template)([stack.vector])  # type: ignore[call-arg]  # those of ELEMENTWISE have a default for lr
    made.param_groups[0].update(settings_of(template.state_dict()))
    return made


def settings_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in an optimizer's state dict, its learning rate with them."""
    return {name: value for name, value in state["param_groups"][0].items() if name != "params"}


def steps_of(state: Mapping[str, Any]) -> list[float]:
    """What each parameter's state says of the steps done, where it says anything."""
    return [float(own[_COMMON]) for own in state["state"].values() if _COMMON in own]


def split_state(optimizer: Optimizer, stack: Stack) -> list[dict[str, Any]]:
    """The optimizer's state dict as that of B optimizers, one a model, in copies."""
    indices = range(len(stack.values))
    states: list[dict[str, Any]] = []
    parts = {
        name: stack.parts(value) if name != _COMMON else [[value.clone() for _ in indices] for _ in range(stack.models)]
        for name, value in optimizer.state[stack.vector].items()
        if isinstance(value, Tensor)
    }
    for b in range(stack.models):
        own = {index: {name: parts[name][b][index] for name in parts} for index in indices} if parts else {}
        states.append(
            {"state": own, "param_groups": [{**settings_of(optimizer.state_dict()), "params": list(indices)}]}
        )
    return states


def join_states(states: Sequence[Mapping[str, Any]], optimizer: Optimizer, stack: Stack) -> None:
    """Load what `split_state` gave: each model goes on with its own momentum."""
    first = states[0]["state"]
    joined = {
        name: value.clone()
        if name == _COMMON
        else stack.joined([[state["state"][index][name] for index in range(len(stack.values))] for state in states])
        for name, value in first.get(0, {}).items()
    }
    groups = [{**settings_of(states[0]), "params": [0]}]
    optimizer.load_state_dict({"state": {0: joined} if joined else {}, "param_groups": groups})
