"""Pruning at initialisation: tickets for which nothing was trained, the competitors of those that were searched for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from prunelab.criteria import SNIP, Criterion, GraSP, Magnitude, Random, SynFlow
from prunelab.criteria.measuring import Batches, Loss
from prunelab.granularity import Granularity, Weight
from prunelab.lottery.state import State, weights_of
from prunelab.lottery.ticket import MakeModel, Round, Ticket, make
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.pruner import prune
from prunelab.schedule.base import check_sparsity
from prunelab.scope import Scope

METHODS = ("snip", "grasp", "synflow", "magnitude", "random")


def at_initialisation(
    make_model: MakeModel,
    method: str | Criterion,
    keep: float,
    *,
    data: Batches | None = None,
    loss: Loss = nn.functional.cross_entropy,
    seed: int = 0,
    granularity: Granularity | None = None,
    scope: str | Scope | Mapping[str, float] = "global",
    rounds: int | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
) -> Ticket:
    """A sub-network chosen before any training, as a `Ticket` that starts at its initial weights.

    | method      | keeps the weights with                                    | source              |
    |-------------|-----------------------------------------------------------|---------------------|
    | "snip"      | the largest |w · g|: the loss depends on them             | Lee et al. 2019     |
    | "grasp"     | the largest w · (Hg): gradients flow worse without them   | Wang et al. 2020    |
    | "synflow"   | the largest synaptic flow; no data; in 100 rounds         | Tanaka et al. 2020  |
    | "magnitude" | the largest |w| of what was drawn                         | a baseline          |
    | "random"    | chance                                                    | a baseline          |

    with the gradient g and the Hessian H of the loss at the initial weights. All of these are criteria of `prunelab`,
    so any other criterion may stand for the name, and any granularity and scope go with it.

    >>> ticket = at_initialisation(lambda seed: nn.Linear(8, 4), "random", 0.25, seed=3)
    >>> ticket.masks.sparsity, ticket.start.step
    (0.75, 0)

    Args:
        make_model: make_model(seed) → a fresh network.
        method: one of the names, or a criterion.
        keep: the fraction of the units to keep, above 0.
        data: batches (inputs, targets). SNIP and GraSP measure the loss on all of them: the papers take few examples.
            Of the first batch "synflow" takes the shape of one input.
        loss: loss(outputs, targets) → the mean over a batch.
        seed: of the network, and of "random".
        granularity, scope, rounds, parameters, exclude: as for `prunelab.prune`.

    Raises:
        TypeError, ValueError: a bad argument, or data that the method needs and does not get.
    """
    fraction = check_sparsity(keep, "keep")
    if fraction == 0:
        raise ValueError("keep is 0: a network without weights is no ticket; keep more, such as 0.1")
    criterion = _criterion(method, data, seed)
    model = make(make_model, seed)
    masks = prune(
        model, 1 - fraction, criterion=criterion, granularity=granularity, scope=scope, data=data, loss=loss,
        rounds=rounds, parameters=parameters, exclude=exclude, apply=False,
    )  # fmt: skip
    whole = Masks({name: torch.ones_like(mask) for name, mask in masks.items()})
    settings = {"criterion": repr(criterion), "keep": repr(fraction), "train": "not at all"}
    found = (Round(1, fraction, masks),)
    start = State(weights_of(model))
    return Ticket(make_model, seed, whole, start, found, (), granularity or Weight(), settings)


def _criterion(method: str | Criterion, data: Batches | None, seed: int) -> Criterion:
    if isinstance(method, Criterion):
        return method
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))} or a criterion, not {method!r:.60}")
    if method == "synflow":
        return SynFlow(_one_input(data))
    return {"snip": SNIP(), "grasp": GraSP(), "magnitude": Magnitude(), "random": Random(seed)}[method]


def _one_input(data: Batches | None) -> Any:
    """The first example of the first batch, as the model takes it."""
    for batch in data or ():
        inputs = batch[0]
        if isinstance(inputs, torch.Tensor):
            return inputs[:1]
        if isinstance(inputs, Mapping):
            return {name: value[:1] for name, value in inputs.items()}
        return tuple(value[:1] for value in inputs)
    raise ValueError("'synflow' takes the shape of an input from data=; give batches (inputs, targets), one is enough")
