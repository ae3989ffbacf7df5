"""What a model is made of: its modules, parameters, buffers and other tensors, under the names that PyTorch gives them.

`nn.Module.named_modules` is a generator within a generator for every level of the model: a network of a thousand
modules that is asked dozens of times spends more on that than on a forward. An `Anatomy` asks once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from prunelab.memory import memory_of

PLAIN: frozenset[type] = frozenset({bool, int, float, str, type(None)})  # the types of most attributes and arguments
INTERNAL = frozenset(vars(nn.Module()))  # what PyTorch itself keeps in every module


class Anatomy:
    """A model taken apart. Each property is what it was when it was first asked for."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """`dict(model.named_modules())`: every module once, under its first name."""
        found: dict[str, nn.Module] = {}
        seen: set[nn.Module] = set()
        ahead = [("", self.model)]
        while ahead:
            path, module = ahead.pop()
            if module in seen:
                continue
            seen.add(module)
            found[path] = module
            if module._modules:
                prefix = f"{path}." if path else ""
                ahead += [(prefix + name, m) for name, m in reversed(module._modules.items()) if m is not None]
        return found

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """`dict(model.named_parameters())`: every parameter once, under its first name."""
        found: dict[str, nn.Parameter] = {}
        seen: set[int] = set()
        for name, parameter in self.every_parameter():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[name] = parameter
        return found

    def every_parameter(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every module's parameters, in order: shared ones under the name in each."""
        for path, module in self.modules.items():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield (f"{path}.{name}" if path else name), parameter

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        """`dict(model.named_buffers())`: every buffer once, under its first name."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for path, module in self.modules.items():
            for name, buffer in module._buffers.items():
                if buffer is not None and id(buffer) not in seen:
                    seen.add(id(buffer))
                    found[f"{path}.{name}" if path else name] = buffer
        return found

    @cached_property
    def others(self) -> dict[str, Tensor]:
        """Tensors that modules hold as plain attributes, in dictionaries and lists too: constants, and caches of what
        was computed once. Each under the name by which code would reach it: `blocks.0.cache['cpu']`."""
        found: dict[str, Tensor] = {}
        for path, module in self.modules.items():
            for name, value in vars(module).items():
                # The types first, and sizes without a closer look: a network has tens of thousands of such attributes.
                if type(value) in PLAIN or name in INTERNAL or name == "_flat_weights":
                    continue
                if type(value) is tuple and PLAIN.issuperset(map(type, value)):
                    continue
                if isinstance(value, Tensor | list | tuple | dict):
                    found.update(_held(f"{path}.{name}".lstrip("."), value))
        if not found:
            return found
        known = {id(tensor) for tensor in (*self.parameters.values(), *self.buffers.values())}
        return {name: tensor for name, tensor in found.items() if id(tensor) not in known}

    @cached_property
    def memory(self) -> dict[int, tuple[Any, ...]]:
        """{id of a tensor: `memory_of` it}, for all of them."""
        return {id(tensor): memory_of(tensor) for tensor in self.tensors.values()}

    @cached_property
    def names(self) -> dict[int, str]:
        """{id of a parameter: its first name}. Parameters that share their memory share their name."""
        first: dict[Any, str] = {}
        return {id(held): first.setdefault(self.memory[id(held)], name) for name, held in self.every_parameter()}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All of them: parameters, buffers and others."""
        return {**self.parameters, **self.buffers, **self.others}


def _held(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif type(value) in (list, tuple):
        for number, item in enumerate(value):
            yield from _held(f"{name}[{number}]", item)
    elif type(value) is dict:
        for key, item in value.items():
            yield from _held(f"{name}[{key!r}]", item)
