"""The layers of a model that is nothing but a chain of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
)  # fmt: skip


@dataclass(frozen=True)
class Leaf:
    """A module of a chain; `names` are the model's first names of its parameters and buffers, by its own names."""

    module: nn.Module
    names: dict[str, str]


def leaves(model: nn.Module) -> list[Leaf] | None:
    """The modules of a model that runs them one after the other; None for one whose forward is code of its own."""
    first: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        first[id(tensor)] = name
    found: list[Leaf] = []
    for module in _unfolded(model):
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        found.append(Leaf(module, {name: first[id(tensor)] for name, tensor in own}))
    return found if found and all(is_plain(module) for module in model.modules()) else None


def is_plain(module: nn.Module) -> bool:
    """Nothing happens in a call of it but its class's forward."""
    return not any(getattr(module, name) for name in _HOOKS) and "forward" not in vars(module)


def _unfolded(module: nn.Module) -> list[nn.Module]:
    if type(module) is nn.Sequential:
        return [leaf for child in module for leaf in _unfolded(child)]
    return [module]
