"""What is to blame where the smaller network's code fails: the channels that met there, and their like elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunelab.surgery.aligned import inside
from prunelab.surgery.coupling import Coupling, Group
from prunelab.surgery.follow import Followed
from prunelab.surgery.labels import Label
from prunelab.surgery.ledger import Verdict
from prunelab.surgery.rehearsal import Rehearsed
from prunelab.trace import Value


def without_blamed(coupling: Coupling, keep: NDArray[np.bool_], result: Rehearsed) -> Coupling:
    """Keep the channels that meet in the operation where the network failed, and their like in other modules of that
    class."""
    followed, gone = coupling.followed[0], ~keep
    blamed = np.zeros(keep.size, bool)
    if result.op is not None:
        op = followed.trace.ops[result.op]
        data = [value for value in op.inputs if value.id not in followed.names]
        arrived = [f for value in data for f in _last_seen(followed, result.op, value)]
        returned = [f for labels in followed.returned[result.op] for f in labels]
        # What an operation makes is to blame only where nothing arrived; and where nothing is made either, code that no
        # operation shows (NumPy's, say) may have read what nobody seems to read.
        unread = [f for i in sorted(followed.idle) if i < result.op for labels in followed.returned[i] for f in labels]
        # Code that takes the first eight needs these; of the others any may go, as long as none stood before them.
        first, second = (returned, arrived) if result.op in followed.cuts else (arrived, returned)
        for labels in (first, second, unread):
            if not (blamed & gone).any():
                for label in labels:
                    blamed[coupling.solution.unit_of[label]] = True
    if not (blamed & gone).any():  # the code stumbled over something that no operation shows
        for label in _met_in(followed, result.module):
            blamed[coupling.solution.unit_of[label]] = True
    if not (blamed & gone).any():
        blamed = gone.copy()
    groups = [group for group in coupling.groups if (blamed & gone)[group.units].any()]
    why = Verdict(f"the model's code cannot do with fewer ({result.seen.splitlines()[0][:160]})", result.module)
    units = np.zeros(keep.size, bool)
    for group in [*groups, *_like(coupling, groups, result.module)]:
        units[group.units] = True
    return without(coupling, units, why)


def _met_in(followed: Followed, path: str) -> Iterator[Label]:
    """What the operations of a module read, and what they return."""
    latest: dict[int, list[Label]] = {}
    for op, returned in zip(followed.trace.ops, followed.returned, strict=True):
        here = not path or inside(op.module, [path])
        for value in op.inputs if here else ():
            yield from latest.get(value.id, [])
        for value, labels in zip(op.outputs, returned, strict=True):
            latest[value.id] = labels
            yield from labels if here else ()


def _last_seen(followed: Followed, number: int, value: Value) -> list[Label]:
    for earlier in range(number - 1, -1, -1):
        for out, labels in zip(followed.trace.ops[earlier].outputs, followed.returned[earlier], strict=True):
            if out.id == value.id:
                return labels
    return []


def _like(coupling: Coupling, groups: list[Group], path: str) -> list[Group]:
    """Groups that lie in other modules of the class of the one at `path` as these lie in that one. Where that is one of
    PyTorch's layers, whose own code is not to blame, of the class of the module that it is a part of."""
    modules = coupling.anatomy.modules
    while path and path in modules and type(modules[path]).__module__.startswith("torch.nn."):
        path = path.rpartition(".")[0]
    if path not in modules or not path:
        return []
    shapes = {_within(group, path) for group in groups} - {frozenset()}
    siblings = [other for other, module in modules.items() if type(module) is type(modules[path]) and other != path]
    return [g for g in coupling.groups for other in siblings if _within(g, other) in shapes]


def _within(group: Group, path: str) -> frozenset[str]:
    """The group's parameters inside a module, by their names there."""
    return frozenset(name.removeprefix(f"{path}.") for name in group.members if name.startswith(f"{path}."))


def without(coupling: Coupling, units: NDArray[np.bool_], why: Verdict) -> Coupling:
    """The same coupling, with these units among those that stay."""
    groups, frozen = [], list(coupling.frozen)
    for group in coupling.groups:
        inside_ = units[group.units]
        if inside_.any():
            frozen.append(replace(group, units=group.units[inside_], why=why))
        if not inside_.all():
            groups.append(replace(group, units=group.units[~inside_]))
    return replace(coupling, groups=tuple(groups), frozen=tuple(frozen))
