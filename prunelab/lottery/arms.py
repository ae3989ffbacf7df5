"""The arms of the comparison: a ticket, and the networks that differ from it in one respect each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunelab.criteria.random import Random
from prunelab.evaluate.seeding import seeded
from prunelab.granularity import Kernel, Weight
from prunelab.heads import targets_of
from prunelab.lottery.state import State, load, mixed, weights_of
from prunelab.lottery.ticket import Ticket, make
from prunelab.masks import Masks
from prunelab.pruner import prune
from prunelab.targets import named_parameters

MakeSmall = Callable[[int, int], nn.Module]


@dataclass(frozen=True, eq=False)
class Entrant:
    """A network that is about to be trained: its arm, and what its training starts from."""

    arm: str
    seed: int
    round: int
    model: nn.Module
    masks: Masks
    start: State

    @property
    def kept(self) -> float:
        """The fraction of the entries of its masks that are kept; 1 where there are none."""
        total = self.masks.total
        return (total - self.masks.removed) / total if total else 1.0


def ticket(found: Ticket) -> Entrant:
    """The ticket itself."""
    return _entrant("ticket", found, found.masks, found.start)


def reinit(found: Ticket) -> Entrant:
    """The ticket's masks on a network of another seed: what is left of it without its initial weights."""
    fresh = make(found.make_model, mixed(found.seed, 2))
    return _entrant("reinit", found, found.masks, State(weights_of(fresh)))


def random(found: Ticket) -> Entrant:
    """The ticket's initial weights under random masks that keep as many units of each parameter."""
    if found.granularity is None:
        raise ValueError(
            "the units of this ticket's masks are not known: its file does not say a granularity that is not the "
            "library's; give it with dataclasses.replace(ticket, granularity=...), or leave the arm 'random' out"
        )
    model, granularity = found.model(), found.granularity
    names = [name for name, mask in found.whole.items() if mask.dim() > 1 or not granularity.covers_bias]
    removed = found.masks.sparsities
    fractions = {target.name: removed[target.name] for target in targets_of(model, granularity, names)}
    chance = Random(mixed(found.seed, len(found.rounds), 3))
    masks = prune(model, scope=fractions, criterion=chance, granularity=granularity, apply=False)
    return _entrant("random", found, masks, found.start)


def shuffled(found: Ticket) -> Entrant:
    """The ticket's initial weights under its masks with rows and columns permuted.

    Each unit has as many weights as some unit of the ticket has, and is read as often: what is lost is which they are.
    """
    if not can_shuffle(found):
        raise ValueError(
            f"the arm 'shuffled' permutes rows and columns of masks of single weights or kernels, not of "
            f"{found.granularity}; the arm 'random' draws other units"
        )
    chance = torch.Generator().manual_seed(mixed(found.seed, len(found.rounds), 4))
    masks = Masks({name: _permuted(mask, chance) for name, mask in found.masks.items()})
    return _entrant("shuffled", found, masks, found.start)


def can_shuffle(found: Ticket) -> bool:
    """Whether permuting rows and columns of the ticket's masks leaves its units whole."""
    return isinstance(found.granularity, Weight | Kernel)


def oneshot(found: Ticket) -> Entrant:
    """As much removed at once from the trained dense network, then rewound as the ticket is."""
    if not found.rounds:
        return _entrant("oneshot", found, found.whole, found.start)
    first = found.rounds[0].start  # the trained dense weights, where rounds go on from trained weights
    return _entrant("oneshot", found, found.oneshot[len(found.rounds) - 1], first or found.rewound)


def dense(found: Ticket) -> Entrant:
    """The whole network of the ticket's seed, from its initial weights on."""
    begin = State(weights_of(make(found.make_model, found.seed)))
    return _entrant("dense", found.at(0), found.whole, begin)


def small(found: Ticket, make_small: MakeSmall) -> Entrant:
    """A dense network with as many parameters as the ticket has left."""
    parameters = {id(one): one.numel() for one in named_parameters(found.model()).values()}
    left = sum(parameters.values()) - found.masks.removed
    with seeded(found.seed):
        model = make_small(found.seed, left)
    if not isinstance(model, nn.Module):
        raise TypeError(f"make_small(seed, parameters) must give a torch.nn.Module, not {type(model).__name__}")
    return Entrant("small", found.seed, len(found.rounds), model, Masks({}), State(weights_of(model)))


def _entrant(arm: str, found: Ticket, masks: Masks, start: State) -> Entrant:
    model = make(found.make_model, found.seed)
    load(model, start.weights)
    return Entrant(arm, found.seed, len(found.rounds), masks.apply_(model), masks, start)


def _permuted(mask: Tensor, chance: torch.Generator) -> Tensor:
    """The mask with its first two dimensions permuted, each for itself."""
    for dim in range(min(2, mask.dim())):
        mask = mask.index_select(dim, torch.randperm(mask.shape[dim], generator=chance).to(mask.device))
    return mask
