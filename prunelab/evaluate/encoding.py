"""A tensor with zeros in fewer bytes: a bitmap, CSR or N:M, written and read back bit for bit.

Every encoding stores the elements that are not zero and says where they belong; they differ in how. With n elements of
b bytes each, k of them nonzero, in a matrix of R rows (the first dimension; a vector is one row) and C columns:

- `dense` stores everything: n·b bytes.
- `bitmap`: one bit an element, then the nonzero ones: ⌈n/8⌉ + k·b.
- `CSR`: row pointers, column indices, nonzero elements: (R + 1)·p + k·(i + b). p and i are 1, 2, 4 or 8 bytes: the
  smallest unsigned integers that hold k and C - 1.
- `N:M`, such as `2:4` (Mishra et al. 2021): N elements of every M along a row, S = R·⌈C/M⌉·N altogether, with their
  places in ⌈log₂ M⌉ bits each: S·b + ⌈S·⌈log₂ M⌉/8⌉. It exists where no M hold more than N nonzero ones, M a power of
  two up to 32.

Zeros keep their sign: where any is negative, the encodings other than dense store one more bit for each zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from prunelab.evaluate.layouts import CSR, Bitmap, Form, Layout, Reader, bytes_of_bits, layout_of, patterns

_SIGNED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # their zeros have a sign, in the highest bit
_WIDTHS = (1, 2, 4, 8)


@dataclass(frozen=True, repr=False)
class Encoded:
    """A tensor as bytes, made by `encode`. The payload alone does not say what it is: the other fields do.

    `encoding` is "dense", "bitmap", "CSR" or such as "2:4"; `nonzero` counts the elements that are not zero, and
    `signs` says whether the signs of the zeros are stored.
    """

    encoding: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nonzero: int
    signs: bool
    payload: bytes

    def __repr__(self) -> str:
        return f"Encoded({self.encoding}, {self.dtype}, {self.shape}, {len(self.payload):,} bytes)"


def encode(tensor: Tensor, encoding: str | None = None) -> Encoded:
    """`tensor`, of any shape and dtype, in the encoding of the fewest bytes, or in the one that is named.

    Of equally small ones the first wins: dense, N:M with the smallest M, bitmap, CSR. Zero is what equals zero (in
    complex tensors and floats of one byte: what has no bit set), so NaN is stored, with all its bits. Elements of other
    than 1, 2, 4 or 8 bytes are stored dense.

    Raises TypeError for what is no strided tensor, ValueError for one without values (meta) and for an encoding that
    this tensor does not have.

    >>> weight = torch.zeros(4, 100)
    >>> weight[0, 7] = weight[3, 99] = 1.5
    >>> encode(weight), encode(weight, "bitmap")
    (Encoded(CSR, torch.float32, (4, 100), 15 bytes), Encoded(bitmap, torch.float32, (4, 100), 58 bytes))
    """
    check_dense(tensor)
    raw, zeros = _bytes(tensor), _Zeros(tensor)
    layouts = {layout.name: layout for layout in zeros.layouts}
    sizes = {"dense": len(raw)} | {name: zeros.size(layout) for name, layout in layouts.items()}
    if encoding is not None and encoding not in sizes:
        raise ValueError(
            f"encoding={encoding!r} does not exist for this tensor (shape {tuple(tensor.shape)}, {tensor.dtype}, "
            f"{zeros.count} zeros); there are {', '.join(sizes)}"
        )
    chosen = encoding or min(sizes, key=sizes.__getitem__)
    signs = chosen != "dense" and zeros.signed
    payload = raw.tobytes() if chosen == "dense" else zeros.write(layouts[chosen])
    return Encoded(chosen, tensor.dtype, tuple(tensor.shape), tensor.numel() - zeros.count, signs, payload)


def decode(encoded: Encoded) -> Tensor:
    """The tensor that `encode` was given, on the CPU: the same dtype, shape and bits.

    Raises ValueError where the payload is not what `encode` writes: too short, too long, or pointing outside.
    """
    payload = Reader(encoded.payload)
    try:
        elements = _read(encoded, payload)
        if len(payload):
            raise ValueError(f"it is {len(payload)} bytes too long")
    except (ValueError, OverflowError, MemoryError) as error:  # the last two where the shape is absurd
        raise ValueError(f"the payload of {encoded!r} cannot be read: {error}") from None
    tensor = torch.empty(encoded.shape, dtype=encoded.dtype)
    _bytes(tensor)[:] = elements.reshape(-1).view(np.uint8)
    return tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one dtype, one shape and the same bits: 0.0 is not -0.0 here, and NaN is NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(_bytes(a), _bytes(b)))


class _Zeros:
    """Where a tensor is zero, and how it is stored without them."""

    def __init__(self, tensor: Tensor) -> None:
        self.count, self.signed = 0, False
        self.layouts: tuple[Layout, ...] = ()
        width, sign = tensor.dtype.itemsize, _sign_bit(tensor.dtype)
        if width not in _WIDTHS:
            return
        self._shape = _matrix(tuple(tensor.shape))
        self._values = (
            _bytes(tensor).view(f"<u{width}").reshape(self._shape)
        )  # integers compare fast and keep NaN's bits
        self._kept = (self._values & (sign - 1) if sign else self._values) != 0
        self.count = self._kept.size - int(np.count_nonzero(self._kept))
        if self.count:
            self.signed = bool(sign and np.any(self._values == sign))  # is any -0.0?
            self.layouts = (*patterns(self._kept), Bitmap(), CSR())

    def size(self, layout: Layout) -> int:
        """The bytes that `write` returns."""
        form = Form(self._kept.shape, self._kept.size - self.count, self._values.dtype)
        return layout.size(form) + (bytes_of_bits(self.count) if self.signed else 0)

    def write(self, layout: Layout) -> bytes:
        values = np.where(self._kept, self._values, 0) if self.signed else self._values  # without the signs of zeros
        parts = layout.write(values, self._kept)
        if self.signed:
            parts.append(np.packbits(self._values[~self._kept] != 0))
        return b"".join(part.tobytes() for part in parts)


def _read(encoded: Encoded, payload: Reader) -> np.ndarray:
    """The elements, as bytes or as unsigned integers of their width."""
    width, count = encoded.dtype.itemsize, math.prod(encoded.shape)
    if encoded.encoding == "dense":
        return payload.take(np.dtype(np.uint8), count * width)
    if width not in _WIDTHS:
        raise ValueError(f"elements of {width} bytes are stored dense")
    dtype = np.dtype(f"<u{width}")
    values = layout_of(encoded.encoding).read(payload, Form(_matrix(encoded.shape), encoded.nonzero, dtype))
    zero = values == 0
    zeros = int(np.count_nonzero(zero))
    if count - zeros != encoded.nonzero:
        raise ValueError(f"it holds {count - zeros} nonzero elements, not {encoded.nonzero}")
    if encoded.signs:
        negative = payload.bits(zeros)
        values[zero] = np.where(negative, dtype.type(_sign_bit(encoded.dtype)), dtype.type(0))
    return values


def _sign_bit(dtype: torch.dtype) -> int:
    """-0.0 as an unsigned integer; 0 where zeros have no sign."""
    return 1 << (8 * dtype.itemsize - 1) if dtype in _SIGNED else 0


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns): the first dimension by the others; a vector is one row."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, math.prod(shape[1:] if len(shape) > 1 else shape)


def _bytes(tensor: Tensor) -> np.ndarray:
    """The content of a tensor as uint8, element by element; its own memory where it is contiguous on the CPU."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy()


def check_dense(tensor: Tensor) -> None:
    """Raise TypeError for what is no strided tensor, ValueError for a tensor without values."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        what = f"a tensor with layout {tensor.layout}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"what is encoded must be a dense tensor, not {what}; .to_dense() makes one of a sparse tensor")
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        raise ValueError("a tensor without values (on the meta device, or fake) cannot be encoded; load them first")
