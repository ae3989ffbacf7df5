"""Stability: do two runs that differ in their chance end in the same valley? (Frankle et al. 2020)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from prunelab.criteria.measuring import Batches, run
from prunelab.evaluate.seeding import check_seeds
from prunelab.extras import extra
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.stacked import train_stacked
from prunelab.lottery.state import State, mixed, weights_of
from prunelab.lottery.ticket import MakeModel, Ticket, make
from prunelab.masks import Masks
from prunelab.schedule.base import check_step

if TYPE_CHECKING:
    import pandas as pd

Measure = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Barrier:
    """What a network is worth on the straight line between two others.

    `at` are the positions, from 0 (the first network) to 1 (the second); `values` what was measured there, as the
    function gave it. `height` is the error barrier: how much worse than the mean of both ends the worst point of the
    line is. It is never below half the difference of the ends, so networks that are not equally good are not connected
    without a barrier, bump or none.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]
    height: float


def barrier(
    a: nn.Module,
    b: nn.Module,
    score: Measure | None = None,
    *,
    loss: Measure | None = None,
    steps: int = 10,
    data: Batches | None = None,
) -> Barrier:
    """The error barrier between two networks of one shape (Frankle et al. 2020).

    The networks (1 - α) a + α b are measured in eval mode at α = 0, 1/steps, ..., 1, and

        height = max over α of error(α) - (error(0) + error(1)) / 2

    with error = -score or the loss. Networks with a barrier of about zero are *linearly connected*. Hidden units may
    stand in another order in two networks that compute the same, so a barrier between networks of different first
    weights says little.

    >>> a, b = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    >>> a.weight.data.fill_(-1), b.weight.data.fill_(1)
    (tensor([[-1.]]), tensor([[1.]]))
    >>> barrier(a, b, loss=lambda model: 1 - model.weight.item() ** 2, steps=4)          # a hill at 0
    Barrier(at=(0.0, 0.25, 0.5, 0.75, 1.0), values=(0.0, 0.75, 1.0, 0.75, 0.0), height=1.0)

    Args:
        a, b: networks with the same parameters and buffers; they stay as they are.
        score: network → number, larger is better, such as the accuracy on test data.
        loss: network → number, smaller is better. Give one of the two.
        steps: into how many parts the line is cut, at least 1.
        data: batches (inputs, targets). Parameters are interpolated, and so are, without `data`, the running means and
            variances of batch normalisation. But these do not belong to the interpolated weights, and the barrier is
            then mostly theirs: with `data` they are measured anew at every position, both ends included, as the mean
            over these batches. Whole-numbered buffers are those of `a`.

    Raises:
        ValueError: not exactly one of `score` and `loss`, networks of different shapes, or a measure that is NaN.
    """
    measure, sign = _measure(score, loss)
    check_step(steps, "steps", least=1)
    first, second = _states(a, b)
    between = copy.deepcopy(a).eval()
    at = tuple(step / steps for step in range(steps + 1))
    values = []
    for position in at:
        between.load_state_dict(_interpolated(first, second, position))
        if data is not None:
            _measure_statistics_(between, data)
        values.append(float(measure(between)))
        if math.isnan(values[-1]):
            raise ValueError(f"the measure is NaN at {position:.3g} of the way from a to b; look for infinite weights")
    errors = [sign * value for value in values]
    return Barrier(at, tuple(values), max(errors) - (errors[0] + errors[-1]) / 2)


