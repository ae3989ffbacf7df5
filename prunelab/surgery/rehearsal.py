"""Run the smaller network and compare, operation by operation, the shapes that it has with those it should have."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.aligned import Aligned, Expected, Shape, Shapes, forward_of, inside
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import Label
from prunelab.surgery.operations import arguments, positions
from prunelab.surgery.shapes import shaped
from prunelab.surgery.sketch import Sketches, sketch
from prunelab.trace import Op
from prunelab.trace.record import tensors_returned


class Mismatch(Exception):
    """An operation returned another shape than expected."""


@dataclass(frozen=True)
class Rehearsed:
    """What the network returned, or where it first went wrong: `op`, the number of the operation in the trace of the
    large network (None where that is not known), the module that was running, and what was seen. It `diverged` where
    it ran other operations than the large network. `sketches`, by the number of the operation, are of the values that
    it returned."""

    outputs: Any = None
    sketches: Sketches = field(default_factory=dict)
    failed: bool = False
    op: int | None = None
    module: str = ""
    seen: str = ""
    diverged: bool = False


class _Watch(Aligned):
    """Compares with what is expected, and keeps what the `sketched` operations return."""

    def __init__(
        self, expected: Sequence[Expected], skip: Sequence[str], sketched: Container[int], *, modules: bool
    ) -> None:
        super().__init__(expected, skip, modules=modules)
        self._sketched = sketched
        self.sketches: Sketches = {}

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = shaped(func, args, kwargs)
        tensors = tensors_returned(result)
        one = self.place(str(func.name()), tuple([tuple(tensor.shape) for tensor in tensors]))
        if one is not None:
            if one.positions is not None:
                self._compare_positions(one.positions, Op(func, args, kwargs, ()))
            if one.number in self._sketched:
                self.sketches[one.number] = tuple(map(sketch, tensors))
        return result

    def unfit(self, text: str) -> None:
        if self.diverged:  # it may be another operation
            super().unfit(text)
            return
        self.mismatch = text
        raise Mismatch(text)

    def _compare_positions(self, wanted: list[int], op: Op) -> None:
        """Code that takes channels by their numbers takes others when some before them are gone."""
        named, source = arguments(op), op.args[0]
        found = positions(named, source.shape[named.get("dim", 0)])
        if found != wanted:
            self.at -= 1  # this is the operation that failed
            self.unfit(
                f"{op.name} takes, of the positions that are left, those from {min(found, default=None)} to "
                f"{max(found, default=None)}; the same ones would be {wanted[:8]}"
            )


def rehearse_shapes(
    anatomy: Anatomy, example_inputs: Any, coupling: Coupling, keep: NDArray[np.bool_], replaced: Sequence[str]
) -> Rehearsed:
    """The same without computing anything, where the model's code can do without values; for real where it cannot."""
    with _weightless(anatomy):  # which module runs is only to be known where modules are skipped, or after a failure
        result = rehearse(anatomy, example_inputs, coupling, keep, replaced, following=bool(replaced))
    if result.failed or result.diverged:
        return rehearse(Anatomy(anatomy.model), example_inputs, coupling, keep, replaced)
    return result


@contextmanager
def _weightless(anatomy: Anatomy) -> Iterator[None]:
    """Inside, a model's parameters and buffers are on the meta device: shapes without values."""
    tables: list[Any] = [
        table for module in anatomy.modules.values() for table in (module._parameters, module._buffers)
    ]
    held = [dict(table) for table in tables]
    metas = {id(t): t.detach().to("meta") for table in held for t in table.values() if t is not None}
    try:
        for table in tables:
            table.update({name: metas[id(tensor)] for name, tensor in table.items() if tensor is not None})
        yield
    finally:
        for table, before in zip(tables, held, strict=True):
            table.clear()
            table.update(before)


def rehearse(
    anatomy: Anatomy,
    example_inputs: Any,
    coupling: Coupling,
    keep: NDArray[np.bool_],
    replaced: Sequence[str],
    *,
    following: bool = True,
    sketched: Container[int] = (),
    shapes: Shapes | None = None,
) -> Rehearsed:
    """One forward of the smaller network, watched. Without `following` its modules it is not known which one failed.
    Sketches are made of what the operations with the numbers `sketched` return. `shapes` are those of the masked
    network, where they are not those of the trace. It runs in the mode of the first trace of the coupling."""
    trace, expected = coupling.followed[0].trace, _expected(coupling, keep, replaced, shapes)
    training = coupling.followed[0].training
    watch = _Watch(expected, replaced, sketched, modules=following)
    followed = watch.following(anatomy) if following else nullcontext()
    with forward_of(anatomy, example_inputs, training=training) as (args, kwargs), followed, watch:
        try:
            return Rehearsed(anatomy.model(*args, **kwargs), watch.sketches, diverged=watch.diverged)
        except Exception as error:  # of the model's code, whatever it is: told as what was seen
            at = expected[watch.at].number if watch.at < len(expected) and not watch.lost else None
            place = trace.ops[at].module if watch.mismatch and at is not None else watch.path_of(error)
            return Rehearsed(failed=True, op=at, module=place, seen=f"{type(error).__name__}: {error}")


