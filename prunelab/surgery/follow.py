"""Follow a recorded forward, operation by operation, and write into the ledger what each does to the channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from prunelab.surgery.labels import Label, lift, spread, tidy, varying
from prunelab.surgery.ledger import Ledger, Verdict
from prunelab.surgery.operations import arguments, operator, shares, writes
from prunelab.trace import Op, Trace, Value

Rule: TypeAlias = "Callable[[Follower, Op], None]"
_NONE: frozenset[int] = frozenset()


@dataclass
class Followed:
    """One trace, and for each of its operations, by number, the labels of what it returned.

    `factors` are the labels of the arguments of products, which cost; `cuts` those that a slice, or one position, was
    taken of. `loose` are the dimensions of each result that are as large as the code asks for; `idle` the operations
    whose results nobody reads.
    """

    trace: Trace
    returned: list[tuple[list[Label], ...]] = field(default_factory=list)
    factors: dict[int, dict[int, list[Label]]] = field(default_factory=dict)
    cuts: dict[int, Label] = field(default_factory=dict)
    loose: dict[int, tuple[frozenset[int], ...]] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)  # value id → the parameter or buffer that it is
    training: bool = False  # the mode in which it was recorded


class Follower:
    """The labels of every tensor of a trace, and the ledger that the rules write to.

    The labels of parameters and buffers, by name, outlive one trace, so that a second one (in training mode) adds to
    what the first one found. Their channels are numbered when they are first asked for.
    """

    def __init__(self, rules: Mapping[str, Rule], otherwise: Rule) -> None:
        self.ledger = Ledger()
        self._tensors: dict[str, list[Label]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.used: set[str] = set()
        self.unread: set[str] = set()  # parameters that only idle operations read
        self.normed: set[str] = set()  # parameters of whose rows somebody takes the norm, to divide by it
        self._read: set[str] = set()  # by operations before the present one
        self.names: dict[int, str] = {}
        self._rules, self._otherwise = rules, otherwise
        self._labels: dict[int, list[Label]] = {}
        self._zero: set[int] = set()
        self._pure: set[int] = set()
        self._elastic: dict[int, frozenset[int]] = {}
        self._together: dict[int, set[int]] = {}  # value id → the values that lie in the same memory
        self._tidied: dict[int, Label] = {}  # by their ids: most operations pass on the labels that they got
        self.op: Op | None = None
        self._idle = False

    # --- a trace -------------------------------------------------------------------------------------------------

    def follow(self, trace: Trace) -> Followed:
        """Apply the rule of each operation in turn. What leaves the network keeps its size."""
        self._labels, self._zero, self._pure, self._elastic, self.names = {}, set(), set(), {}, {}
        self._together = {}
        for held, value in (*trace.parameters.items(), *trace.buffers.items()):
            self.shapes.setdefault(held, value.shape)
            self.names[value.id] = held
            self._zero.add(value.id)
            self._pure.add(value.id)
        followed = Followed(trace, names=dict(self.names))
        followed.idle = _idle(trace)
        now: set[str] = set()
        for number, op in enumerate(trace.ops):
            self.op, self._idle = op, number in followed.idle
            name = operator(op)
            if name in {"slice", "select"} and not self._idle:
                dim = arguments(op)["dim"] % len(op.inputs[0].shape)
                followed.cuts.update((number, f) for f in self.of(op.inputs[0]) if f.shape[dim] > 1)
            self._read |= now
            now = {self.names[value.id] for value in op.inputs if value.id in self.names}
            (self.unread if self._idle else self.used).update(now)
            self._rules.get(name, self._otherwise)(self, op)
            self._note_memory(op)
            if op.products:  # the rule may have told a parameter's channels apart, so only now
                followed.factors[number] = {value.id: self.of(value) for value in op.inputs}
            followed.returned.append(tuple(self.of(value) for value in op.outputs))
            if any(self._elastic.get(value.id) for value in op.outputs):
                followed.loose[number] = tuple(self._elastic.get(value.id, frozenset()) for value in op.outputs)
        self.op, self._idle = None, False
        for value in trace.outputs:
            for label in self.of(value):
                self.freeze(label, "it leaves the network: the output keeps its size")
        return followed

    def _note_memory(self, op: Op) -> None:
        """Who shares memory with whom; what is written into a view is not zero in the whole any more either."""
        if shares(op) and op.inputs:
            together = self._together.setdefault(op.inputs[0].id, {op.inputs[0].id})
            for value in op.outputs:
                together.add(value.id)
                self._together[value.id] = together
        if writes(op):
            for value in op.outputs:
                if not self.is_zero(value):
                    self._zero -= self._together.get(value.id, set())

    # --- labels of values ----------------------------------------------------------------------------------------

    def fresh(self, shape: Sequence[int], first: int | None = None) -> list[Label]:
        """New channels for each dimension of a tensor, or for the `first` few: the others cannot shrink."""
        dims = len(shape)
        return [spread(self.ledger.new(size), dim, dims) for dim, size in enumerate(shape[:first]) if size > 1]

    def of(self, value: Value | None) -> list[Label]:
        """The labels of a value; none for one that never was seen."""
        if value is None:
            return []
        labels = self._labels.get(value.id)
        if labels is None:
            name = self.names.get(value.id)
            labels = self._labels[value.id] = [] if name is None else self.tensor(name)
        return labels

    def tensor(self, name: str) -> list[Label]:
        """The labels of a parameter or buffer."""
        if name not in self._tensors:
            self._tensors[name] = self.fresh(self.shapes[name])
        return self._tensors[name]

    def set(
        self,
        value: Value,
        labels: Iterable[Label],
        *,
        zero: bool = False,
        of: Sequence[Value] | None = None,
        elastic: Sequence[int] = (),
    ) -> None:
        """`zero`: the value is zero wherever its channel is removed. `of`: what it was computed from. `elastic`: the
        dimensions that it fills by repeating itself, as far as it is asked to."""
        shape = value.shape
        self._elastic[value.id] = frozenset(elastic) if elastic else _NONE
        self._labels[value.id] = [] if 0 in shape else self._tidy(labels)
        (self._zero.add if zero else self._zero.discard)(value.id)
        pure = of is not None and len(of) > 0 and all(v.id in self._pure for v in of)
        (self._pure.add if pure else self._pure.discard)(value.id)

    def _tidy(self, labels: Iterable[Label]) -> list[Label]:
        labels = list(labels)
        if any(self._tidied.get(id(label)) is not label for label in labels):
            labels = tidy(labels)
            self._tidied.update((id(label), label) for label in labels)
        return labels

    def untouched(self, value: Value) -> bool:
        """Whether this is the first operation that reads the parameter, so that nobody knows its channels yet."""
        assert self.op is not None
        name = self.names.get(value.id)
        once = name is not None and name not in self._read
        return once and [v.id for v in self.op.inputs].count(value.id) == 1

    def set_weight(self, value: Value, labels: list[Label]) -> None:
        """Give a parameter that no operation has read yet other channels."""
        self._labels[value.id] = self._tensors[self.names[value.id]] = labels

    def extent(self, value: Value) -> list[int]:
        """The shape, of size 1 where the value repeats itself as far as it is asked to."""
        elastic = self._elastic.get(value.id, frozenset())
        return [1 if dim in elastic else size for dim, size in enumerate(value.shape)]

    def is_zero(self, value: Value) -> bool:
        return value.id in self._zero

    def is_weight(self, value: Value) -> bool:
        """Whether it was computed from parameters and buffers alone."""
        return value.id in self._pure

    # --- statements ----------------------------------------------------------------------------------------------

    def freeze(self, label: Label, reason: str, *, inexact: bool = False) -> None:
        """These channels stay. Not for the sake of what nobody reads: that only has to run."""
        if self._idle:
            return
        self.ledger.freeze(label, Verdict(reason, self.where, inexact))

    @property
    def where(self) -> str:
        if self.op is None:
            return ""
        return f"{self.op.name} in {self.op.module or 'the model itself'}"

    def along(self, value: Value | None, dim: int) -> Label | None:
        """The channels along one dimension, (size,): ties what shares them in the other dimensions. None: none."""
        found = None
        for label in self.of(value):
            assert value is not None
            axis = dim % len(value.shape)
            if label.shape[axis] == 1:
                continue
            for other in varying(label):
                if other != axis:
                    label = self.ledger.tie_along(label, other)
            if found is not None:
                self.ledger.tie(found, label.ravel())
            found = label.ravel()
        return found

    def same(self, a: Label | None, b: Label | None, why: str) -> None:
        """Two rows of channels of the same size share their fate; those that meet none stay, for the reason given."""
        if a is not None and b is not None:
            self.ledger.tie(a, b)
        elif (only := a if a is not None else b) is not None:
            self.freeze(only, why)

    def keep_dims(self, value: Value, dims: Iterable[int], reason: str, *, inexact: bool = False) -> None:
        """Channels that vary with one of these dimensions stay."""
        dims = {dim % len(value.shape) for dim in dims} if value.shape else set()
        for label in self.of(value):
            if dims & set(varying(label)):
                self.freeze(label, reason, inexact=inexact)

    def whole(self, label: Label, dims: Iterable[int], reason: str, *, inexact: bool = False) -> None:
        """Something runs over these dimensions, where every position counts: channels that vary with others, too (the
        heads, where it runs inside each), share their fate along them; all others stay."""
        along = varying(label)
        over = [dim for dim in along if dim in set(dims)]
        if over and len(over) == len(along):
            self.freeze(label, reason, inexact=inexact)
            return
        for dim in over:
            label = self.ledger.tie_along(label, dim)

    def merge(self, values: Sequence[Value], shape: Sequence[int]) -> list[Label]:
        """The labels of an element-wise result of `shape`: what meets position by position shares its fate."""
        dims, labels, extent = len(shape), list[Label](), [1] * len(shape)
        for value in values:
            size = [1] * (dims - len(value.shape)) + self.extent(value)
            new = [lift(label, dims) for label in self.of(value)]
            for mine in labels:
                self.meet(mine, new, size)
            for theirs in new:
                self.meet(theirs, labels, extent)
            for mine in labels:
                for theirs in new:
                    self.join(mine, theirs)
            labels = _widest([*labels, *new])
            extent = [max(a, b) for a, b in zip(extent, size, strict=True)]
        return labels

    def join(self, a: Label, b: Label) -> None:
        """Two labels of one tensor that vary with a common dimension share their fate, position by position.

        Where one varies with more dimensions, and with an outer one first (heads, then the dimensions of a head), then
        whole positions of the outer one go, and the other stays as it is: a rotation of every head's dimensions does
        not tie the heads to each other.
        """
        few, many = sorted((a, b), key=lambda label: len(varying(label)))
        inner, all_ = set(varying(few)), set(varying(many))
        if not inner & all_:
            return
        if inner < all_ and min(all_) not in inner:
            self.freeze(few, "it goes with every position of an outer dimension, which goes as a whole")
            for dim in inner:
                self.ledger.tie_along(many, dim)
        else:
            self.ledger.tie(a, b)

    def meet(self, label: Label, others: Sequence[Label], size: Sequence[int]) -> None:
        """A label meets a tensor of `size`: along each of its dimensions that tensor must be able to follow. Where it
        cannot along an inner one (the dimensions of a head), whole positions of the outer one may still go."""
        dims = varying(label)
        for dim in dims:
            if size[dim] > 1 and not any(other.shape[dim] > 1 for other in others):
                if dim != dims[0]:
                    self.ledger.tie_along(label, dim)
                    continue
                self.freeze(label, "it meets, element by element, a tensor that cannot shrink with it")


def _idle(trace: Trace) -> set[int]:
    """The operations whose results neither leave the network nor are read by one that counts. What is written into
    memory counts where that is read afterwards, or outlives the forward."""
    whole: dict[int, int] = {}  # a view → the tensor in whose memory it lies
    for op in trace.ops:
        if shares(op) and op.inputs:
            whole.update((value.id, whole.get(op.inputs[0].id, op.inputs[0].id)) for value in op.outputs)
    wanted = {value.id for value in trace.outputs}
    kept = (*trace.inputs, *trace.outputs, *trace.parameters.values(), *trace.buffers.values())
    memory, idle = {whole.get(value.id, value.id) for value in kept}, set()
    for number in range(len(trace.ops) - 1, -1, -1):
        op = trace.ops[number]
        written = writes(op) and any(whole.get(value.id, value.id) in memory for value in op.outputs)
        if written or not op.outputs or any(value.id in wanted for value in op.outputs):
            wanted.update(value.id for value in op.inputs)
            memory.update(whole.get(value.id, value.id) for value in op.inputs)
        else:
            idle.add(number)
    return idle


def _widest(labels: Sequence[Label]) -> list[Label]:
    """Without labels that vary with no more dimensions than another one does."""
    kept: list[Label] = []
    for label in sorted(labels, key=lambda label: -len(varying(label))):
        if not any(set(varying(label)) <= set(varying(other)) for other in kept):
            kept.append(label)
    return kept
