"""Numbers that a model's own code holds (`num_heads`, sizes to split by): found by value, tried, and verified."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunelab.surgery.coupling import Coupling
from prunelab.surgery.follow import arguments
from prunelab.surgery.labels import Label
from prunelab.trace import Op

# Their numbers are brought into line with their weights (`rebuild.update_attributes`).
_KNOWN = (
    _ConvNd, nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, _NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm,
    nn.PReLU, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip
_AT_MOST = 4  # attributes of one class that are tried in every combination


class Numbers:
    """Which attributes of which modules are set to what, for a given set of kept units.

    At first every attribute is set whose value is a size that changed in an operation of that very module. Where the
    smaller network then fails in a module, `another` leaves some attributes of its class as they were.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules())
        self._left_alone: dict[type, tuple[str, ...]] = {}
        self._attempts: dict[type, Iterator[tuple[str, ...]]] = {}

    def updates(self, coupling: Coupling, keep: NDArray[np.bool_]) -> tuple[tuple[str, str, int], ...]:
        """(module, attribute, new value)."""
        found = []
        for path, sizes in _changed_sizes(coupling, keep).items():
            module = self._modules.get(path)
            if module is None or isinstance(module, _KNOWN):
                continue
            for attribute, value in _integers(module):
                new = sizes.get(value, set())
                if len(new) == 1 and attribute not in self._left_alone.get(type(module), ()):
                    found.append((path, attribute, next(iter(new))))
        return tuple(found)

    def another(self, path: str, coupling: Coupling, keep: NDArray[np.bool_]) -> bool:
        """Try the next combination for the class of the module at `path`; False where none is left."""
        module = self._modules.get(path)
        if module is None or isinstance(module, _KNOWN):
            return False
        kind = type(module)
        if kind not in self._attempts:
            sizes = _changed_sizes(coupling, keep).get(path, {})
            names = [name for name, value in _integers(module) if len(sizes.get(value, ())) == 1][:_AT_MOST]
            self._attempts[kind] = iter([c for size in range(1, len(names) + 1) for c in combinations(names, size)])
        self._left_alone[kind] = next(self._attempts[kind], ())
        return bool(self._left_alone[kind])


def _integers(module: nn.Module) -> list[tuple[str, int]]:
    """The whole numbers among a module's attributes, those in its lists and tuples too ("sizes[1]")."""
    found: list[tuple[str, int]] = []
    for name, value in vars(module).items():
        if isinstance(value, int) and not isinstance(value, bool):
            found.append((name, value))
        elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            found += [
                (f"{name}[{i}]", v) for i, v in enumerate(value) if isinstance(v, int) and not isinstance(v, bool)
            ]
    return found


def _changed_sizes(coupling: Coupling, keep: NDArray[np.bool_]) -> dict[str, dict[int, set[int]]]:
    """{module: {size before: sizes after}} over all operations that ran in it."""
    changed: defaultdict[str, defaultdict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for followed in coupling.followed:
        for number, (op, returned) in enumerate(zip(followed.trace.ops, followed.returned, strict=True)):
            if op.name == "aten::_unsafe_view":  # only matmul itself calls it
                continue
            for value, labels in zip(op.outputs, returned, strict=True):
                after = coupling.shape_after(value.shape, labels, keep) if labels else None
                if after is not None and after != value.shape:
                    for old, new in zip(value.shape, after, strict=True):
                        if old != new:
                            changed[op.module][old].add(new)
            cut = followed.cuts.get(number)
            if cut is not None:
                for old, new in _bounds(op, cut, coupling, keep):
                    changed[op.module][old].add(new)
    return {path: dict(sizes) for path, sizes in changed.items()}


def _bounds(op: Op, label: Label, coupling: Coupling, keep: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where a slice's start and end lie among the positions that are kept."""
    named = arguments(op)
    dim = named.get("dim", 0) % label.ndim
    stays = coupling.kept(label, keep)
    counts = stays.sum(axis=dim, keepdims=True).ravel()
    if not (counts == counts[:1]).all():
        return []
    along = np.moveaxis(stays, dim, 0).reshape(stays.shape[dim], -1)[:, 0]
    pairs = []
    for bound in (named.get("start"), named.get("end")):
        if isinstance(bound, int) and 0 < bound <= along.size and (new := int(along[:bound].sum())) != bound:
            pairs.append((bound, new))
    return pairs