def instability(
    networks: MakeModel | Sequence[Ticket],
    recipe: Recipe,
    score: Measure | None = None,
    *,
    loss: Measure | None = None,
    rewind_to: Iterable[int] | None = None,
    seeds: Iterable[int] = range(3),
    steps: int = 10,
    data: Batches | None = None,
) -> pd.DataFrame:
    """How far the chance of training tears two runs from one state apart (Frankle et al. 2020).

    A network is trained to step k; there two copies part, and are trained to the end with the same masks, weights and
    optimizer state, but with other batches. What stands between the two is the `barrier`. As a function of k it says
    from when on the outcome of training is settled up to what a straight line joins.

    Args:
        networks: a function make_model(seed) → a fresh network, which is trained whole; or tickets, which are masked
            from step k on, each with its own seed.
        recipe: how all are trained.
        score, loss, steps, data: as for `barrier`.
        rewind_to: the steps k, each from 0 to the recipe's steps. A ticket's network is trained dense until then. None,
            for tickets only: where each ticket starts by itself, so that tickets that were found with several
            `rewind_to` can be compared.
        seeds: of the networks and of their batches until k, where `networks` is a function. The batches afterwards are
            made from the seed too, and are the same for all k.

    Returns:
        a row for each seed and step, with the columns seed, rewind_to, barrier (the height), and measure (the mean of
        what was measured of both runs).

    Raises:
        TypeError, ValueError: a bad argument; before anything is trained, but for a measure that does not fit.
    """
    with extra("instability"):
        import pandas as pd

    _measure(score, loss)
    tickets = _tickets(networks, seeds)
    rows: list[dict[str, Any]] = []
    for step, starts in _starts(tickets, recipe, rewind_to):
        pairs = [(ticket, start, part) for ticket, start in starts for part in (1, 2)]
        models = [make(ticket.make_model, ticket.seed) for ticket, _, _ in pairs]
        masks = [ticket.masks or None for ticket, _, _ in pairs]
        orders = [mixed(ticket.seed, part, 2) for ticket, _, part in pairs]
        train_stacked(models, recipe, masks, orders, resume=[start for _, start, _ in pairs])
        for (ticket, _), a, b in zip(starts, models[::2], models[1::2], strict=True):
            found = barrier(a, b, score, loss=loss, steps=steps, data=data)
            ends = (found.values[0] + found.values[-1]) / 2
            rows.append({"seed": ticket.seed, "rewind_to": step, "barrier": found.height, "measure": ends})
    return pd.DataFrame(rows)


def _tickets(networks: MakeModel | Sequence[Ticket], seeds: Iterable[int]) -> list[Ticket]:
    """The tickets; whole networks as tickets that keep everything."""
    if isinstance(networks, Ticket):
        return [networks]
    if callable(networks):
        whole = {seed: State(weights_of(make(networks, seed))) for seed in check_seeds(seeds)}
        return [Ticket(networks, seed, Masks({}), start) for seed, start in whole.items()]
    tickets = list(networks)
    if not tickets or not all(isinstance(ticket, Ticket) for ticket in tickets):
        raise TypeError(f"networks must be a function make_model(seed) or tickets, not {networks!r:.60}")
    return tickets


def _starts(
    tickets: Sequence[Ticket], recipe: Recipe, rewind_to: Iterable[int] | None
) -> Iterable[tuple[int, list[tuple[Ticket, State]]]]:
    """For each step, in ascending order, the tickets with the state at which their two runs part."""
    if rewind_to is None:
        if not all(ticket.masks for ticket in tickets):
            raise ValueError("rewind_to=None is where a ticket starts, but these are whole networks; name steps")
        for step in sorted({ticket.start.step for ticket in tickets}):
            yield step, [(ticket, ticket.start) for ticket in tickets if ticket.start.step == step]
        return
    steps = sorted({check_step(step, "rewind_to") for step in rewind_to})
    if not steps or steps[-1] > recipe.steps:
        raise ValueError(f"rewind_to={steps}: name steps from 0 to the {recipe.steps} of the recipe")
    models = [make(ticket.make_model, ticket.seed) for ticket in tickets]
    states: list[State] | None = None
    for step in steps:
        seeds = [ticket.seed for ticket in tickets]
        states = train_stacked(models, recipe, None, seeds, step, states)
        yield step, list(zip(tickets, states, strict=True))


def _measure(score: Measure | None, loss: Measure | None) -> tuple[Measure, int]:
    """What to measure, and the sign that makes an error of it."""
    if score is not None and loss is None:
        return score, -1
    if loss is not None and score is None:
        return loss, 1
    raise ValueError("say what to measure with one of score= (larger is better) and loss= (smaller is better)")


def _states(a: nn.Module, b: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, second = a.state_dict(), b.state_dict()
    if first.keys() != second.keys():
        names = ", ".join(sorted(first.keys() ^ second.keys()))
        raise ValueError(f"the networks do not have the same parameters; only one of them has {names}")
    for name, value in first.items():
        if value.shape != second[name].shape:
            shapes = f"{tuple(value.shape)} and {tuple(second[name].shape)}"
            raise ValueError(f"{name!r} has the shapes {shapes} in the two networks, so no line joins them")
    return first, second


def _interpolated(first: dict[str, Tensor], second: dict[str, Tensor], position: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(value, second[name].to(value), position) if value.is_floating_point() else value
        for name, value in first.items()
    }


@torch.no_grad()
def _measure_statistics_(model: nn.Module, data: Batches) -> None:
    """Running means and variances of this network: the mean over the batches."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean over all batches
        norm.train()
    for inputs, _ in data:
        run(model, tuple(inputs) if isinstance(inputs, list) else inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
