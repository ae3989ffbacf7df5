"""What folded constants are checked against: the network in which removed channels are made by zeros, and which emits,
moves and reads their constants itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from prunelab.anatomy import Anatomy
from prunelab.surgery.aligned import forward_of
from prunelab.surgery.coupling import Coupling
from prunelab.surgery.rebuild import copied
from prunelab.surgery.verifying import difference

Units = NDArray[np.bool_]


def folds_exactly(coupling: Coupling, keep: Units, zeroed: Units, example_inputs: Any, outputs: Any) -> bool:
    """Whether the smaller network's `outputs` are those of the network whose removed channels still emit their
    constants: those of the `zeroed` units (units,) are zero there, too."""
    reference = unfolded(coupling, keep, zeroed)
    try:
        with forward_of(Anatomy(reference), example_inputs) as (args, kwargs):
            expected = reference(*args, **kwargs)
    except Exception:  # of the model's code, whatever it is: nothing confirms the constants
        return False
    gap, allowed = difference(expected, outputs)
    return gap <= allowed


def unfolded(coupling: Coupling, keep: Units, zeroed: Units) -> nn.Module:
    """A copy of the network in which the weights that make removed channels are zero, and nothing else is; of `zeroed`
    units everything is."""
    tensors, unit_of = coupling.anatomy.tensors, coupling.solution.unit_of
    replaced: dict[str, Tensor] = {}
    for name, labels in coupling.tensors.items():
        if name not in tensors:
            continue
        tensor = tensors[name]
        stays = torch.ones((1,) * tensor.dim(), dtype=torch.bool)
        for label in labels:
            units = unit_of[label]
            # A row of weight normalisation has no direction without its length, and goes by that.
            made = coupling.made[label] & ~keep[units] if name not in coupling.normed else np.zeros(label.shape, bool)
            stays = stays & torch.from_numpy(~(made | zeroed[units]))
        if not stays.all():
            value = torch.where(stays.to(tensor.device), tensor.detach(), torch.zeros_like(tensor))
            replaced[name] = nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
    return copied(coupling.anatomy, replaced)


def emitting(coupling: Coupling) -> Units:
    """(units,): those that something is added to (a bias, a shift): they may emit a constant without weights."""
    found = np.zeros(coupling.solution.why.size, bool)
    modules = coupling.anatomy.modules
    for name, tensor in coupling.anatomy.tensors.items():
        path, _, kind = name.rpartition(".")
        if kind == "running_var" or (kind == "weight" and isinstance(modules.get(path), _NormBase)):
            continue  # factors: they make nothing of zero
        values = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
        nonzero = (values != 0).cpu().numpy()
        for label in coupling.tensors.get(name, ()):
            adds = ~(coupling.made[label] | coupling.read[label])
            others = tuple(dim for dim, size in enumerate(label.shape) if size == 1)
            present = nonzero.any(axis=others, keepdims=True) if others else nonzero
            found[coupling.solution.unit_of[label[adds & present]]] = True
    return found
