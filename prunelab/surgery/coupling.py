"""Coupled channels: which channels of which layers can only go together, and which cannot go at all, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.follow import Followed, Follower
from prunelab.surgery.labels import Label, extents, together, varying
from prunelab.surgery.ledger import Solution, Verdict
from prunelab.surgery.rules import RULES
from prunelab.surgery.rules.pointwise import otherwise
from prunelab.targets import unwrap
from prunelab.trace import map_tensors, tensors_in
from prunelab.trace.recorder import trace_of


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

    `anatomy` is the model, taken apart.
    `tensors` are the labels of each parameter and buffer, `shapes` their shapes; `groups` may be pruned, `frozen` not.
    `made` and `read` (channels,) are the numbers by which a weight makes channels, and by which it reads them. `normed`
    are parameters by the norm of whose rows something is divided. It `folds` unless it was seen that constants that
    were added to biases are not what the network computes.
    """

    anatomy: Anatomy = field(compare=False, repr=False)
    solution: Solution
    tensors: Mapping[str, list[Label]]
    shapes: Mapping[str, tuple[int, ...]]
    followed: tuple[Followed, ...]
    groups: tuple[Group, ...] = ()
    frozen: tuple[Group, ...] = ()
    unused: tuple[str, ...] = ()
    normed: tuple[str, ...] = ()
    folds: bool = True
    made: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    read: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    _memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

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
        self, shape: tuple[int, ...], labels: Sequence[Label], keep: NDArray[np.bool_]
    ) -> tuple[int, ...] | None:
        """The shape of a tensor when only the kept units are left; None where what is left fills no box."""
        if not labels:
            return shape
        if len(labels) == 1:  # nearly always
            box = self._box(labels[0], keep)
            if box is None:
                return None
            return tuple([left if n > 1 else size for left, n, size in zip(box, labels[0].shape, shape, strict=True)])
        sizes = list(shape)
        along = [varying(label) for label in labels]
        # Mostly each dimension is one label's.
        if sum(map(len, along)) == len({dim for dims in along for dim in dims}):
            boxes = [(self._box(label, keep), dims) for label, dims in zip(labels, along, strict=True)]
        else:
            boxes = [(extents(stays), dims) for stays, dims in together([self.kept(f, keep) for f in labels])]
        for box, dims in boxes:
            if box is None:
                return None
            for dim in dims:
                sizes[dim] = box[dim]
        return tuple(sizes)

    def _box(self, label: Label, keep: NDArray[np.bool_]) -> tuple[int, ...] | None:
        """`extents` of what stays, remembered for as long as the same units are asked about."""
        if self._memory.get("keep") is not keep:
            self._memory.clear()
            self._memory["keep"] = keep
        known = self._memory.get(id(label))
        if known is None or known[0] is not label:
            known = self._memory[id(label)] = label, extents(self.kept(label, keep))
        return known[1]


def couple(
    model: nn.Module,
    example_inputs: Any,
    *,
    exact: bool = True,
    exclude: Iterable[str] = (),
    also: Iterable[Any] = (),
    training: bool = False,
) -> Coupling:
    """Follow one forward of `model` and find its coupled channels.

    `exclude` are names of parameters: the channels that they make stay. With `exact=False` channels may go although
    the network then computes something else (the widths under a LayerNorm, single dimensions of a head). `also` are
    further inputs, on which the model may take other paths through its code. A forward in `training` mode is followed
    where that is asked for, or where some parameters are not used otherwise. Raises ValueError for inputs without a
    single element.
    """
    given = tensors_in(example_inputs)
    if given and not any(tensor.numel() for tensor in given):
        raise ValueError(
            f"example_inputs have no elements (a tensor of shape {tuple(given[0].shape)}), so nothing shows which "
            "channels go together; give at least one example"
        )
    anatomy = Anatomy(unwrap(model))
    unfused = any(isinstance(module, nn.RNNBase) for module in anatomy.modules.values())
    follower = Follower(RULES, otherwise)
    followed = [follower.follow(trace_of(anatomy, example_inputs, unfused=unfused))]
    followed += [follower.follow(trace_of(anatomy, inputs, unfused=unfused)) for inputs in also]
    trained = anatomy.parameters.keys()
    if training or trained - follower.used:  # a layer that runs in training only
        other = trace_of(anatomy, example_inputs, unfused=unfused, training=True)
        followed.append(replace(follower.follow(other), training=True))
    for inputs in _unlike(example_inputs) if trained - follower.used else ():  # a branch that these inputs do not take
        with suppress(Exception):  # inputs that the model does not take
            other = trace_of(anatomy, inputs, unfused=unfused)
            if trained & other.read - follower.used:
                followed.append(follower.follow(other))
    for name in exclude:
        for label in follower.tensor(name) if name in follower.shapes else ():
            own = label[follower.ledger.is_made(label)]
            follower.ledger.freeze(own, Verdict("it is excluded", name))
    ran = follower.used | follower.unread
    unused = tuple(name for name in follower.shapes if name not in ran and name in trained)
    tensors = {name: follower.tensor(name) for name in follower.shapes}
    solution = follower.ledger.solve()
    made, read = follower.ledger.made_channels(), follower.ledger.read_channels()
    normed = tuple(name for name in tensors if name in follower.normed)
    plain = Coupling(anatomy, solution, tensors, follower.shapes, tuple(followed), unused=unused, made=made, read=read)
    return _grouped(replace(plain, normed=normed), made, exact)


