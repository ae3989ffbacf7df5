"""One layer: its weights and what it reads → the weights that are left, moved so that it puts out nearly the same."""

from __future__ import annotations

import torch
from torch import Tensor

from prunelab.curvature.layerwise.covariance import InputCovariance, covariance_of
from prunelab.curvature.layerwise.damping import check_damping, warn_of_damping
from prunelab.curvature.layerwise.settings import Method, checked
from prunelab.curvature.layerwise.solving import check_weight, refitted, relative_error, solve


@torch.no_grad()
def prune_layer(
    weight: Tensor,
    inputs: Tensor | InputCovariance,
    sparsity: float | None = None,
    method: Method = "obs",
    *,
    pattern: tuple[int, int] | None = None,
    damping: float | None = None,
    refit: bool = False,
    block_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """Remove a fraction of a layer's weights so that it puts out nearly what it did, X Ŵᵀ ≈ X Wᵀ.

    | method | which go | the others | exactly so many |
    |---|---|---|---|
    | `"obs"` | one at a time, the cheapest once all others make up for it | are the least-squares ones | of each row |
    | `"sparsegpt"` | the cheapest of a block of columns | on the right make up for it | of each block of columns |
    | `"wanda"` | least \\|W_ij\\| · ‖X_j‖₂ | stay as they are | of each row |
    | `"magnitude"` | least \\|W_ij\\| | stay as they are | of the layer |

    `"obs"` is greedy Optimal Brain Surgeon (Frantar et al. 2022, in each row; there, rows may lose different numbers);
    for layers of some hundred inputs. `"sparsegpt"` is for any size (Frantar & Alistarh 2023), `"wanda"` for when time
    counts (Sun et al. 2024). Half-precision weights are computed in float32.

    >>> inputs = torch.tensor([[1.0, 1.0], [2.0, 2.1], [3.0, 2.9]])         # two features that say nearly the same
    >>> new, mask = prune_layer(torch.tensor([[1.0, 0.9]]), inputs, 0.5)
    >>> mask.tolist(), round(float(new[0, 0]), 2)                          # the other weight takes over
    ([[True, False]], 1.89)

    Args:
        weight: (O, I), floating; it is not changed.
        inputs: what the layer reads, (samples, I); or an `InputCovariance`, whose samples need not be in memory.
        sparsity: the fraction to remove, from 0 to 1: round(sparsity * weights) of a row, of the layer, or, with
            `"sparsegpt"`, of the columns up to the end of each block. Ties go in order of position.
        method: see above.
        pattern: (n, m): n of every m consecutive weights of a row stay; min(n, its size) of a short last group. The
            sparsity is then None or 1 - n/m.
        damping: is added to the diagonal of the covariance XᵀX / samples, as a fraction of its mean. By default 0.01
            for `"sparsegpt"` (as published), else 0. `"wanda"` and `"magnitude"` use it to refit only.
        refit: solve for the remaining weights again, in each row, by least squares; with `"obs"` they are that already.
        block_size: the columns of a block of `"sparsegpt"`.

    Returns:
        the new weight, of the old one's dtype, its removed entries exactly 0, and the mask, bool (O, I), True = kept.
        The weights of an input that was always zero go first; those of them that stay keep their values.

    Raises:
        TypeError, ValueError: an argument that cannot be meant, NaN or infinite values, or inputs without a sample.

    Warns:
        DampingWarning: the covariance is singular, so that more damping was needed.
    """
    settings = checked(sparsity, method, pattern, damping, refit, block_size)
    check_weight(weight)
    covariance = covariance_of(inputs, weight.shape[1])
    new, mask, used = solve(weight, [covariance], settings)
    if used != settings.damping:
        warn_of_damping(settings.damping, used, "the layer")
    return new, mask


@torch.no_grad()
def refit(weight: Tensor, inputs: Tensor | InputCovariance, mask: Tensor, *, damping: float = 0.0) -> Tensor:
    """The least-squares weights on a mask: those, zero where it is False, that make X Ŵᵀ as close to X Wᵀ as can be.

    weight (O, I), inputs and damping as for `prune_layer`, mask bool (O, I), True = kept → (O, I). With damping λ, what
    is minimised is mean‖X(w - v)‖² + λ · mean(diag H) · ‖w - v‖². The weights of an input that was always zero stay.

    >>> inputs = torch.tensor([[1.0, 1.0], [2.0, 2.1], [3.0, 2.9]])
    >>> new = refit(torch.tensor([[1.0, 0.9]]), inputs, torch.tensor([[False, True]]))
    >>> [round(value, 2) for value in new[0].tolist()]
    [0.0, 1.91]

    Raises TypeError and ValueError as `prune_layer` does. Warns with DampingWarning where the inputs of the weights
    that are kept depend on each other, so that more damping was needed.
    """
    asked = check_damping(damping)
    check_weight(weight)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != weight.shape:
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a bool tensor of the weight's shape {tuple(weight.shape)}, not {got}")
    new, used = refitted(weight, covariance_of(inputs, weight.shape[1]), mask, asked)
    if used != asked:
        warn_of_damping(asked, used, "the layer")
    return new


@torch.no_grad()
def reconstruction_error(weight: Tensor, pruned: Tensor, inputs: Tensor | InputCovariance) -> float:
    """‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖²: the part of a layer's outputs, bias aside, that pruning lost, 0 = nothing.

    weight and pruned are (O, I), inputs as for `prune_layer`. 0.0 where the layer put out nothing.

    >>> reconstruction_error(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 4.0]]), torch.eye(2))
    0.36
    """
    for one in (weight, pruned):
        check_weight(one)
    if weight.shape != pruned.shape:
        raise ValueError(f"weights of shapes {tuple(weight.shape)} and {tuple(pruned.shape)} are not of one layer")
    return relative_error(weight, pruned, [covariance_of(inputs, weight.shape[1])])
