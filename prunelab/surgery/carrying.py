"""The optimizer follows the surgery: moments and momenta are cut like the parameters that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunelab.hold import Hold
from prunelab.memory import memory_of
from prunelab.surgery.slices import Slices
from prunelab.targets import unwrap


def carry(optimizer: Optimizer, old: nn.Module, new: nn.Module, slices: Mapping[str, Slices]) -> Optimizer:
    """Let `optimizer`, which trains `old`, train `new` from now on, in place.

    State tensors of a parameter's shape are cut as the parameter was; numbers (Adam's step) stay. Parameters that are
    new (a bias that took up constants) join the group of their layer's weight, next to it. Masks that are held on the
    optimizer (`Masks.hold`) are cut too, and held on from now.

    Raises ValueError, and changes nothing, for an optimizer that trains none of the old network's parameters, or with
    state of another shape.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS keeps one flat history for all parameters, which cannot follow a cut; make a new LBFGS")
    names = {memory_of(p): name for name, p in reversed(list(unwrap(old).named_parameters()))}
    fresh = dict(new.named_parameters())
    groups, state, carried = [], {}, set()
    for group in optimizer.param_groups:
        params = []
        for parameter in group["params"]:
            name = names.get(memory_of(parameter))
            if name is None:
                params.append(parameter)
                state[parameter] = optimizer.state.get(parameter, {})
                continue
            params.append(fresh[name])
            carried.add(name)
            if parameter in optimizer.state:
                state[fresh[name]] = _cut(name, parameter, optimizer.state[parameter], slices.get(name))
        groups.append(params)
    if not carried:
        raise ValueError("the optimizer trains none of the original network's parameters, so there is nothing to carry")
    known = set(names.values())
    for name in (name for name in fresh if name not in known):
        weight = fresh.get(f"{name.rpartition('.')[0]}.weight".lstrip("."))
        for group, params in zip(optimizer.param_groups, groups, strict=True):
            at = next((place for place, parameter in enumerate(params) if parameter is weight), None)
            if at is not None:  # as in the model's order: an optimizer that is made anew takes up this one's state
                params.insert(at + 1, fresh[name])
                if "param_names" in group:
                    group["param_names"].insert(at + 1, name)
    for group, params in zip(optimizer.param_groups, groups, strict=True):
        group["params"][:] = params  # in place: some optimizers hold on to the list
    optimizer.state.clear()
    optimizer.state.update({parameter: entry for parameter, entry in state.items() if entry})

    def moved(parameter: nn.Parameter, mask: Tensor) -> tuple[nn.Parameter, Tensor]:
        name = names.get(memory_of(parameter))
        if name is None:
            return parameter, mask
        cut = slices.get(name)
        return fresh[name], mask if cut is None else cut.keep(mask)

    for hook in optimizer._optimizer_step_post_hooks.values():
        if isinstance(held := getattr(hook, "__self__", None), Hold):
            held.move(moved)
    return optimizer


def _cut(name: str, parameter: Tensor, state: Mapping[str, Any], cut: Slices | None) -> dict[str, Any]:
    return {key: _cut_one(f"{key!r} of {name!r}", parameter, value, cut) for key, value in state.items()}


def _cut_one(what: str, parameter: Tensor, value: Any, cut: Slices | None) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_cut_one(what, parameter, item, cut) for item in value)
    if not isinstance(value, torch.Tensor) or value.numel() <= 1 or cut is None:
        return value
    if value.shape != parameter.shape:
        raise ValueError(
            f"the optimizer's state {what} has shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}: how "
            "it follows a cut is not known; make a new optimizer from small.model.parameters()"
        )
    return cut.keep(value)
