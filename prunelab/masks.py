"""The decision: which entries of which parameters are kept, as data beside an unchanged model."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from prunelab.hold import Hold, zero_removed_
from prunelab.memory import memory_of
from prunelab.names import is_bias
from prunelab.targets import named_parameters

__all__ = ["Masks"]

_FORMAT = "prunelab.masks.1"


class Masks(Mapping[str, Tensor]):
    """A mapping from parameter names to bool tensors of the parameters' shapes; True = kept.

    A parameter that is not named is kept whole. The masks are data: the model they belong to knows nothing of them, so
    its `state_dict` keys never change and it can be copied, pickled, compiled and wrapped as before.

    >>> masks = Masks({"fc.weight": torch.tensor([[True, False], [True, True]])})
    >>> masks.sparsity
    0.25
    >>> (~masks)["fc.weight"].tolist()
    [[False, True], [False, False]]

    Args:
        masks: name → bool tensor.
        model: where given, the masks are checked against its parameters and put into its order.

    Raises:
        TypeError: a name is not a string, or a mask is not a bool tensor.
        ValueError: the model has no such parameter, or its shape differs.
    """

    def __init__(self, masks: Mapping[str, Tensor], model: nn.Module | None = None) -> None:
        if not isinstance(masks, Mapping):
            raise TypeError(f"masks must be a mapping from parameter names to bool tensors, not {type(masks).__name__}")
        for name, mask in masks.items():
            if not isinstance(name, str):
                raise TypeError(f"masks are named by strings such as 'fc1.weight', not by {name!r}")
            if not isinstance(mask, Tensor):
                raise TypeError(f"the mask {name!r} must be a bool tensor (True = kept), not {type(mask).__name__}")
            if mask.dtype != torch.bool:
                raise TypeError(f"the mask {name!r} must be a bool tensor (True = kept), not {mask.dtype}; use .bool()")
        self._masks = dict(masks)
        if model is not None:
            order = {name: position for position, name in enumerate(self._parameters(model))}
            self._masks = {name: self._masks[name] for name in sorted(self._masks, key=order.__getitem__)}

    # --- a mapping -----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._masks[name]
        except KeyError:
            raise KeyError(f"no mask is named {name!r}; there are {', '.join(self._masks) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keys() == other.keys() and all(
            torch.equal(mask, other[name].to(mask.device)) for name, mask in self.items()
        )

    __hash__ = None  # type: ignore[assignment]  # a mapping with mutable values, like dict

    # --- what they say -------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Entries of all masks together."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def removed(self) -> int:
        """Entries that are removed (False)."""
        return self.total - sum(_count_true(mask) for mask in self._masks.values())

    @property
    def sparsity(self) -> float:
        """The fraction of the masked parameters' entries that is removed; 0.0 where there are none."""
        return self.removed / self.total if self.total else 0.0

    @property
    def sparsities(self) -> dict[str, float]:
        """The sparsity of each parameter."""
        return {name: Masks({name: mask}).sparsity for name, mask in self.items()}

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The parameters, biases left aside, that are removed whole: no signal passes there any more.

        >>> Masks({"fc.weight": torch.tensor([[False, False]]), "fc.bias": torch.tensor([False])}).collapsed
        ('fc.weight',)
        """
        return tuple(name for name, mask in self.items() if mask.numel() and not bool(mask.any()) and not is_bias(name))

    def __repr__(self) -> str:
        return f"Masks({len(self)} parameters, {self.removed} of {self.total} entries removed, {self.sparsity:.4f})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row'><code>{html.escape(name)}</code></th><td>{' × '.join(map(str, mask.shape))}</td>"
            f"<td>{_count_true(mask):,}</td><td>{sparsity:.4f}</td></tr>"
            for (name, mask), sparsity in zip(self.items(), self.sparsities.values(), strict=True)
        )
        head = "".join(f"<th scope='col'>{title}</th>" for title in ("parameter", "shape", "kept", "sparsity"))
        caption = f"Masks: {self.removed:,} of {self.total:,} entries removed, sparsity {self.sparsity:.4f}"
        if self.collapsed:
            caption += f"; nothing is left of {html.escape(', '.join(self.collapsed))}"
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    # --- algebra -------------------------------------------------------------------------------------------------

    def __and__(self, other: Masks) -> Masks:
        """Kept where both keep. A parameter that only one side names follows that side."""
        return self._combine(other, torch.logical_and, alone=Tensor.clone)

    def __or__(self, other: Masks) -> Masks:
        """Kept where either keeps. A parameter that only one side names is kept whole: the other keeps all of it."""
        return self._combine(other, torch.logical_or, alone=torch.ones_like)

    def __invert__(self) -> Masks:
        """Kept where these remove, for the parameters that these name."""
        return Masks({name: ~mask for name, mask in self.items()})

    def _combine(
        self, other: Masks, both: Callable[[Tensor, Tensor], Tensor], alone: Callable[[Tensor], Tensor]
    ) -> Masks:
        if not isinstance(other, Masks):
            return NotImplemented
        combined = {}
        for name in dict.fromkeys([*self, *other]):
            if name not in self or name not in other:
                combined[name] = alone(self[name] if name in self else other[name])
                continue
            mine, theirs = self[name], other[name]
            if mine.shape != theirs.shape:
                raise ValueError(
                    f"the masks of {name!r} have shapes {tuple(mine.shape)} and {tuple(theirs.shape)}: they belong to "
                    "different models"
                )
            combined[name] = both(mine, theirs.to(mine.device))
        return Masks(combined)

    def to(self, device: torch.device | str) -> Masks:
        """The same masks on another device."""
        return Masks({name: mask.to(device) for name, mask in self.items()})

    # --- what they do to a model ---------------------------------------------------------------------------------

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> nn.Module:
        """Set the removed entries of the model's parameters to zero, in place, and return the model.

        Entries become exactly +0.0, whatever they were (infinities and NaN too); kept entries keep every bit.
        Raises ValueError, and changes nothing, where the masks do not fit the model.
        """
        for parameter, mask in self._pairs(model):
            zero_removed_(parameter.detach(), mask.to(parameter.device))
        return model

    def hold(self, model: nn.Module, optimizer: Optimizer) -> Hold:
        """Apply the masks now and again after every step of the optimizer, until the handle is released.

        Momentum, weight decay and adaptive steps move weights whose gradient is zero; the hold sets them back to zero
        at the end of `optimizer.step()`. Works as a context manager too: `with masks.hold(model, optimizer): ...`.
        What happens between steps is not watched: after `load_state_dict` call `apply_` again, and a copy of the
        optimizer has no hold. Raises ValueError for an optimizer that trains none of the masked parameters, and for
        LBFGS, which evaluates the model in the middle of its step.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError("LBFGS evaluates the model within its step, where the masks cannot hold; use SGD or Adam")
        pairs = self._pairs(model)
        trained = {memory_of(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if pairs and not any(memory_of(parameter) in trained for parameter, _ in pairs):
            raise ValueError(
                "the optimizer trains none of the masked parameters: it was made for another model, or for a copy "
                "of this one; make it from model.parameters()"
            )
        return Hold(pairs, optimizer)

    def _pairs(self, model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        parameters = self._parameters(model)
        return [(parameters[name], mask) for name, mask in self.items()]

    def _parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The model's parameters, once it is sure that every mask has its own among them."""
        parameters = named_parameters(model)
        for name, mask in self.items():
            if name not in parameters:
                raise ValueError(
                    f"the model has no parameter {name!r}: these masks belong to another model "
                    f"(it has {', '.join(parameters) or 'none'})"
                )
            if isinstance(parameters[name], UninitializedParameter):
                raise ValueError(f"{name!r} has no values yet (a lazy module): run the model once before masking it")
            shape = tuple(parameters[name].shape)
            if shape != tuple(mask.shape):
                raise ValueError(
                    f"the mask of {name!r} has shape {tuple(mask.shape)}, the parameter {shape}: "
                    "these masks belong to another model"
                )
            if any(stride == 0 and size > 1 for stride, size in zip(parameters[name].stride(), shape, strict=True)):
                raise ValueError(
                    f"{name!r} is expanded: several of its entries are one number in memory, so they cannot be removed "
                    "one by one; make it a parameter of its own with .contiguous()"
                )
        return parameters

    # --- files ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file (one byte an entry; loading it runs no code). An existing file is replaced whole."""
        target = Path(path).resolve()  # through a link, so that the link stays one
        if target.is_dir():
            raise IsADirectoryError(f"{os.fspath(target)!r} is a folder; name a file, such as masks.safetensors, in it")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {os.fspath(target.parent)!r} to save the masks in")
        if "__metadata__" in self:
            raise ValueError("safetensors reserves the name '__metadata__', so a mask of that name cannot be saved")
        tensors = {name: mask.detach().cpu().contiguous().clone() for name, mask in self.items()}
        metadata = {"format": _FORMAT, "order": json.dumps(list(self))}
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            save_file(tensors, part, metadata)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: nn.Module | None = None) -> Masks:
        """Read what `save` wrote, in the same order; with `model`, checked against it.

        Raises FileNotFoundError where there is no file, and ValueError where it holds no masks or does not fit.
        """
        if not Path(path).is_file():
            what = "a folder, not a file" if Path(path).is_dir() else "not there"
            raise FileNotFoundError(f"{os.fspath(path)!r} is {what}; masks are read from what Masks.save wrote")
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT or "order" not in metadata:
                    raise ValueError(f"{os.fspath(path)!r} holds no masks written by Masks.save (format {_FORMAT})")
                return cls({name: file.get_tensor(name) for name in json.loads(metadata["order"])}, model)
        except SafetensorError as error:
            raise ValueError(f"{os.fspath(path)!r} is not a safetensors file: {error}") from error


def _count_true(mask: Tensor) -> int:
    return int(np.count_nonzero(mask.numpy())) if mask.device.type == "cpu" else int(mask.sum())
