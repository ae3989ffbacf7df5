"""The neural feature ansatz: the feature matrix of a layer, and how alike two such matrices are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunelab.criteria.members import finest, precise
from prunelab.lottery.features.gradients import find
from prunelab.targets import unwrap


def neural_feature_matrix(model: nn.Module, layer: str = "") -> Tensor:
    """WᵀW of a Linear layer: which directions of its input it amplifies (Radhakrishnan et al. 2022).

    Args:
        model: a module; with the default `layer=""` it is the layer itself.
        layer: the name of a Linear module in it, with a weight (outputs, inputs).

    Returns:
        (inputs, inputs), in float64 (float32 on MPS).

    Raises TypeError where that is no Linear module, ValueError where there is none of that name.
    """
    module = find(unwrap(model), layer) if layer else model
    if not isinstance(module, nn.Linear):
        raise TypeError(f"layer={layer!r} is a {type(module).__name__}; the feature matrix is that of an nn.Linear")
    weight = precise(module.weight.detach())  # (outputs, inputs)
    return weight.T @ weight


def correlation(a: Tensor, b: Tensor, *, centred: bool = True, initial: Tensor | None = None) -> float:
    """How alike two matrices are, whatever their scales: from -1 to 1, 1 for a positive multiple.

    The ansatz of Radhakrishnan et al. 2022 is that after training WᵀW of a layer is proportional to the average
    gradient outer product of the network with respect to what the layer reads.

    >>> a = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    >>> [round(correlation(a, b, centred=centred), 3) for b in (5 * a, torch.eye(2)) for centred in (True, False)]
    [1.0, 1.0, 0.905, 0.913]

    Args:
        a, b: tensors of one shape.
        centred: Pearson's correlation of the entries; False: their cosine, which is high for any two positive
            semidefinite matrices that have much of the identity in them.
        initial: what `a` was before training; it is subtracted from `a` first, and what is left is what was learned.

    Raises ValueError for tensors of different shapes, for NaN and infinity, and where nothing varies.
    """
    if initial is not None:
        if initial.shape != a.shape:
            raise ValueError(f"initial has shape {tuple(initial.shape)}, but a has {tuple(a.shape)}")
        a = precise(a) - initial.to(a.device, finest(a.device))
    if a.shape != b.shape or not a.numel():
        raise ValueError(
            f"two tensors of one shape, with at least one entry, not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    left, right = precise(a).flatten(), b.to(a.device, finest(a.device)).flatten()
    if centred:
        left, right = left - left.mean(), right - right.mean()
    lengths = left.norm(), right.norm()
    if not all(bool(length.isfinite()) for length in lengths):
        raise ValueError("a matrix holds NaN or infinity, or is too large to be squared; no correlation is defined")
    if not all(lengths):
        raise ValueError(
            f"{'a' if not lengths[0] else 'b'} is {'constant' if centred else 'zero'}"
            f"{' once initial is subtracted' if initial is not None and not lengths[0] else ''}: there is nothing to "
            "correlate"
        )
    cosine = (left / lengths[0]) @ (right / lengths[1])
    return float(torch.clamp(cosine, -1, 1))
