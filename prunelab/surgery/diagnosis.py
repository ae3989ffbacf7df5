"""Where two networks that should compute the same first differ: the values of each operation, side by side.

An error in a branch that a layer scale of a millionth hides is no difference in the outputs. It would be one after the
next few epochs of training.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.aligned import Aligned, Expected, Shape, Shapes, forward_of, inside
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.labels import Label
from prunelab.surgery.operations import operator, shares, writes
from prunelab.surgery.rehearsal import left_of, rehearse, shapes_of
from prunelab.surgery.sketch import Sketch, Sketches, sketch
from prunelab.surgery.slices import Slices, slices_of
from prunelab.surgery.verifying import TOLERANCE
from prunelab.trace import Op, map_tensors
from prunelab.trace.record import all_of, tensors_returned

_LOOSER = 10  # than the outputs: single values, relative to the largest one of their tensor
_ROUNDING = 1e-6  # of what an operation reads: the difference of two equal numbers is nothing but rounding


def comparable(coupling: Coupling) -> frozenset[int]:
    """The operations, by number, that compute values which somebody reads: no views and copies, which may be of memory
    that is yet to be filled."""
    followed = coupling.followed[0]
    return frozenset(
        number
        for number, op in enumerate(followed.trace.ops)
        if number not in followed.idle
        and (writes(op) or not shares(op))
        and not operator(op).startswith(("empty", "new_empty", "resize", "copy"))
    )


def compare(
    masked: nn.Module,
    example_inputs: Any,
    coupling: Coupling,
    keep: NDArray[np.bool_],
    replaced: Sequence[str],
    small: Sketches,
    shapes: Shapes | None = None,
) -> tuple[Any, int | None]:
    """What the masked network returns, and the number of the first operation of the trace that returned something else
    in the smaller one, of which sketches were made; None where there is none. `shapes` are those of the masked
    network, where they are not those of the trace."""
    trace = coupling.followed[0].trace
    used = trace.used
    expected = [
        Expected(number, op.name, _shapes(number, op, used, shapes), op.module)
        for number, op in enumerate(trace.ops)
        if not inside(op.module, replaced)
    ]
    watch, anatomy = _Compared(expected, replaced, small, coupling, keep), Anatomy(masked)
    with forward_of(anatomy, example_inputs) as (args, kwargs), watch.following(anatomy), watch:
        return masked(*args, **kwargs), watch.first


def confirmed(
    at: int,
    masked: nn.Module,
    small: nn.Module,
    example_inputs: Any,
    coupling: Coupling,
    keep: NDArray[np.bool_],
    replaced: Sequence[str],
    sketched: Container[int],
) -> int | None:
    """The first operation that returns something else on noisy inputs too; `at` where they cannot be tried, None where
    there is none. On a constant image, what is left after its mean is taken away is rounding and nothing else, and a
    normalisation makes it large."""
    inputs = _noisy(example_inputs)
    try:
        shapes = shapes_of(masked, inputs, coupling, replaced)
    except Exception:  # whatever a network raises that does not take such inputs: then the first finding stands
        return at
    result = rehearse(Anatomy(small), inputs, coupling, keep, replaced, sketched=sketched, shapes=shapes)
    return at if result.failed else compare(masked, inputs, coupling, keep, replaced, result.sketches, shapes)[1]


def _noisy(inputs: Any) -> Any:
    """Float inputs with noise as large as their spread, or as they are themselves."""
    draw = torch.Generator().manual_seed(1)

    def noisy(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not tensor.numel() or not bool(tensor.isfinite().all()):
            return tensor
        values = tensor.detach().to("cpu", torch.float32)
        spread = float(values.std(correction=0)) or float(values.abs().max()) or 1.0
        noise = spread * torch.randn(tensor.shape, generator=draw)
        return (values + noise).to(tensor.device, tensor.dtype)

    return map_tensors(noisy, inputs)


def _shapes(number: int, op: Op, used: Container[int], shapes: Shapes | None) -> tuple[Shape, ...]:
    if shapes is not None:
        return shapes.get(number, (None,) * len(op.outputs))
    return tuple([value.shape if value.id in used else None for value in op.outputs])


class _Compared(Aligned):
    """Compares what each operation returns with the sketch that there is of it."""

    def __init__(
        self,
        expected: Sequence[Expected],
        skip: Sequence[str],
        small: Sketches,
        coupling: Coupling,
        keep: NDArray[np.bool_],
    ) -> None:
        super().__init__(expected, skip)
        self._small, self._coupling, self._keep = small, coupling, keep
        self._scales: dict[int, float] = {}  # value id → its largest magnitude, or that of what it was computed from
        self._cuts: dict[tuple[Any, ...], Slices | None] = {}
        self.first: int | None = None

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        read = [self.value(tensor).id for tensor in all_of(Tensor, (args, kwargs))] if self.first is None else []
        result = func(*args, **kwargs)
        tensors = tensors_returned(result)
        one = self.place(str(func.name()), tuple([tuple(tensor.shape) for tensor in tensors]))
        if self.first is not None:
            return result
        scale = max((self._scales.get(value, 0.0) for value in read), default=0.0)
        found = self._small.get(one.number, ()) if one is not None else ()
        for place, tensor in enumerate(tensors):
            own = scale
            if one is not None and place < min(len(found), len(one.shapes)) and one.shapes[place] is not None:
                labels = self._coupling.followed[0].returned[one.number][place]
                expected, other = self._left(tensor, labels), found[place]
                if expected is not None and other is not None:
                    tolerance = _LOOSER * TOLERANCE.get(tensor.dtype, 1e-4)
                    if expected.shape == other.shape and expected.differs(other, tolerance, _ROUNDING * scale):
                        self.first = one.number
                    own = expected.scale
            self._scales[self.value(tensor).id] = own
        return result

    def _left(self, tensor: Tensor, labels: Sequence[Label]) -> Sketch | None:
        """A sketch of what the smaller network has of a tensor; None where that fills no box."""
        shape = tuple(tensor.shape)
        if left_of(shape, labels, self._coupling, self._keep) is None:
            return None
        key = (shape, *map(id, labels))
        if key not in self._cuts:
            self._cuts[key] = slices_of(shape, [self._coupling.kept(label, self._keep) for label in labels])
        cut = self._cuts[key]
        return sketch(tensor if cut is None else cut.keep(tensor))
