"""How a matrix with zeros is laid out in a file: as a bitmap, as compressed rows, or N of every M.

A layout gets unsigned integers (rows, columns), the bits of the elements, and stores those that are not 0. It says how
many bytes that takes without writing them, writes them, and reads them back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

GROUPS = (2, 4, 8, 16, 32)  # the M of N:M


@dataclass(frozen=True)
class Form:
    """What is known of a matrix apart from its payload: (rows, columns), how many are not 0, and the integers' type."""

    shape: tuple[int, int]
    nonzero: int
    dtype: np.dtype


class Layout(Protocol):
    """One way to store a matrix. `kept` (rows, columns) is True where an element is not 0."""

    @property
    def name(self) -> str:
        """What it is called in reports and files: "bitmap", "CSR" or such as "2:4"."""

    def size(self, form: Form) -> int:
        """How many bytes `write` writes for such a matrix."""

    def write(self, values: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
        """What to write, one array after the other."""

    def read(self, payload: Reader, form: Form) -> np.ndarray:
        """The matrix that was written, a new one. ValueError where the payload is no such thing."""


class Bitmap:
    """One bit for each element, row by row from the highest bit of the first byte; then the nonzero elements."""

    name = "bitmap"

    def size(self, form: Form) -> int:
        return bytes_of_bits(math.prod(form.shape)) + form.nonzero * form.dtype.itemsize

    def write(self, values: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
        return [np.packbits(kept), values[kept]]

    def read(self, payload: Reader, form: Form) -> np.ndarray:
        kept = payload.bits(math.prod(form.shape))
        if np.count_nonzero(kept) != form.nonzero:
            raise ValueError(f"its bitmap does not mark {form.nonzero} elements")
        matrix = np.zeros(len(kept), form.dtype)
        matrix[kept] = payload.take(form.dtype, form.nonzero)
        return matrix.reshape(form.shape)


class CSR:
    """Compressed sparse rows: where each row starts, the column of each nonzero element, and the elements.

    Both kinds of index are the smallest unsigned integers that hold the largest one.
    """

    name = "CSR"

    def size(self, form: Form) -> int:
        pointer, index = _index_types(form.shape, form.nonzero)
        return (form.shape[0] + 1) * pointer.itemsize + form.nonzero * (index.itemsize + form.dtype.itemsize)

    def write(self, values: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
        starts = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))])
        pointer, index = _index_types(kept.shape, int(starts[-1]))
        return [starts.astype(pointer), np.nonzero(kept)[1].astype(index), values[kept]]

    def read(self, payload: Reader, form: Form) -> np.ndarray:
        rows, columns = form.shape
        pointer, index = _index_types(form.shape, form.nonzero)
        starts = payload.take(pointer, rows + 1).astype(np.int64)
        places = payload.take(index, form.nonzero).astype(np.int64)
        if starts[0] != 0 or starts[-1] != form.nonzero or np.any(np.diff(starts) < 0) or np.any(places >= columns):
            raise ValueError("its row pointers or column indices lie outside of the matrix")
        matrix = np.zeros(form.shape, form.dtype)
        matrix[np.repeat(np.arange(rows), np.diff(starts)), places] = payload.take(form.dtype, form.nonzero)
        return matrix


@dataclass(frozen=True)
class NM:
    """Exactly `n` elements of every `m` along a row: their places in the group, ⌈log₂ m⌉ bits each, then the elements.

    Each row is filled up to a multiple of `m` with zeros; a group with fewer nonzero elements stores zeros too.
    """

    n: int
    m: int

    @property
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    def size(self, form: Form) -> int:
        stored = self._groups(form) * self.n
        return bytes_of_bits(stored * self._bits) + stored * form.dtype.itemsize

    def write(self, values: np.ndarray, kept: np.ndarray) -> list[np.ndarray]:
        groups = _filled_up(values, self.m).reshape(-1, self.m)
        stored = _filled_up(kept, self.m).reshape(-1, self.m)
        missing = self.n - np.count_nonzero(stored, axis=1)  # zeros that each group has to store
        for place in range(self.m):
            zero = ~stored[:, place] & (missing > 0)
            stored[:, place] |= zero
            missing -= zero
        places = np.nonzero(stored)[1].astype(np.uint8)
        bits = np.unpackbits(places[:, None], axis=1)[:, 8 - self._bits :]
        return [np.packbits(bits), groups[stored]]

    def read(self, payload: Reader, form: Form) -> np.ndarray:
        groups, (rows, columns) = self._groups(form), form.shape
        places = np.zeros(groups * self.n, np.intp)
        for digit in payload.bits(len(places) * self._bits).reshape(-1, self._bits).T:
            places = 2 * places + digit
        values = payload.take(form.dtype, len(places))
        matrix = np.zeros((groups, self.m), form.dtype)
        np.put_along_axis(matrix, places.reshape(-1, self.n), values.reshape(-1, self.n), axis=1)
        return np.ascontiguousarray(matrix.reshape(rows, -1)[:, :columns])

    def _groups(self, form: Form) -> int:
        return form.shape[0] * -(-form.shape[1] // self.m)

    @property
    def _bits(self) -> int:
        return (self.m - 1).bit_length()


class Reader:
    """Takes a payload apart, array by array."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._position = payload, 0

    def __len__(self) -> int:
        """The bytes that are left."""
        return len(self._payload) - self._position

    def take(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The next `count` numbers; ValueError where there are fewer."""
        if count * dtype.itemsize > len(self):
            raise ValueError("it is too short")
        array = np.frombuffer(self._payload, dtype, count, self._position)
        self._position += array.nbytes
        return array

    def bits(self, count: int) -> np.ndarray:
        """The next `count` bits as bool, highest bit first, and on to the next whole byte."""
        return np.unpackbits(self.take(np.dtype(np.uint8), bytes_of_bits(count)), count=count).view(bool)


def patterns(kept: np.ndarray) -> list[NM]:
    """The N:M that a matrix has: for each M, N is the most that any M of a row hold, where that is fewer than M."""
    found = []
    counts = _filled_up(kept, GROUPS[-1]).view(np.uint8)
    for m in GROUPS:
        counts = counts[:, 0::2] + counts[:, 1::2]  # (rows, groups of m)
        most = int(counts.max(initial=1))
        if most < m:
            found.append(NM(most, m))
    return found


def layout_of(name: str) -> Layout:
    """The layout of that name. ValueError for one that is not known."""
    if name in ("bitmap", "CSR"):
        return Bitmap() if name == "bitmap" else CSR()
    n, _, m = name.partition(":")
    if n.isdecimal() and m.isdecimal() and int(m) in GROUPS and 1 <= int(n) < int(m):
        return NM(int(n), int(m))
    raise ValueError(f"there is no encoding {name!r}; there are dense, bitmap, CSR, and N:M such as 2:4")


def bytes_of_bits(count: int) -> int:
    return -(-count // 8)


def _filled_up(matrix: np.ndarray, multiple: int) -> np.ndarray:
    """A copy of `matrix` (rows, columns) with zeros added to each row, up to a multiple of columns."""
    return np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % multiple)))


def _index_types(shape: tuple[int, int], nonzero: int) -> tuple[np.dtype, np.dtype]:
    """The types of CSR's row pointers and column indices."""
    return _smallest_type(nonzero), _smallest_type(max(shape[1] - 1, 0))


def _smallest_type(largest: int) -> np.dtype:
    """The smallest unsigned integers that hold `largest`."""
    return np.min_scalar_type(largest).newbyteorder("<")
