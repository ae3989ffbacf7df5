"""Coupled channels: which channels of which layers can only go together, and which cannot go at all, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunelab.surgery.follow import Followed, Follower
from prunelab.surgery.labels import Label, extents, together, varying
from prunelab.surgery.ledger import Solution, Verdict
from prunelab.surgery.rules import RULES
from prunelab.surgery.rules.pointwise import otherwise
from prunelab.targets import unwrap
from prunelab.trace import map_tensors, trace


@dataclass(frozen=True)
class Group:
    """Channels of the same layers, of which any number may go.

    `units` are the numbers of its units, in the order of the channels; a unit is what goes as a whole: one channel, or
    all of an attention head; `width` is how many rows of a weight it has, `channels` all that the first weight has in
    this group. `made_by` are the parameters whose rows (or columns) make the channels, `members` all
    parameters and buffers in which a unit has a slice.
    """

    name: str
    units: NDArray[np.int64]
    made_by: tuple[str, ...]
    members: tuple[str, ...]
    width: int
    channels: int
    why: Verdict | None = None

    def __len__(self) -> int:
        return self.units.size


@dataclass(frozen=True)
class Coupling:
    """What following a model's forward said about its channels.

    `tensors` are the labels of each parameter and buffer, `shapes` their shapes; `groups` may be pruned, `frozen` not.
    `made` and `read` (channels,) are the numbers by which a weight makes channels, and by which it reads them.
    """

    solution: Solution
    tensors: Mapping[str, list[Label]]
    shapes: Mapping[str, tuple[int, ...]]
    followed: tuple[Followed, ...]
    groups: tuple[Group, ...] = ()
    frozen: tuple[Group, ...] = ()
    unused: tuple[str, ...] = ()
    made: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    read: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def unit(self, number: int) -> dict[str, dict[int, list[int]]]:
        """Where a unit lies: {parameter or buffer: {dimension: positions}}."""
        found: dict[str, dict[int, list[int]]] = {}
        for name, labels in self.tensors.items():
            for label in labels:
                inside = self.solution.unit_of[label] == number
                for dim in varying(label) if inside.any() else ():
                    others = tuple(d for d in range(label.ndim) if d != dim)
                    found.setdefault(name, {})[dim] = np.flatnonzero(inside.any(axis=others)).tolist()
        return found

    def kept(self, label: Label, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """`keep` (units,) → which positions of a label are kept."""
        return keep[self.solution.unit_of[label]]

    def shape_after(
        self, shape: Iterable[int], labels: Iterable[Label], keep: NDArray[np.bool_]
    ) -> tuple[int, ...] | None:
        """The shape of a tensor when only the kept units are left; None where what is left fills no box."""
        sizes = list(shape)
        for stays, dims in together([self.kept(label, keep) for label in labels]):
            box = extents(stays)
            if box is None:
                return None
            for dim in dims:
                sizes[dim] = box[dim]
        return tuple(sizes)


def couple(
    model: nn.Module,
    example_inputs: Any,
    *,
    exact: bool = True,
    exclude: Iterable[str] = (),
    also: Iterable[Any] = (),
) -> Coupling:
    """Follow one forward of `model` and find its coupled channels.

    `exclude` are names of parameters: the channels that they make stay. With `exact=False` channels may go although
    the network then computes something else (the widths under a LayerNorm, single dimensions of a head). `also` are
    further inputs, on which the model may take other paths through its code.
    """
    model = unwrap(model)
    unfused = any(isinstance(module, nn.RNNBase) for module in model.modules())
    follower = Follower(RULES, otherwise)
    followed = [follower.follow(trace(model, example_inputs, unfused=unfused))]
    followed += [follower.follow(trace(model, inputs, unfused=unfused)) for inputs in also]
    trained = {name for name, _ in model.named_parameters()}
    if trained - follower.used:  # a layer that runs in training only
        followed.append(follower.follow(trace(model, example_inputs, unfused=unfused, training=True)))
    for inputs in _unlike(example_inputs) if trained - follower.used else ():  # a branch that these inputs do not take
        with suppress(Exception):  # inputs that the model does not take
            other = trace(model, inputs, unfused=unfused)
            if trained & other.read - follower.used:
                followed.append(follower.follow(other))
    for name in exclude:
        for label in follower.tensors.get(name, ()):
            own = label[follower.ledger.is_made(label)]
            follower.ledger.freeze(own, Verdict("it is excluded", name))
    unused = tuple(name for name in follower.tensors if name not in follower.used and name in trained)
    solution = follower.ledger.solve()
    made, read = follower.ledger.made_channels(), follower.ledger.read_channels()
    plain = Coupling(solution, follower.tensors, follower.shapes, tuple(followed), unused=unused, made=made, read=read)
    return _grouped(plain, made, exact)


def _unlike(example_inputs: Any) -> Iterator[Any]:
    """Inputs of the same shapes on which code that looks at values may decide otherwise."""
    for scale in (-1.0, 10.0, 0.0):
        yield map_tensors(lambda t, by=scale: t * by if t.is_floating_point() else t, example_inputs)  # type: ignore[misc]


def _grouped(coupling: Coupling, made: NDArray[np.bool_], exact: bool) -> Coupling:
    """Units with slices in the same places form a group."""
    solution = coupling.solution
    count = solution.why.size
    places = [(name, i) for name, labels in coupling.tensors.items() for i in range(len(labels))]
    draw = np.random.default_rng(0).integers(1, 2**62, size=len(places), dtype=np.int64)
    signature, width, first = np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, -1, np.int64)
    for number, (name, i) in enumerate(places):
        label = coupling.tensors[name][i]
        units, times = np.unique(solution.unit_of[label], return_counts=True)
        with np.errstate(over="ignore"):
            signature[units] += draw[number] * times  # equal exactly where the slices are, up to a chance of 1 in 2⁶²
        if made[label].any():
            fresh = units[first[units] < 0]
            first[fresh] = number
            width[units] = np.maximum(width[units], times)
    free, wanted = solution.free(exact), np.flatnonzero(solution.made)
    groups, frozen = list[Group](), list[Group]()
    order: dict[tuple[int, bool], list[int]] = {}
    for unit in wanted:
        order.setdefault((int(signature[unit]), bool(free[unit])), []).append(int(unit))
    for (_, removable), members in order.items():
        one = members[0]
        group = _group(coupling, made, np.array(members), places[first[one]][0], int(width[one]), removable)
        (groups if removable else frozen).append(group)
    names = {name: position for position, name in enumerate(coupling.tensors)}
    key = lambda group: names[group.made_by[0]]  # noqa: E731
    return replace(coupling, groups=tuple(sorted(groups, key=key)), frozen=tuple(sorted(frozen, key=key)))


def _group(
    coupling: Coupling, made: NDArray[np.bool_], units: NDArray[np.int64], first: str, width: int, removable: bool
) -> Group:
    solution, unit = coupling.solution, units[0]
    makers, members = [], []
    for name, labels in coupling.tensors.items():
        for label in labels:
            inside = solution.unit_of[label] == unit
            if inside.any():
                members.append(name)
                if made[label[inside]].any():
                    makers.append(name)
    first_id = {int(u): i for i, u in enumerate(_positions(coupling, first))}
    ordered = np.array(sorted(units.tolist(), key=lambda u: first_id.get(u, 0)), np.int64)
    mine = np.concatenate([solution.unit_of[f].ravel() for f in coupling.tensors[first] if made[f].any()])
    channels = int(np.isin(mine, units).sum())
    verdict = None if removable else solution.verdicts[solution.why[unit]] if solution.why[unit] >= 0 else None
    name = first.rpartition(".")[0] or first
    return Group(name, ordered, tuple(dict.fromkeys(makers)), tuple(dict.fromkeys(members)), width, channels, verdict)


def _positions(coupling: Coupling, name: str) -> NDArray[np.int64]:
    """The units of a tensor's labels, each where it first is."""
    units = np.concatenate([coupling.solution.unit_of[label].ravel() for label in coupling.tensors[name]])
    values, first = np.unique(units, return_index=True)
    return values[np.argsort(first)]
