"""What a layer has been given, in one matrix: all that least squares on its weights needs to know."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunelab.criteria.members import finest


class InputCovariance:
    """XᵀX / samples of a layer's inputs X (samples, features), added up a batch at a time.

    It is the Hessian of ½·mean‖Xw - Xv‖² with respect to the weights w of one output, the same for all outputs
    (Frantar et al. 2022). No mean is subtracted. Once a batch is added, its samples are no longer needed.

    >>> covariance = InputCovariance(2)
    >>> covariance.add(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    >>> covariance.samples, covariance.matrix.tolist()
    (2, [[1.0, 1.0], [1.0, 2.0]])

    Args:
        features: inputs of the layer, I.
        dtype: of the products and sums. float64 (where the device has it) loses nothing that matters; float32 takes
            half of the time and memory, and cannot tell inputs that nearly depend on each other from ones that do.
    """

    def __init__(self, features: int, dtype: torch.dtype = torch.float64) -> None:
        if dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, not {dtype}: half precision overflows")
        self.features = features
        self.samples = 0
        self._dtype = dtype
        self._sum: Tensor | None = None  # (I, I), made where the first inputs are

    def __repr__(self) -> str:
        return f"InputCovariance({self.features} features, {self.samples} samples)"

    @torch.no_grad()
    def add(self, inputs: Tensor) -> None:
        """Add samples (..., features), of any floating dtype; every dimension but the last counts samples.

        Raises ValueError, and adds nothing, for another number of features, or for NaN and infinite values, and such
        whose squares are no longer finite.
        """
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            given = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise TypeError(f"inputs must be a floating tensor (samples, features), not {given}")
        if inputs.dim() == 0 or inputs.shape[-1] != self.features:
            raise ValueError(
                f"inputs of shape {tuple(inputs.shape)} do not fit: the layer reads {self.features} features, so their "
                "shape is (samples, features)"
            )
        precision = self._dtype if finest(inputs.device) == torch.float64 else torch.float32
        samples = inputs.detach().reshape(math.prod(inputs.shape[:-1]), self.features).to(precision)  # (N, I)
        product = samples.T @ samples  # (I, I)
        before = torch.zeros_like(product) if self._sum is None else self._sum.to(product.device)
        if not bool((before.diagonal() + product.diagonal()).isfinite().all()):
            bad = int((~inputs.isfinite()).sum())
            what = f"{bad} values that are NaN or infinite" if bad else f"values too large to be squared in {precision}"
            raise ValueError(f"the inputs have {what}, so nothing can be said about them; mend the data, or scale it")
        self._sum = before.add_(product)
        self.samples += samples.shape[0]

    @property
    def matrix(self) -> Tensor:
        """XᵀX / samples, (features, features). Raises ValueError where nothing was added."""
        if self._sum is None or self.samples == 0:
            raise ValueError("no inputs were added, so their covariance is not known; give at least one sample")
        return self._sum / self.samples

    @property
    def norms(self) -> Tensor:
        """‖X_j‖₂ of each feature over all samples, (features,)."""
        return (self.matrix.diagonal() * self.samples).sqrt()


def covariance_of(inputs: Tensor | InputCovariance, features: int) -> InputCovariance:
    """`inputs` as a covariance of so many features: itself, or what its samples (..., features) add up to.

    Raises TypeError and ValueError where they do not fit, or hold no sample.
    """
    if not isinstance(inputs, InputCovariance):
        covariance = InputCovariance(features)
        covariance.add(inputs)
    elif inputs.features != features:
        raise ValueError(f"{inputs} belongs to another layer: this one reads {features} features")
    else:
        covariance = inputs
    if covariance.samples == 0:
        raise ValueError("inputs hold no sample, so there is nothing to fit the weights to; give at least one")
    return covariance
