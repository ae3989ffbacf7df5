"""Pooling, resizing, folding and Fourier transforms: each channel alone, the axes of the image as they are."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import spread, varying
from prunelab.surgery.operations import arguments
from prunelab.trace import Op

_POOLS = [
    "max_pool1d",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "mkldnn_adaptive_avg_pool2d",
]
_RESIZES = [
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "grid_sampler_2d",
]
_AXES = {"1d": 1, "2d": 2, "3d": 3}


def spatial(run: Follower, op: Op) -> None:
    """The last one, two or three dimensions are the image; what varies with them stays."""
    x = op.inputs[0]
    axes = next((n for ending, n in _AXES.items() if ending in op.name), len(x.shape) - 2)
    image = set(range(len(x.shape) - axes, len(x.shape)))
    run.keep_dims(x, image, "it lies along an axis of the image")
    labels = [label for label in run.of(x) if not set(varying(label)) & image]
    for value in op.outputs:
        run.set(value, labels, zero=run.is_zero(x))


def fourier(run: Follower, op: Op) -> None:
    """A transform along some dimensions, of each channel along the others alone: of nothing, it is nothing."""
    _alone(run, op, arguments(op)["dim"], "a Fourier transform runs over it")


def triangle(run: Follower, op: Op) -> None:
    """What lies above or below a diagonal of the last two dimensions is zeroed, by their positions."""
    _alone(run, op, (-2, -1), "its position in a triangular matrix counts")


def _alone(run: Follower, op: Op, dims: Sequence[int], reason: str) -> None:
    x = op.inputs[0]
    axes = {dim % len(x.shape) for dim in dims}
    run.keep_dims(x, axes, reason)
    labels = [label for label in run.of(x) if not set(varying(label)) & axes]
    run.set(op.outputs[0], labels, zero=run.is_zero(x), of=[x])


def folded(run: Follower, op: Op) -> None:
    """`nn.Fold`: (B, C·k·k, L) → (B, C, H, W), the sum of each channel's windows."""
    x, out = op.inputs[0], op.outputs[0]
    run.keep_dims(x, [-1], "it lies along an axis of the image")
    ids = run.along(x, len(x.shape) - 2)
    labels = []
    if ids is not None:
        places = ids.reshape(out.shape[-3], -1)
        run.ledger.tie(places, places[:, :1])
        labels = [spread(places[:, 0], len(out.shape) - 3, len(out.shape))]
    run.set(out, labels, zero=run.is_zero(x))


RULES: dict[str, Rule] = {
    **dict.fromkeys((*_POOLS, *_RESIZES), spatial),
    **dict.fromkeys(["_fft_r2c", "_fft_c2r", "_fft_c2c"], fourier),
    **dict.fromkeys(["tril", "triu"], triangle),
    "col2im": folded,
}
