"""Numbers that a model's own code holds (`num_heads`, sizes to split by): found by value, tried, and verified."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunelab.anatomy import Anatomy
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.follow import Followed
from prunelab.surgery.labels import Label
from prunelab.surgery.operations import arguments
from prunelab.trace import Op
from prunelab.trace.record import all_of

# Their numbers are brought into line with their weights (`rebuild.update_attributes`).
_KNOWN = (
    _ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, _NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm,
    nn.PReLU, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip
_NO_NUMBERS = frozenset({bool, str, float, type(None), dict, OrderedDict, set})  # most attributes of most modules
Sizes = list[tuple[int, int]]  # (size before, size after) of one operation's arguments


@dataclass(frozen=True)
class _Trial:
    """In every module of class `kind`, an attribute of it (or of the module `up` levels above, or of a part or a record
    of it, "part.attribute") follows the sizes that the module's operation number `at` asks for: as that size, or in
    proportion to it; or it is left `alone`."""

    kind: type
    at: int
    up: int
    attribute: str
    proportion: bool = False
    alone: bool = False

    @property
    def place(self) -> tuple[type, int, str]:
        return self.kind, self.up, self.attribute


class Numbers:
    """Which attributes of which modules are set to what, for a given set of kept units.

    At first every attribute is set whose value is a size that changed in an operation of that very module. Where the
    smaller network then fails at an operation, `another` lets what that operation was called with decide.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._modules = anatomy.modules
        self._held = {path: _integers(module) for path, module in self._modules.items()}
        self._recorded: dict[str, list[tuple[str, int]]] = {}  # by settings, where code was seen to fail
        self._trials: dict[tuple[type, int, str], _Trial] = {}
        self._tried: set[_Trial] = set()
        self._last: tuple[tuple[int, str], tuple[type, int, str], _Trial | None] | None = None
        self._broke: list[tuple[tuple[type, int, str], _Trial | None]] = []  # trials since which earlier code fails

    def updates(self, coupling: Coupling, keep: NDArray[np.bool_]) -> tuple[tuple[str, str, int], ...]:
        """(module, attribute, new value)."""
        bare = {path for path, module in self._modules.items() if isinstance(module, nn.LayerNorm | nn.RMSNorm)}
        kinds = tuple({trial.kind for trial in self._trials.values()})
        heard = {path for path, held in self._held.items() if held or isinstance(self._modules[path], kinds)}
        asked, certain = _asked(coupling, keep, bare, heard), _certain(coupling)
        wanted: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        for path, sizes in asked.items():
            for attribute, value in self._held[path]:
                if (type(self._modules[path]), 0, attribute) not in self._trials:
                    wanted[path, attribute].update(_most_asked(value, sizes, certain[path]))
            for trial in self._trials.values():
                if isinstance(self._modules.get(path), trial.kind) and trial.at < len(sizes):
                    part, _, attribute = trial.attribute.rpartition(".")
                    holder = ".".join(filter(None, [_above(path, trial.up), part]))
                    held = dict(self._numbers(holder)).get(attribute)
                    if held is not None:
                        new = held if trial.alone else _new_value(held, sizes[trial.at], trial.proportion)
                        wanted[holder, attribute].add(new)
        return tuple(
            (path, attribute, next(iter(new)))
            for (path, attribute), new in wanted.items()
            if len(new) == 1 and dict(self._numbers(path))[attribute] not in new
        )

    def another(self, op: int | None, seen: str, coupling: Coupling, keep: NDArray[np.bool_]) -> bool:
        """Try something else for the operation of this number in the trace, where this was `seen`; False where there is
        nothing left."""
        if op is None:
            return False
        if self._last is not None:
            failure, place, before = self._last
            if op < failure[0]:  # what was tried last broke what had run before: perhaps that needs another number too
                self._broke.append((place, before))
            elif failure == (op, seen):  # it changed nothing
                self._take_back(place, before)
            if op > failure[0]:
                self._broke.clear()
        self._last = None
        if self._next(op, seen, coupling, keep):
            return True
        returned = [label for labels in coupling.followed[0].returned[op] for label in labels]
        if any(not coupling.kept(label, keep).all() for label in returned):  # these channels may be to blame
            self._broke.clear()
        broke = bool(self._broke)
        while self._broke:
            self._take_back(*self._broke.pop())
        return broke  # without these, the network fails where it did before

    def _take_back(self, place: tuple[type, int, str], before: _Trial | None) -> None:
        self._trials.pop(place, None)
        self._trials.update({} if before is None else {place: before})

    def _next(self, op: int, seen: str, coupling: Coupling, keep: NDArray[np.bool_]) -> bool:
        failure = op, seen
        followed = coupling.followed[0]
        path = followed.trace.ops[op].module
        if path not in self._modules:
            return False
        if not _literals(followed.trace.ops[op]):  # `reshape` fails before the copy that it would have made
            op += any(later.module == path for later in followed.trace.ops[op + 1 : op + 2])
        at = sum(other.module == path for other in followed.trace.ops[:op])
        sizes = _sizes(followed, op, coupling, keep)
        current = {(p, attribute): new for p, attribute, new in self.updates(coupling, keep)}
        for proportion in (False, True):
            for up, holder, part in self._holders(path):
                for attribute, value in self._numbers(holder):
                    new = _new_value(value, sizes, proportion)
                    trial = _Trial(type(self._modules[path]), at, up, part + attribute, proportion)
                    if trial in self._tried or new == current.get((holder, attribute), value):
                        continue
                    if proportion or any(old == value for old, _ in sizes):
                        return self._try(trial, failure)
        for attribute, _ in self._held[path]:  # a number that only looks like a size
            trial = _Trial(type(self._modules[path]), at, 0, attribute, alone=True)
            if (path, attribute) in current and trial not in self._tried:
                return self._try(trial, failure)
        return False

    def _try(self, trial: _Trial, failure: tuple[int, str]) -> bool:
        self._last = failure, trial.place, self._trials.get(trial.place)
        self._tried.add(trial)
        self._trials[trial.place] = trial
        return True

    def _numbers(self, holder: str) -> list[tuple[str, int]]:
        return self._held.get(holder) or self._recorded.get(holder, [])

    def _holders(self, path: str) -> Iterator[tuple[int, str, str]]:
        """Whose numbers the code of a module may use: its own, those of its parts and records, and of what it is a part
        of; as (levels above, path, "part.")."""
        yield 0, path, ""
        records = {name: record for name, record in _records(self._modules[path]).items() if _is_copied(record)}
        self._recorded.update((f"{path}.{name}".lstrip("."), _integers(record)) for name, record in records.items())
        for name in (*dict(self._modules[path].named_children()), *records):
            yield 0, f"{path}.{name}".lstrip("."), f"{name}."
        for up in range(1, path.count(".") + 2 if path else 1):
            yield up, _above(path, up), ""


