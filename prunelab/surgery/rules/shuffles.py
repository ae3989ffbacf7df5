"""Channels that become places of an image, places that become channels, groups dealt out anew, complex numbers."""

from __future__ import annotations

import numpy as np

from prunelab.surgery.follow import Follower, Rule
from prunelab.surgery.labels import spread, varying
from prunelab.surgery.operations import arguments
from prunelab.trace import Op


def pixel_shuffle(run: Follower, op: Op) -> None:
    """(…, C·r², H, W) → (…, C, H·r, W·r): the r² channels of one output channel share its fate."""
    source, value = op.inputs[0], op.outputs[0]
    dim = len(source.shape) - 3
    ids = run.along(source, dim)
    run.keep_dims(source, (dim + 1, dim + 2), "it lies along an axis of the image")
    labels = [
        label for label in run.of(source) if label.shape[dim] == 1 and not set(varying(label)) & {dim + 1, dim + 2}
    ]
    if ids is not None:
        whole = ids.reshape(value.shape[dim], -1)
        run.ledger.tie(whole, whole[:, :1])
        labels.append(spread(whole[:, 0], dim, len(value.shape)))
    run.set(value, labels, zero=run.is_zero(source), of=[source])


def pixel_unshuffle(run: Follower, op: Op) -> None:
    """The way back: a channel becomes r² channels that share its fate."""
    source, value = op.inputs[0], op.outputs[0]
    dim = len(source.shape) - 3
    ids = run.along(source, dim)
    run.keep_dims(source, (dim + 1, dim + 2), "it lies along an axis of the image")
    labels = [
        label for label in run.of(source) if label.shape[dim] == 1 and not set(varying(label)) & {dim + 1, dim + 2}
    ]
    if ids is not None:
        labels.append(spread(np.repeat(ids, value.shape[dim] // source.shape[dim]), dim, len(value.shape)))
    run.set(value, labels, zero=run.is_zero(source), of=[source])


def channel_shuffle(run: Follower, op: Op) -> None:
    """(B, g·n, …) → position n of every group side by side: the same index in every group shares its fate."""
    source, value = op.inputs[0], op.outputs[0]
    groups = arguments(op)["groups"]
    ids = run.along(source, 1)
    labels = [label for label in run.of(source) if label.shape[1] == 1]
    if ids is not None:
        box = ids.reshape(groups, -1)
        run.ledger.tie(box, box[:1])
        labels.append(spread(box.T.ravel(), 1, len(value.shape)))
    run.set(value, labels, zero=run.is_zero(source), of=[source])


def pairs(run: Follower, op: Op) -> None:
    """Complex numbers as pairs of real ones, or back: a last dimension of two comes or goes, and cannot shrink."""
    source, value = op.inputs[0], op.outputs[0]
    if len(value.shape) > len(source.shape):
        labels = [label[..., None] for label in run.of(source)]
    else:
        run.keep_dims(source, [-1], "it holds a real and an imaginary part")
        labels = [label[..., 0] for label in run.of(source) if label.shape[-1] == 1]
    run.set(value, labels, zero=run.is_zero(source), of=[source])


RULES: dict[str, Rule] = {
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(["channel_shuffle", "native_channel_shuffle"], channel_shuffle),
    **dict.fromkeys(["view_as_real", "view_as_complex"], pairs),
}
