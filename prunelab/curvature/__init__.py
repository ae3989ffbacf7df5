"""Second derivatives of the loss, and pruning by them: Optimal Brain Damage and Optimal Brain Surgeon."""

from prunelab.curvature.damage import obd
from prunelab.curvature.diagonal import Estimate, hessian_diagonal, hutchinson
from prunelab.curvature.hessians import empirical_fisher, exact, gauss_newton, hessian, inverse_hessian
from prunelab.curvature.layerwise import (
    DampingWarning,
    InputCovariance,
    LayerwiseResult,
    PrunedLayer,
    prune_layer,
    prune_layerwise,
    reconstruction_error,
    refit,
)
from prunelab.curvature.matrices import Curvature
from prunelab.curvature.run import Run, Step
from prunelab.curvature.surgeon import obs

__all__ = [
    "Curvature",
    "DampingWarning",
    "Estimate",
    "InputCovariance",
    "LayerwiseResult",
    "PrunedLayer",
    "Run",
    "Step",
    "empirical_fisher",
    "exact",
    "gauss_newton",
    "hessian",
    "hessian_diagonal",
    "hutchinson",
    "inverse_hessian",
    "obd",
    "obs",
    "prune_layer",
    "prune_layerwise",
    "reconstruction_error",
    "refit",
]
