"""A plan: what is cut out of which tensor, as plain data that rebuilds the smaller network anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.attention import SlimAttention
from prunelab.surgery.rebuild import (
    add_biases,
    copied,
    set_attribute,
    smaller_tensors,
    update_attributes,
)
from prunelab.surgery.slices import Slices
from prunelab.targets import unwrap

_FORMAT = "prunelab.plan.1"


@dataclass(frozen=True)
class Part:
    """One coupled group, as the plan tells of it: `removed` of `channels` go. `reason` says why none can."""

    name: str
    channels: int
    removed: int
    width: int
    made_by: tuple[str, ...]
    members: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What `shrink` decided.

    - `slices`: {parameter or buffer: what is left of it}.
    - `attributes`: (module, attribute, value): numbers that the model's own code holds.
    - `replaced`: paths of `nn.MultiheadAttention` modules that become `SlimAttention`.
    - `biases`: {parameter: constants added to it}: what removed channels contributed to the layers that read them.
    - `parts` and `frozen`: the coupled groups, those that may be pruned and those that may not.
    - `params`, `macs`: counts before and after. `notes`: what the reader should know.
    - `caches`: those of `slices` that are plain attributes of modules, which a network that never ran may not have.
    - `normed`: those of `slices` by the norm of whose rows something is divided (the directions of weight
      normalisation): a row that goes is not zeroed in the masked network, because its length is.
    """

    model: str
    slices: Mapping[str, Slices]
    attributes: tuple[tuple[str, str, int], ...] = ()
    replaced: tuple[str, ...] = ()
    biases: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    frozen: tuple[Part, ...] = ()
    params: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    normed: tuple[str, ...] = ()

    # --- what it does --------------------------------------------------------------------------------------------

    def apply(self, fresh_model: nn.Module) -> nn.Module:
        """The smaller network, built from a network like the one that the plan was made for, which stays as it is.

        Where only the architecture counts, because the smaller weights are loaded next, any weights will do.
        Raises ValueError, naming the tensor, for a network with other shapes.
        """
        return self.cut_out_of(Anatomy(unwrap(fresh_model)))

    def cut_out_of(self, anatomy: Anatomy) -> nn.Module:
        """`apply`, to a network that was taken apart already."""
        small = copied(anatomy, smaller_tensors(anatomy, self.slices, self.caches))
        update_attributes(small, self.slices)
        for path in self.replaced:
            layer = small.get_submodule(path)
            assert isinstance(layer, nn.MultiheadAttention)
            parent, _, name = path.rpartition(".")
            if path:
                setattr(small.get_submodule(parent), name, SlimAttention.of(layer))
            else:
                small = SlimAttention.of(layer)
        for encoder in small.modules() if self.replaced else ():
            if isinstance(encoder, nn.TransformerEncoder):
                encoder.use_nested_tensor = False  # padded batches as nested tensors are for the fused layer only
        for path, attribute, value in self.attributes:
            set_attribute(small, path, attribute, value)
        held = anatomy.parameters
        add_biases(small, {name: self._left(name, values, name in held) for name, values in self.biases.items()})
        return small

    def masked(self, model: nn.Module) -> nn.Module:
        """A copy of `model`, shapes as they are, in which every slice that goes is zero and the constants are added:
        it computes what the smaller network computes, if `model` has the weights from which that was cut (where masks
        were given to `shrink`, those with the masks applied)."""
        anatomy = Anatomy(unwrap(model))
        tensors, zeroed = anatomy.tensors, dict[str, Tensor]()
        for name, cut in self.slices.items():
            if name not in tensors and name in self.caches:
                continue
            if name not in tensors or tuple(tensors[name].shape) != cut.shape:
                found = tuple(tensors[name].shape) if name in tensors else "no tensor"
                raise ValueError(
                    f"{type(anatomy.model).__name__} has {found} for {name!r}, where the plan was made for "
                    f"{cut.shape}: the plan is another network's"
                )
            tensor = tensors[name]
            stays = cut.mask(tensor.device)
            if name in self.normed:
                stays[~torch.from_numpy(cut.rows())] = True
            value = torch.where(stays, tensor.detach(), torch.zeros_like(tensor))
            zeroed[name] = nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
        masked = copied(anatomy, zeroed)
        add_biases(masked, self.biases)
        return masked

    def _left(self, name: str, values: tuple[float, ...], held: bool) -> tuple[float, ...]:
        """The constants of the channels that stay; a bias that is new has the rows of its layer's weight."""
        like = self.slices.get(name if held else f"{name.rpartition('.')[0]}.weight".lstrip("."))
        return values if like is None else tuple(np.array(values)[like.rows()].tolist())

    # --- files ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dictionaries only: what JSON can hold."""
        return {
            "format": _FORMAT,
            "model": self.model,
            "slices": {name: cut.to_dict() for name, cut in self.slices.items()},
            "attributes": [list(entry) for entry in self.attributes],
            "replaced": list(self.replaced),
            "biases": {name: list(values) for name, values in self.biases.items()},
            "parts": [_part_to_dict(part) for part in self.parts],
            "frozen": [_part_to_dict(part) for part in self.frozen],
            "params": list(self.params),
            "macs": list(self.macs),
            "notes": list(self.notes),
            "caches": list(self.caches),
            "normed": list(self.normed),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`. Raises ValueError for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise ValueError(f"this is no plan written by prunelab: its format is {found!r}, not {_FORMAT!r}")
        try:
            return cls._read(data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"the plan is damaged: {type(error).__name__}: {error}") from error

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Plan:
        return cls(
            model=data["model"],
            slices={name: Slices.from_dict(cut) for name, cut in data["slices"].items()},
            attributes=tuple((path, attribute, value) for path, attribute, value in data["attributes"]),
            replaced=tuple(data["replaced"]),
            biases={name: tuple(values) for name, values in data["biases"].items()},
            parts=tuple(_part_from_dict(part) for part in data["parts"]),
            frozen=tuple(_part_from_dict(part) for part in data["frozen"]),
            params=tuple(data["params"]),
            macs=tuple(data["macs"]),
            notes=tuple(data["notes"]),
            caches=tuple(data["caches"]),
            normed=tuple(data.get("normed", ())),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON. An existing file is replaced whole."""
        target = Path(path).resolve()
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(self.to_dict()), encoding="utf-8")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read what `save` wrote. Raises FileNotFoundError, or ValueError where it is no plan."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{os.fspath(path)!r} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ValueError(f"{os.fspath(path)!r} holds no plan")
        return cls.from_dict(data)

    def __str__(self) -> str:
        from prunelab.surgery.telling import to_text

        return to_text(self)

    def _repr_html_(self) -> str:
        from prunelab.surgery.telling import to_html

        return to_html(self)


def _part_to_dict(part: Part) -> dict[str, Any]:
    return {**vars(part), "made_by": list(part.made_by), "members": list(part.members)}


def _part_from_dict(data: Mapping[str, Any]) -> Part:
    return Part(**{**data, "made_by": tuple(data["made_by"]), "members": tuple(data["members"])})