def _unlike(example_inputs: Any) -> Iterator[Any]:
    """Inputs of the same shapes on which code that looks at values may decide otherwise."""
    for scale in (-1.0, 10.0, 0.0):
        yield map_tensors(lambda t, by=scale: t * by if t.is_floating_point() else t, example_inputs)  # type: ignore[misc]


def _grouped(coupling: Coupling, made: NDArray[np.bool_], exact: bool) -> Coupling:
    """Units with slices in the same places form a group."""
    solution, count = coupling.solution, coupling.solution.why.size
    places = [(name, label) for name, labels in coupling.tensors.items() for label in labels]
    sharing: dict[int, list[int]] = {}  # the places of one label: tensors of one layer may have it in common
    for i, (_, label) in enumerate(places):
        sharing.setdefault(id(label), []).append(i)
    distinct = [places[shared[0]][1] for shared in sharing.values()]
    channels = np.concatenate([np.zeros(0, np.int64), *(label.ravel() for label in distinct)])
    units_at, which = solution.unit_of[channels], np.repeat(np.arange(len(distinct)), [f.size for f in distinct])
    # Equal exactly where the slices are, up to a chance of 1 in 2⁶².
    draw = np.random.default_rng(0).integers(1, 2**62, size=len(distinct), dtype=np.int64)
    signature = np.zeros(count, np.int64)
    np.add.at(signature, units_at, draw[which])  # modulo 2⁶⁴
    free = solution.free(exact)
    alike = _alike(np.flatnonzero(solution.made), signature, free)
    first_of = np.zeros(count, bool)
    first_of[[units[0] for units in alike]] = True
    shown = first_of[units_at]
    of_label = list(sharing.values())
    at = _places(units_at[shown], which[shown], of_label)
    shown &= made[channels]
    making = _places(units_at[shown], which[shown], of_label)
    found = [
        _group(coupling, places, units, at[int(units[0])], making[int(units[0])], bool(free[units[0]]))
        for units in alike
    ]
    ordered = [group for _, group in sorted(found, key=lambda pair: pair[0])]
    return replace(
        coupling,
        groups=tuple(group for group in ordered if group.why is None),
        frozen=tuple(group for group in ordered if group.why is not None),
    )


def _places(
    units: NDArray[np.int64], labels: NDArray[np.int64], of_label: Sequence[Sequence[int]]
) -> dict[int, list[int]]:
    """{unit: the places where it lies, in their order, each once}, from the numbers of the labels in which it lies."""
    found: dict[int, list[int]] = {}
    several = len(of_label)
    for pair in np.unique(units * several + labels).tolist():
        found.setdefault(pair // several, []).extend(of_label[pair % several])
    return {unit: sorted(places) for unit, places in found.items()}


def _alike(units: NDArray[np.int64], signature: NDArray[np.int64], free: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Units of one signature that may all go, or may all not go; each in their order."""
    order = units[np.lexsort((units, free[units], signature[units]))]
    new = (np.diff(signature[order]) != 0) | (np.diff(free[order].astype(np.int8)) != 0)
    return np.split(order, np.flatnonzero(new) + 1) if order.size else []


def _group(
    coupling: Coupling,
    places: Sequence[tuple[str, Label]],
    units: NDArray[np.int64],
    at: Sequence[int],
    makers: Sequence[int],
    removable: bool,
) -> tuple[tuple[int, int], Group]:
    """The group of some units whose slices lie `at` these places, and where it starts: the first of its `makers`, and
    which of that one's channels."""
    solution = coupling.solution
    flat = solution.unit_of[places[makers[0]][1]].ravel()
    member = np.zeros(solution.why.size, bool)
    member[units] = True
    mine = flat[member[flat]]
    name = places[makers[0]][0]
    group = Group(
        name=name.rpartition(".")[0] or name,
        units=mine if mine.size == units.size else mine[np.sort(np.unique(mine, return_index=True)[1])],
        made_by=tuple(dict.fromkeys(places[i][0] for i in makers)),
        members=tuple(dict.fromkeys(places[i][0] for i in at)),
        width=int((mine == units[0]).sum()),
        channels=mine.size,
        why=None if removable else solution.verdicts[solution.why[units[0]]],
    )
    return (makers[0], int(np.argmax(member[flat]))), group
