"""What is known of the constants in the tensors of a trace: one number for each position of a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prunelab.surgery.constants import Constants, Numbers
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import Label, lift
from prunelab.trace import Op, Value


class Held:
    """The numbers of every tensor of the trace: {value id: one array for each of its labels, of the label's shape}."""

    def __init__(
        self,
        coupling: Coupling,
        gone: NDArray[np.bool_],
        dead: NDArray[np.bool_],
        unread: NDArray[np.bool_],
    ) -> None:
        self.coupling, self.gone, self.dead, self.unread = coupling, gone, dead, unread
        self.modules, self.tensors = coupling.anatomy.modules, coupling.anatomy.tensors
        self.some_unread = bool(unread.any())
        self.units = coupling.solution.unit_of
        self.found = Constants()
        self.numbers: dict[int, list[tuple[Label, Numbers]]] = {}
        self.names: dict[int, str] = {}
        self.labels: dict[int, list[Label]] = {}
        self._losing: dict[int, tuple[Label, bool]] = {}
        self._board = np.full(self.units.size, np.nan)  # (channels,): all NaN between two calls of `moved`

    @cached_property
    def _vectors(self) -> dict[str, Numbers]:
        """The tensors of one dimension, by name: scales, shifts, statistics. All of a kind are converted in one go."""
        alike: dict[Any, list[str]] = {}
        for name, tensor in self.tensors.items():
            plain = tensor.layout == torch.strided and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
            if plain and tensor.dim() == 1:
                alike.setdefault((tensor.device, tensor.dtype), []).append(name)
        found: dict[str, Numbers] = {}
        for names in alike.values():
            whole = torch.cat([self.tensors[name].detach() for name in names]).to("cpu", torch.float64).numpy()
            ends = np.cumsum([self.tensors[name].numel() for name in names]).tolist()
            found.update((name, whole[start:end]) for name, start, end in zip(names, [0, *ends], ends, strict=False))
        return found

    def flat(self, name: str) -> Numbers:
        """A tensor's numbers, one after the other; unknown where they are complex."""
        if name in self._vectors:
            return self._vectors[name]
        tensor = self.tensors[name].detach()
        if tensor.is_complex():
            return np.full(tensor.numel(), np.nan)
        return tensor.to("cpu", torch.float64).numpy().ravel()

    def of(self, value: Value, label: Label) -> Numbers:
        """What `value` holds at each position of a label (broadcast to the label's shape); NaN where unknown."""
        name = self.names.get(value.id)
        if name is not None and name in self.tensors:
            held = self.tensors[name].detach()
            if (held.is_floating_point() or held.numel() == 1) and _fits(held.shape, label):
                return _spread(held.to("cpu", torch.float64).numpy(), label)
        else:
            for _, numbers in self.numbers.get(value.id, ()):
                if _fits(numbers.shape, label):
                    return _spread(numbers, label)
        return np.full(label.shape, np.nan)

    def interesting(self, labels: Sequence[Label]) -> list[Label]:
        """Those of which a channel goes."""
        return [label for label in labels if self._loses(label)]

    def _loses(self, label: Label) -> bool:
        known = self._losing.get(id(label))
        if known is None or known[0] is not label:
            known = self._losing[id(label)] = label, bool(self.gone[self.units[label]].any())
        return known[1]

    def moved(self, labels: Sequence[Label], numbers: Sequence[Numbers], wanted: Iterable[Label]) -> list[Numbers]:
        """What the `wanted` labels hold, of their shapes, where the channels of `labels` hold these numbers: NaN where
        nothing is known of a channel, or several numbers are."""
        channels = np.concatenate([np.zeros(0, np.int64), *(label.ravel() for label in labels)])
        values = np.concatenate([np.zeros(0), *(one.ravel() for one in numbers)])
        self._board[channels] = values
        self._board[channels[self._board[channels] != values]] = np.nan
        found = [self._board[label] for label in wanted]
        self._board[channels] = np.nan
        return found

    def set(self, value: Value, numbers: list[tuple[Label, Numbers]]) -> None:
        self.numbers[value.id] = numbers

    def spoil(self, value: Value, labels: Sequence[Label]) -> None:
        """These channels are used in a way that is not followed: their constants must be zero."""
        for label in self.interesting(labels):
            values = self.of(value, label)
            self.found.elsewhere.update(np.unique(self.units[label][values != 0]).tolist())

    def give_up(self, op: Op, returned: Sequence[Sequence[Label]]) -> None:
        """Not followed. Channels that come out again are unknown from here on; those that do not are lost."""
        left = {int(u) for labels in returned for label in labels for u in np.unique(self.units[label])}
        for value in op.inputs:
            for label in self.interesting(self.labels.get(value.id, [])):
                if not set(np.unique(self.units[label]).tolist()) <= left:
                    self.spoil(value, [label])
        for value in op.outputs:
            self.numbers.pop(value.id, None)


def _fits(shape: Sequence[int], label: Label) -> bool:
    """Whether numbers of this shape broadcast to the label's."""
    if shape == label.shape:
        return True
    behind = label.shape[max(label.ndim - len(shape), 0) :]
    return len(shape) <= label.ndim and all(a in (1, b) for a, b in zip(shape, behind, strict=True))


def _spread(numbers: Numbers, label: Label) -> Numbers:
    return numbers if numbers.shape == label.shape else np.broadcast_to(lift(numbers, label.ndim), label.shape)


def with_numbers(item: Any, operands: Mapping[int, Numbers]) -> Any:
    """Arguments in which each tensor is its channels' constants."""
    if isinstance(item, Value):
        return torch.from_numpy(operands[item.id].copy())
    if isinstance(item, tuple):
        return tuple(with_numbers(i, operands) for i in item)
    if isinstance(item, dict):
        return {key: with_numbers(i, operands) for key, i in item.items()}
    return item
