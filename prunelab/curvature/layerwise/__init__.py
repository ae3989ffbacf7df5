"""Layer by layer: what a layer reads says which of its weights it can do without, and how the others make up for it."""

from prunelab.curvature.layerwise.covariance import InputCovariance
from prunelab.curvature.layerwise.damping import DampingWarning
from prunelab.curvature.layerwise.layer import prune_layer, reconstruction_error, refit
from prunelab.curvature.layerwise.network import LayerwiseResult, PrunedLayer, prune_layerwise

__all__ = [
    "DampingWarning",
    "InputCovariance",
    "LayerwiseResult",
    "PrunedLayer",
    "prune_layer",
    "prune_layerwise",
    "reconstruction_error",
    "refit",
]
