"""The right count of q4, and the counts that misconceptions lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["EXPLANATIONS", "Misconception", "removable", "why"]

Misconception = Literal[
    "readers only", "filters only", "twice", "no biases", "one feature", "convolutions only", "not the last", "cascade",
    "unread",
]  # fmt: skip

EXPLANATIONS: dict[Misconception, str] = {
    "filters only": (
        "Only the dead filters themselves are counted. What becomes of the next layer's weights that read them?"
    ),
    "readers only": "Only the readers of dead channels are counted; the dead filters themselves go too.",
    "twice": "Some parameters count twice: a dead filter's weight that also reads a dead channel is one parameter.",
    "no biases": "The biases are missing: a dead filter takes its bias along.",
    "convolutions only": (
        "Only the convolutions are counted. A Linear layer loses parameters like them: its dead output neurons, and "
        "its weights that read dead channels, also right after a Flatten."
    ),
    "one feature": (
        "After the Flatten each channel is several input features, but only one is counted for each dead channel."
    ),
    "not the last": (
        "The last layer's dead outputs are not counted. In practice one does not prune them, but here they count as in "
        "any other layer."
    ),
    "cascade": (
        "A filter counts as dead here because the channels that it reads are. The task calls a filter dead only if its "
        "own mask keeps nothing: this one still passes on its bias."
    ),
    "unread": (
        "A filter counts as dead here because nobody reads it. That could go as well, but the task counts only filters "
        "whose own mask keeps nothing, and their readers."
    ),
}


def removable(layers: Sequence[nn.Module], masks: Sequence[Tensor], mistake: Misconception | None = None) -> int:
    """How many parameters can be deleted, or how many someone counts who makes the mistake."""
    if mistake == "convolutions only":
        layers = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        masks = masks[: len(layers)]  # in a chain they come first
    count = 0
    before = torch.zeros(1, dtype=torch.bool)  # the image: nothing of it is dead
    for layer, mask, dead in zip(layers, masks, _dead(masks, mistake), strict=True):
        reads = _readers(before, mask, spread=mistake != "one feature")  # (columns,)
        before = dead
        if mistake == "readers only" or (mistake == "not the last" and layer is layers[-1]):
            dead = torch.zeros_like(dead)
        if mistake == "filters only":
            reads = torch.zeros_like(reads)
        count += int((dead[:, None] | reads).sum())
        if mistake == "twice":
            count += int((dead[:, None] & reads).sum())
        if layer.bias is not None and mistake != "no biases":
            count += int(dead.sum())
    return count


def why(count: int, layers: Sequence[nn.Module], masks: Sequence[Tensor]) -> str:
    """What kind of mistake leads to this count, which is not the right one."""
    right = removable(layers, masks)
    parameters = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    if count == sum(int((~mask).sum()) for mask in masks):
        return (
            "That is the number of zero weights. A zero inside a dense tensor still takes its place: only whole rows "
            "and columns can be cut out of the matrix."
        )
    for mistake, message in EXPLANATIONS.items():
        if count == removable(layers, masks, mistake):
            return message
    if count == parameters - right:
        return "That is what stays; the task asks what can be deleted."
    if count > parameters:
        return f"The count {count} is larger than the number of parameters, so something is counted more than once."
    dead = ", ".join(f"{int(gone.sum())} of {len(gone)}" for gone in _dead(masks))
    size = "small" if count < right else "large"
    return f"The count {count} is too {size}. Of the outputs of these layers, in order, {dead} are dead."


def _dead(masks: Sequence[Tensor], mistake: Misconception | None = None) -> list[Tensor]:
    """For each layer, which of its outputs are dead: (O,)."""
    dead = [~mask.flatten(1).any(1) for mask in masks]
    if mistake == "cascade":
        for i in range(1, len(masks)):
            dead[i] = ~(masks[i].flatten(1) & ~_readers(dead[i - 1], masks[i])).any(1)
    if mistake == "unread":
        for i in reversed(range(len(masks) - 1)):
            read = (masks[i + 1].flatten(1) & ~dead[i + 1][:, None]).any(0)  # (columns,)
            dead[i] = dead[i] | ~read.reshape(len(dead[i]), -1).any(1)
    return dead


def _readers(dead: Tensor, mask: Tensor, *, spread: bool = True) -> Tensor:
    """Which columns of the matrix (O, columns) read a dead channel. `spread`: also after a Flatten a channel has
    several columns."""
    columns = mask[0].numel()
    width = columns // len(dead) if spread or mask.dim() > 2 else 1
    reads = torch.zeros(columns, dtype=torch.bool)
    reads[: len(dead) * width] = dead.repeat_interleave(width)
    return reads