class _Measuring(Aligned):
    """Writes down the shapes of what each operation returns."""

    def __init__(self, expected: Sequence[Expected], skip: Sequence[str]) -> None:
        super().__init__(expected, skip)
        self.shapes: Shapes = {}

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        shapes = tuple([tuple(tensor.shape) for tensor in tensors_returned(result)])
        one = self.place(str(func.name()), shapes)
        if one is not None and len(shapes) == len(one.shapes):  # into how many parts it falls may depend on the data
            self.shapes[one.number] = shapes
        return result


def shapes_of(masked: nn.Module, example_inputs: Any, coupling: Coupling, replaced: Sequence[str]) -> Shapes:
    """The shapes of what each operation of the trace returns in the masked network. Some depend on what is computed:
    how many tokens an expert gets, how many boxes are found."""
    anywhere = [
        Expected(number, op.name, (None,) * len(op.outputs), op.module)
        for number, op in enumerate(coupling.followed[0].trace.ops)
        if not inside(op.module, replaced)
    ]
    watch, anatomy = _Measuring(anywhere, replaced), Anatomy(masked)
    with forward_of(anatomy, example_inputs) as (args, kwargs), watch.following(anatomy), watch:
        masked(*args, **kwargs)
    return watch.shapes


def _expected(
    coupling: Coupling, keep: NDArray[np.bool_], replaced: Sequence[str], shapes: Shapes | None
) -> list[Expected]:
    """What the smaller network should do."""
    followed = coupling.followed[0]
    used = followed.trace.used
    expected: list[Expected] = []
    for number, (op, returned) in enumerate(zip(followed.trace.ops, followed.returned, strict=True)):
        if replaced and inside(op.module, replaced):
            continue
        left: tuple[Shape, ...] = (None,) * len(op.outputs)
        if number not in followed.idle and (shapes is None or number in shapes):
            whole = [value.shape for value in op.outputs] if shapes is None else shapes[number]
            left = tuple([
                None if value.id not in used or 0 in shape  # no element, so no channel either
                else left_of(shape, labels, coupling, keep) if labels else shape
                for value, labels, shape in zip(op.outputs, returned, whole, strict=True)
            ])  # fmt: skip
            if number in followed.loose:
                left = tuple(
                    None if shape is None else tuple(None if dim in free else size for dim, size in enumerate(shape))
                    for shape, free in zip(left, followed.loose[number], strict=True)
                )
        cut = followed.cuts.get(number)
        taken, some = (None, False) if cut is None else _taken(op, cut, coupling, keep)
        expected.append(Expected(number, op.name, left, op.module, taken, some))
    return expected


def left_of(shape: tuple[int, ...], labels: Sequence[Label], coupling: Coupling, keep: NDArray[np.bool_]) -> Shape:
    """What is left of a shape; None, which fits anything, where it is not one that these labels were made for."""
    if any(
        len(shape) != f.ndim or any(n not in (1, size) for n, size in zip(f.shape, shape, strict=True)) for f in labels
    ):
        return None
    return coupling.shape_after(shape, labels, keep)


def _taken(op: Op, label: Label, coupling: Coupling, keep: NDArray[np.bool_]) -> tuple[list[int] | None, bool]:
    """Where the positions that a slice or select takes lie among those that are left, and whether it leaves any; None
    where none goes."""
    named = arguments(op)
    dim = named.get("dim", 0) % label.ndim
    along: NDArray[np.bool_] = np.moveaxis(coupling.kept(label, keep), dim, 0).reshape(label.shape[dim], -1)
    stays = np.asarray(along.any(axis=1))
    if stays.all():
        return None, False
    place = np.cumsum(stays) - 1
    taken = [int(place[i]) for i in positions(named, len(stays)) if stays[i]]
    return taken, len(taken) < int(np.count_nonzero(stays))
