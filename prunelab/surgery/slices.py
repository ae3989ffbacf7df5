"""Cutting slices out of tensors: plain data that says which positions stay, and the tensors that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelab.surgery.labels import compress, extents, together, varying


@dataclass(frozen=True)
class Cut:
    """Which positions stay along `dims`, flat, of those in a box of `sizes`; they fill a box of `left`.

    One dimension in nearly all cases; two where each group of a convolution keeps other inputs.
    """

    dims: tuple[int, ...]
    sizes: tuple[int, ...]
    left: tuple[int, ...]
    kept: tuple[int, ...]

    def mask(self, dims: int) -> NDArray[np.bool_]:
        """True where a position stays, broadcastable to the tensor."""
        mask = np.zeros(math.prod(self.sizes), bool)
        mask[list(self.kept)] = True
        shape = [1] * dims
        for dim, size in zip(self.dims, self.sizes, strict=True):
            shape[dim] = size
        return mask.reshape(shape)

    def to_dict(self) -> dict[str, Any]:
        return {"dims": list(self.dims), "sizes": list(self.sizes), "left": list(self.left), "kept": list(self.kept)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Cut:
        return cls(*(tuple(int(i) for i in data[key]) for key in ("dims", "sizes", "left", "kept")))


@dataclass(frozen=True)
class Slices:
    """The cuts of one tensor, and its shape before."""

    shape: tuple[int, ...]
    cuts: tuple[Cut, ...]

    @property
    def left(self) -> tuple[int, ...]:
        """The shape after."""
        sizes = list(self.shape)
        for cut in self.cuts:
            for dim, size in zip(cut.dims, cut.left, strict=True):
                sizes[dim] = size
        return tuple(sizes)

    def rows(self) -> NDArray[np.bool_]:
        """(shape[0],): which positions along the first dimension keep anything."""
        stays = np.ones(self.shape[0], bool)
        for cut in self.cuts:
            if 0 in cut.dims:
                stays &= cut.mask(len(self.shape)).any(axis=tuple(range(1, len(self.shape))))
        return stays

    def keep(self, tensor: Tensor, indices: dict[Any, Tensor] | None = None) -> Tensor:
        """What stays, as a new tensor of shape `left`. Raises ValueError for a tensor of another shape.

        `indices`, empty at first, is for cutting many tensors: those of one layer are cut alike.
        """
        self._check(tensor)
        indices = {} if indices is None else indices
        if all(len(cut.dims) == 1 for cut in self.cuts):
            for cut in self.cuts:
                at = id(cut.kept), tensor.device
                if at not in indices:
                    # `torch.tensor` takes four times as long.
                    indices[at] = torch.from_numpy(np.array(cut.kept, dtype=np.int64)).to(tensor.device)
                tensor = tensor.index_select(cut.dims[0], indices[at])
            return tensor.contiguous() if self.cuts else tensor.clone()
        return tensor[self.mask(tensor.device)].reshape(self.left)

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """bool, of the tensor's shape: True where an element stays."""
        mask = np.ones(self.shape, bool)
        for cut in self.cuts:
            mask &= cut.mask(len(self.shape))
        return torch.from_numpy(mask).to(device)

    def _check(self, tensor: Tensor) -> None:
        if tuple(tensor.shape) != self.shape:
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)}, where the plan was made for {self.shape}")

    def to_dict(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "cuts": [cut.to_dict() for cut in self.cuts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Slices:
        return cls(tuple(data["shape"]), tuple(Cut.from_dict(cut) for cut in data["cuts"]))


def slices_of(
    shape: Sequence[int], kept: Sequence[NDArray[np.bool_]], known: dict[bytes, tuple[int, ...]] | None = None
) -> Slices | None:
    """The cuts that leave the positions which each label keeps; None where nothing goes.

    `known`, empty at first, is for many tensors: what they keep alike is then one object.
    """
    known = {} if known is None else known
    cuts = []
    for stays, dims in together(kept):
        if stays.all():
            continue
        box = extents(stays)
        assert box is not None, "what is left of a tensor fills a box"
        if len(dims) > 1:
            alike = compress(stays)  # of size 1 where nothing, or the same, goes along a dimension
            if varying(alike):
                dims, stays = varying(alike), alike
        content = stays.tobytes()
        if content not in known:
            known[content] = tuple(np.flatnonzero(stays).tolist())
        cuts.append(Cut(dims, tuple(stays.shape[d] for d in dims), tuple(box[d] for d in dims), known[content]))
    return Slices(tuple(shape), tuple(cuts)) if cuts else None