def _records(module: nn.Module) -> dict[str, Any]:
    """What a module holds its settings in: objects that are neither modules nor tensors nor to be called."""
    return {
        name: value
        for name, value in vars(module).items()
        if type(value) not in _NO_NUMBERS and hasattr(value, "__dict__")
        and not callable(value) and not isinstance(value, torch.Tensor | dict)
    }  # fmt: skip


def _is_copied(record: Any) -> bool:
    """Whether a copy of a module has a record of its own: a member of an enumeration, or a logger, is only one."""
    try:
        other = copy.deepcopy(record)
        return other is not record and vars(other) is not vars(record)
    except Exception:  # anybody's class may raise anything here: what cannot be copied is not tried
        return False


def _integers(module: Any) -> list[tuple[str, int]]:
    """The whole numbers among a module's attributes, those in its lists and tuples too ("sizes[1]")."""
    if isinstance(module, _KNOWN) and any(held is not None for held in module._parameters.values()):
        return []
    found: list[tuple[str, int]] = []
    for name, value in vars(module).items():
        if type(value) in _NO_NUMBERS:
            continue
        if _is_number(value):
            found.append((name, value))
        elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            found += [(f"{name}[{i}]", item) for i, item in enumerate(value) if _is_number(item)]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _above(path: str, levels: int) -> str:
    parts = path.split(".") if path else []
    return ".".join(parts[: max(len(parts) - levels, 0)])


