"""Looks at a network once before it is walked: in which order its layers run, within what, and which read the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import run
from prunelab.curvature.layerwise.samples import reads_alike
from prunelab.targets import Target
from prunelab.trace import map_tensors

_CONSTANT = (Tensor, bool, int, float, complex, str, torch.Size, torch.dtype, torch.device, type(None))


@dataclass(frozen=True)
class Visit:
    """Layers that read the same input, mostly one.

    `modules` are called when the first of them runs, `once` in a forward or more often. `stage` is the part of the
    network in which it runs first, if that can be run by itself: it runs once, and does no more than to return what
    it makes of tensors. `inside` says that the layers run nowhere else.
    """

    targets: list[Target]
    modules: list[nn.Module]
    once: bool
    stage: nn.Module | None
    inside: bool


@dataclass
class _Seen:
    """What is known of one layer: where it ran, behind which layer it read the same input, how often in which batch."""

    stages: dict[nn.Module | None, None] = field(default_factory=dict)
    behind: set[int | None] = field(default_factory=set)
    calls: Counter[int] = field(default_factory=Counter)


def survey(model: nn.Module, targets: Sequence[Target], batches: Sequence[Any]) -> list[Visit]:
    """The visits to make, in the order in which the network runs: one forward for every batch.

    Raises ValueError for a layer that no batch runs.
    """
    watch = _Watch(model, targets)
    with watch.on():
        for number, batch in enumerate(batches):
            run(model, batch)
            watch.digest(number)
    missing = [repr(target.name) for number, target in enumerate(targets) if number not in watch.order]
    if missing:
        raise ValueError(
            f"the layers of {', '.join(missing)} did not run with these batches (they are skipped, or their weights "
            "are read without calling them), so what they read is not known; leave them out with exclude=[...]"
        )
    return watch.visits()


class _Watch:
    """Hooks that follow the calls of layers, and of the stages that they lie in."""

    def __init__(self, model: nn.Module, targets: Sequence[Target]) -> None:
        self.order: list[int] = []  # targets, by number
        self._targets = targets
        # An attention layer does not call its output projection: what that reads is asked of the layer itself.
        callers = {id(m.out_proj): m for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
        self._modules = [[callers.get(id(m), m) for m in target.modules] for target in targets]
        members = list(_members(model))
        within = {module for member in members for module in member.modules()}
        alone = [module for modules in self._modules for module in modules if module not in within]
        self._stages = list(dict.fromkeys([*members, *alone]))
        self._seen = [_Seen() for _ in targets]
        self._unfit: set[nn.Module] = set()  # stages that cannot be run by themselves
        self._entered: list[tuple[nn.Module, list[tuple[Tensor, int]]]] = []  # with the versions of what it was given
        self._calls: list[tuple[int, nn.Module | None, bool]] = []  # of this batch: target, stage, reads the same
        self._last: tuple[Tensor, tuple[Any, ...]] | None = None
        self._entries: Counter[nn.Module] = Counter()

    @contextmanager
    def on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for stage in self._stages:  # before the layers: a layer may be a stage
                stack.callback(stage.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                stack.callback(stage.register_forward_hook(self._leave).remove)
            for number, modules in enumerate(self._modules):
                for module in dict.fromkeys(modules):
                    stack.callback(module.register_forward_pre_hook(self._arrive(number), with_kwargs=True).remove)
            yield

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given: list[tuple[Tensor, int]] = []

        def note(tensor: Tensor) -> Tensor:
            given.append((tensor, tensor._version))
            return tensor

        map_tensors(note, (args, kwargs))
        self._entered.append((module, given))
        self._entries[module] += 1
        if self._entries[module] > 1 or not all(map(_is_constant, (args, *kwargs.values()))):
            self._unfit.add(module)

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        _, given = self._entered.pop()
        returned = output if type(output) in (list, dict) else [output]
        plain = all(map(_is_constant, returned.values() if isinstance(returned, dict) else returned))
        if not plain or any(tensor._version != version for tensor, version in given):
            self._unfit.add(module)

    def _arrive(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            read = None if given is None else (given, (given._version, *reads_alike(module)))
            # The last input is kept until the next layer, so that no other tensor can have its place.
            same = read is not None and self._last is not None and self._last[0] is given and self._last[1] == read[1]
            self._calls.append((number, self._entered[0][0] if self._entered else None, same))
            self._last = read

        return hook

    def digest(self, batch: int) -> None:
        """The forward of this batch is done."""
        before = None
        for number, stage, same in self._calls:
            seen = self._seen[number]
            if number not in self.order:
                self.order.insert(0 if before is None else self.order.index(before) + 1, number)
            seen.stages[stage] = None
            seen.behind.add(before if same else None)
            seen.calls[batch] += 1
            before = number
        self._calls, self._last = [], None
        self._entries.clear()

    def visits(self) -> list[Visit]:
        """The layers in the order in which they run, those of a stage together."""
        places: dict[Any, int] = {}
        for place, number in enumerate(self.order):
            places.setdefault(self._stage(number) or number, place)
        found: list[Visit] = []
        previous = None
        for number in sorted(self.order, key=lambda number: places[self._stage(number) or number]):
            seen = self._seen[number]
            once = max(seen.calls.values()) == 1
            if once and previous is not None and seen.behind == {previous} and seen.calls == self._seen[previous].calls:
                found[-1].targets.append(self._targets[number])
            else:
                inside = len(seen.stages) == 1
                modules = list(dict.fromkeys(self._modules[number]))
                found.append(Visit([self._targets[number]], modules, once, self._stage(number), inside))
            previous = number
        return found

    def _stage(self, number: int) -> nn.Module | None:
        """Where the layer runs first, unless that cannot be run by itself."""
        stage = next(iter(self._seen[number].stages))
        return None if stage in self._unfit else stage


def _members(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that are listed in a Sequential or ModuleList: the blocks of a network."""
    listed = isinstance(module, nn.Sequential | nn.ModuleList)
    for child in module.children():
        if listed and not isinstance(child, nn.Sequential | nn.ModuleList):
            yield child
        else:
            yield from _members(child)


def _is_constant(item: Any) -> bool:
    """Whether it is tensors and numbers, alone or in tuples: nothing that is there to be changed, such as a cache."""
    return all(map(_is_constant, item)) if type(item) is tuple else isinstance(item, _CONSTANT)
