"""Iterative pruning with rewinding: train, remove a part of what is left, go back, and again."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prunelab.criteria.base import Criterion
from prunelab.criteria.measuring import Batches, Loss
from prunelab.curvature.progress import Progress
from prunelab.evaluate.engine import Engine
from prunelab.evaluate.fingerprint import describe
from prunelab.evaluate.seeding import check_seeds, seeded
from prunelab.granularity import Granularity
from prunelab.lottery.pruning import Pruning, levels_of, pruning_of
from prunelab.lottery.recipe import Recipe
from prunelab.lottery.state import State, weights_of
from prunelab.lottery.ticket import MakeModel, Round, Ticket, make
from prunelab.lottery.training import Train, train_all
from prunelab.masks import Masks
from prunelab.names import Exclude
from prunelab.schedule.base import check_step
from prunelab.scope import Scope
from prunelab.targets import named_parameters

Score = Callable[[nn.Module], float]
Rewind = Literal["weights", "learning rate"]


def find_ticket(
    make_model: MakeModel,
    train: Train,
    *,
    keep: float | None,
    rounds: int,
    rewind_to: int = 0,
    rewind: Rewind = "weights",
    seed: int = 0,
    criterion: Criterion | None = None,
    granularity: Granularity | None = None,
    scope: str | Scope | Mapping[str, float] = "global",
    data: Batches | None = None,
    loss: Loss | None = None,
    parameters: Iterable[str] | None = None,
    exclude: Exclude | None = None,
    score: Score | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Ticket:
    """Look for a sub-network that trains as well as the whole: iterative magnitude pruning (Frankle & Carbin 2019).

    In every round the network is trained, a part of what is left is removed, and what stays goes back to where it was:
    to its initial weights, or to those of step `rewind_to` (late rewinding, Frankle et al. 2020), with the optimizer's
    state and the schedule as they were there. With rewind="learning rate" only the schedule goes back; the weights stay
    as they are trained, and the optimizer starts afresh (Renda et al. 2020).

    >>> data = torch.randn(200, 4)
    >>> recipe = Recipe(data, (data[:, 0] > 0).long(), steps=30, batch_size=20)
    >>> ticket = find_ticket(lambda seed: nn.Linear(4, 2), recipe, keep=0.25, rounds=3)
    >>> [one.kept for one in ticket.rounds], ticket.masks.sparsity                     # of 8: 0.63, 0.40 and 0.25
    ([5, 3, 2], 0.75)
    >>> torch.equal(ticket.model().weight, ticket.initial["weight"] * ticket.masks["weight"])
    True

    Args:
        make_model: make_model(seed) → a fresh network. The generators of Python, NumPy and torch start from the seed
            before it is called, and are as they were afterwards.
        train: a `Recipe`, or a function train(model, masks, seed) that trains in place and keeps what is removed at
            zero (`masks.hold`). Chance starts from the seed for it too. If it returns a number, that is the loss of the
            round.
        keep: the fraction of the units to keep, above 0; None with a scope that says it all (N:M, fractions by name).
        rounds: after round r of n a fraction keep**(r/n) is left: exactly as many as `prunelab.prune` with the sparsity
            1 - keep**(r/n) leaves, so the same fraction goes in each round.
        rewind_to: the step to go back to, less than the recipe's steps. More than 0 needs a `Recipe`.
        rewind: what goes back: "weights" (and all that belongs to them), or the "learning rate" alone.
        seed: of the network, the batches and chance.
        criterion, granularity, scope, parameters, exclude: what goes, as for `prunelab.prune`. Masks nest.
        data, loss: for criteria that need them; a recipe's own by default.
        score: score(model) → a number for the history, of the trained network of each round.
        folder: where the ticket is saved after every round, as ticket-<seed>.safetensors. A search that was stopped
            goes on from there when it is called again, and ends at the same ticket, bit for bit.
        progress: say how far it is, if it takes more than two seconds.

    Returns:
        the ticket, not trained: `train` its `model()` with its masks, and with `resume=ticket.start` for a recipe.

    Raises:
        TypeError, ValueError: a bad argument, before anything is trained; a network whose training gave weights that
            are no numbers; a function that moved what is removed; a folder with another search's ticket.
    """
    return find_tickets(
        make_model,
        train,
        seeds=[seed],
        keep=keep,
        rounds=rounds,
        rewind_to=rewind_to,
        rewind=rewind,
        criterion=criterion,
        granularity=granularity,
        scope=scope,
        data=data,
        loss=loss,
        parameters=parameters,
        exclude=exclude,
        score=score,
        folder=folder,
        progress=progress,
    )[0]


def find_tickets(
    make_model: MakeModel,
    train: Train,
    *,
    seeds: Iterable[int],
    keep: float | None,
    rounds: int,
    rewind_to: int = 0,
    rewind: Rewind = "weights",
    score: Score | None = None,
    folder: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    engine: Engine | None = None,
    progress: bool = True,
    **what: Any,
) -> list[Ticket]:
    """One ticket a seed, in their order. The networks of all seeds are trained at once, if `train` is a `Recipe`.

    With `jobs` or an `engine` several processes share the networks of a recipe, as in `train_stacked`. The other
    arguments are those of `find_ticket`. Tickets are those that `find_ticket` finds to rounding: where two
    weights are almost equal, the other one may go.
    """
    checked = check_seeds(seeds)
    if score is not None and not callable(score):
        raise TypeError(f"score must be a function score(model) → number, not {score!r:.60}")
    pruning = pruning_of(train, what)
    levels = levels_of(pruning, make(make_model, checked[0]), keep, check_step(rounds, "rounds", least=1))
    search = _Search(
        make_model, train, pruning, levels, _checked_rewind(train, rewind, rewind_to), score, (jobs, engine)
    )
    tickets = [search.begin(seed, folder) for seed in checked]
    total = rounds * len(tickets)
    with Progress("rounds of the search", total, progress) as shown:
        while waiting := [i for i, ticket in enumerate(tickets) if len(ticket.rounds) < rounds]:
            # Those that were saved further on than others go back to them, so that all are trained at once again.
            number = min(len(tickets[i].rounds) for i in waiting)
            for i, ticket in zip(waiting, search.next([tickets[i].at(number) for i in waiting]), strict=True):
                tickets[i] = ticket
                if folder is not None:
                    ticket.save(_file(folder, ticket.seed))
            shown.show(sum(len(ticket.rounds) for ticket in tickets))
    return tickets


@dataclass(frozen=True, eq=False)
class _Search:
    """The settings of one call. `levels` are (fraction to keep, sparsity) of each round, `back` what to rewind to."""

    make_model: MakeModel
    train: Train
    pruning: Pruning
    levels: list[tuple[float, float | None]]
    back: tuple[Rewind, int]
    score: Score | None
    processes: tuple[int, Engine | None]

    def begin(self, seed: int, folder: str | os.PathLike[str] | None) -> Ticket:
        """The ticket that the folder has, or one without rounds."""
        settings = self._settings()
        if folder is not None and not Path(folder).is_dir():
            raise FileNotFoundError(f"there is no folder {os.fspath(folder)!r} to save tickets in; make it first")
        if folder is not None and (path := _file(folder, seed)).exists():
            ticket = Ticket.load(path, self.make_model)
            if other := [name for name in settings if ticket.settings.get(name) != settings[name]]:
                raise ValueError(
                    f"{os.fspath(path)!r} belongs to another search: there {other[0]} is "
                    f"{ticket.settings.get(other[0])}, here {settings[other[0]]}. Name another folder"
                )
            return replace(ticket, granularity=self.pruning.granularity)
        model = make(self.make_model, seed)
        whole = self._rehearse(model)
        return Ticket(
            self.make_model, seed, whole, State(weights_of(model)), (), (), self.pruning.granularity, settings
        )

    def next(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """The tickets with one more round each; all have as many."""
        what, step = self.back
        tickets, number = list(tickets), len(tickets[0].rounds)
        if number == 0 and step and what == "weights":
            early = self._trained([ticket.model() for ticket in tickets], tickets, stop=step)
            tickets = [replace(ticket, rewound=state) for ticket, state in zip(tickets, early, strict=True)]
        models = [ticket.model() for ticket in tickets]
        states = self._trained(models, tickets)
        return [self._pruned(*one) for one in zip(tickets, models, states, strict=True)]

    def _trained(self, models: list[nn.Module], tickets: list[Ticket], stop: int | None = None) -> list[State]:
        jobs, engine = self.processes
        return train_all(self.train, models, tickets, stop=stop, jobs=jobs, engine=engine)

    def _pruned(self, ticket: Ticket, model: nn.Module, state: State) -> Ticket:
        """What a trained network tells of the next round."""
        number, (what, step) = len(ticket.rounds), self.back
        _check_trained(model, state, ticket)
        keep, sparsity = self.levels[number]
        oneshot = ticket.oneshot
        if number == 0:  # the dense network
            oneshot = tuple(self.pruning.quietly(model, asked) for _, asked in self.levels)
        found = Round(
            number + 1,
            keep,
            self.pruning.masks(model, sparsity, ticket.masks if number else None),
            loss=self._loss(state),
            score=self._score(model, ticket.seed),
            start=State(state.weights, None, step) if what == "learning rate" else None,
        )
        return replace(ticket, rounds=(*ticket.rounds, found), oneshot=oneshot)

    def _loss(self, state: State) -> float | None:
        """The mean of the last epoch's batches."""
        if not len(state.losses):
            return None
        batches = -(-len(self.train.inputs) // self.train.batch_size) if isinstance(self.train, Recipe) else 1
        return float(state.losses[-batches:].double().mean())

    def _score(self, model: nn.Module, seed: int) -> float | None:
        if self.score is None:
            return None
        with seeded(seed):
            return float(self.score(model))

    def _rehearse(self, model: nn.Module) -> Masks:
        """Masks that keep everything. What cannot be removed is found out here, before anything is trained."""
        masks = self.pruning.quietly(model, self.levels[-1][1])
        return Masks({name: torch.ones_like(mask) for name, mask in masks.items()})

    def _settings(self) -> dict[str, str]:
        """What another call must have in common with this one to go on with it."""
        known = {name: describe(getattr(self.pruning, name)) for name in ("criterion", "granularity", "scope")}
        known |= {name: describe(getattr(self.pruning, name)) for name in ("parameters", "exclude", "loss")}
        train = describe(self.train)
        if isinstance(self.train, Recipe):
            train += f" #{_digest(self.train.inputs)} #{_digest(self.train.targets)}"
        levels = [keep for keep, _ in self.levels]
        known |= {"keep": repr(levels), "rewind": repr(self.back), "train": train}
        return known | {"make_model": describe(self.make_model)}


def _checked_rewind(train: Train, rewind: Rewind, rewind_to: int) -> tuple[Rewind, int]:
    if rewind not in ("weights", "learning rate"):
        raise ValueError(f"rewind must be 'weights' or 'learning rate', not {rewind!r}")
    step = check_step(rewind_to, "rewind_to")
    if step and not isinstance(train, Recipe):
        raise ValueError(
            f"rewind_to={step}, but a function that trains can only train from the beginning: give a lottery.Recipe, "
            "which can stop at a step and go on from there, or rewind_to=0"
        )
    if isinstance(train, Recipe) and step >= train.steps:
        raise ValueError(f"rewind_to={step} must be less than the {train.steps} steps of the recipe")
    return rewind, step


def _check_trained(model: nn.Module, state: State, ticket: Ticket) -> None:
    """Raises ValueError where the weights are no numbers, or where something removed is no longer zero."""
    where = f"round {len(ticket.rounds) + 1} of seed {ticket.seed}"
    if not state.finite:
        raise ValueError(
            f"in {where} training gave weights that are NaN or infinite, so that none can be ranked; lower the "
            "learning rate, or look for NaN in the inputs"
        )
    parameters = named_parameters(model)
    for name, mask in ticket.masks.items():
        if bool(parameters[name].detach()[~mask].any()):
            raise ValueError(
                f"in {where} training moved weights of {name!r} that are removed; hold them: masks.hold(model, "
                "optimizer) in train(model, masks, seed)"
            )


def _file(folder: str | os.PathLike[str], seed: int) -> Path:
    return Path(folder) / f"ticket-{seed}.safetensors"


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    return hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()[:8] if math.prod(values.shape) else ""