def _new_value(value: int, sizes: Sizes, proportion: bool) -> int:
    """What a number becomes where an operation that was called with these sizes gets others; itself where it is not
    among them. In `proportion`: where it divides a size or is a multiple of one, it shrinks like that."""
    if not proportion:
        found = {new for old, new in sizes if old == value}
        return found.pop() if len(found) == 1 else value
    for old, new in sizes:
        if old != new and 0 in (old % value, value % old) and value * new % old == 0:
            return value * new // old
    return value


def _most_asked(value: int, sizes: list[Sizes], certain: list[bool]) -> list[int]:
    """The change that most operations ask of a number of this value. Those that matmul may have called itself are
    heard only where no other one is called with it."""
    for trusted in (True, False):
        asked = [new for pairs, sure in zip(sizes, certain, strict=True) if sure or not trusted
                 for old, new in pairs if old == value]  # fmt: skip
        if asked:
            changes = Counter(new for new in asked if new != value)
            return [new for new, _ in changes.most_common(1)]
    return []


def _certain(coupling: Coupling) -> dict[str, list[bool]]:
    """Beside `_asked`: whether the operation was certainly called by the module's own code."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for followed in coupling.followed:
        for op in followed.trace.ops:
            found[op.module].append(op.name != "aten::_unsafe_view")
    return found


def _asked(coupling: Coupling, keep: NDArray[np.bool_], bare: set[str], heard: set[str]) -> dict[str, list[Sizes]]:
    """{module: the sizes that each of its operations is called with, in order}, for those that are `heard`. In modules
    that are `bare` of literals (a normalisation checks the size of what it gets) every size counts."""
    found: defaultdict[str, list[Sizes]] = defaultdict(list)
    for followed in coupling.followed:
        for number, op in enumerate(followed.trace.ops):
            if op.module in heard:
                found[op.module].append(_sizes(followed, number, coupling, keep, op.module in bare))
    return dict(found)


def _sizes(followed: Followed, number: int, coupling: Coupling, keep: NDArray[np.bool_], every: bool = False) -> Sizes:
    """The sizes among an operation's arguments, before and after."""
    op = followed.trace.ops[number]
    literals = _literals(op)
    if not literals and not every:
        return []
    pairs: Sizes = []
    for value, labels in zip(op.outputs, followed.returned[number], strict=True):
        after = coupling.shape_after(value.shape, labels, keep) if labels else value.shape
        if after is not None:
            pairs += [(old, new) for old, new in zip(value.shape, after, strict=True) if every or old in literals]
    cut = followed.cuts.get(number)
    return list(dict.fromkeys(pairs + (_bounds(op, cut, coupling, keep) if cut is not None else [])))


def _literals(op: Op) -> set[int]:
    return set(all_of(int, (op.args, op.kwargs)))


def _bounds(op: Op, label: Label, coupling: Coupling, keep: NDArray[np.bool_]) -> Sizes:
    """Where a slice's start and end lie among the positions that are kept."""
    named = arguments(op)
    dim = named.get("dim", 0) % label.ndim
    stays = coupling.kept(label, keep)
    along = np.moveaxis(stays, dim, 0).reshape(stays.shape[dim], -1)
    along = along[:, along.any(0)]
    if not along.size:
        return []
    bounds = (named.get("start"), named.get("end"))
    return [
        (bound, int(along[:bound, 0].sum())) for bound in bounds if isinstance(bound, int) and 0 < bound <= len(along)
    ]
