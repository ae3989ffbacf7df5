"""A lottery ticket: masks, the weights at which it starts, and how it was found."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunelab import granularity as granularities
from prunelab.evaluate.seeding import seeded
from prunelab.evaluate.table import html_lines, html_table
from prunelab.granularity import Granularity, Weight
from prunelab.lottery.files import read, write
from prunelab.lottery.state import State, check_seed, load
from prunelab.masks import Masks
from prunelab.schedule.base import check_step

if TYPE_CHECKING:
    from prunelab.chart import Chart

_FORMAT = "prunelab.ticket.1"
MakeModel = Callable[[int], nn.Module]


@dataclass(frozen=True, eq=False)
class Round:
    """One round of the search: train, then remove.

    Attributes:
        number: from 1 on.
        keep: the fraction to keep after it.
        masks: what is kept after it.
        loss: training loss of the network trained in this round, with the masks of the round before: the mean over its
            last epoch, or what a function that trained it returned; None where it returned no number.
        score: of the same network; None where nothing was to be scored.
        start: where the masks of this round start, if rounds do not all start at the same weights; else None.
    """

    number: int
    keep: float
    masks: Masks
    loss: float | None = None
    score: float | None = None
    start: State | None = None

    @property
    def kept(self) -> int:
        """Entries that are kept after this round."""
        return self.masks.total - self.masks.removed

    @property
    def kept_by_parameter(self) -> dict[str, int]:
        """The same for each parameter."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    def __repr__(self) -> str:
        return f"Round({self.number}: {self.kept} of {self.masks.total} entries kept)"


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A sub-network that starts at the weights at which the whole network started, or at those of an early step.

    Attributes:
        make_model: make_model(seed) → a fresh network.
        seed: of the network, of the batches and of chance.
        whole: masks that keep everything, of the parameters that were to be pruned.
        rewound: where the search went back to after each round.
        rounds: one record a round.
        oneshot: for each round of the search the masks that keep as much, removed at once from the dense network that
            the first one trained.
        granularity: what the units of the masks are; None where a file does not say it.
        settings: how it was searched for, in words, by name.
    """

    make_model: MakeModel
    seed: int
    whole: Masks
    rewound: State
    rounds: tuple[Round, ...] = ()
    oneshot: tuple[Masks, ...] = ()
    granularity: Granularity | None = field(default_factory=Weight)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def masks(self) -> Masks:
        """What the ticket keeps."""
        return self.rounds[-1].masks if self.rounds else self.whole

    @property
    def start(self) -> State:
        """Where the training of the ticket starts: weights, optimizer and step."""
        own = self.rounds[-1].start if self.rounds else None
        return self.rewound if own is None else own

    @property
    def initial(self) -> Mapping[str, Tensor]:
        """The weights at which it starts, as a `state_dict` of the whole network: what is removed is there too."""
        return self.start.weights

    def model(self) -> nn.Module:
        """The ticket, not yet trained: a new network with the initial weights, what is removed zero."""
        model = make(self.make_model, self.seed)
        load(model, self.initial)
        return self.masks.apply_(model)

    def at(self, number: int) -> Ticket:
        """The ticket as it was after so many rounds; 0 is the dense network."""
        if check_step(number, "round") > len(self.rounds):
            raise ValueError(f"there is no round {number}: the ticket was found in {len(self.rounds)}")
        return replace(self, rounds=self.rounds[:number])

    def __repr__(self) -> str:
        kept, total = self.masks.total - self.masks.removed, self.masks.total
        return (
            f"Ticket(seed {self.seed}: {kept} of {total} entries kept after {len(self.rounds)} rounds, starts at step "
            f"{self.start.step})"
        )

    def _repr_html_(self) -> str:
        """The rounds as a table: what is kept, in all and of each parameter, and the loss and score of the training."""
        names = list(self.whole)
        rows = [
            [str(one.number), f"{one.kept:,}", f"{1 - one.masks.sparsity:.4f}", _shown(one.loss), _shown(one.score)]
            + [f"{kept:,}" for kept in one.kept_by_parameter.values()]
            for one in self.rounds
        ]
        said = [f"{self!r}. Loss and score are those of the network trained in the round, before its pruning."]
        headings = ["round", "kept", "fraction", "loss", "score", *names]
        return html_lines(said) + html_table(headings, rows, label="Ticket", left=0)

    def plot(self, title: str = "") -> Chart:
        """What is kept of each parameter after each round, and the scores of the rounds. Needs the extra `lab`."""
        from prunelab.lottery.drawing import draw_ticket

        return draw_ticket(self, title)

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all but `make_model` into one safetensors file. An existing file is replaced whole, or not at all.

        Raises TypeError where the optimizer's state holds something else than tensors, numbers and strings.
        """
        content = {
            "seed": self.seed,
            "shapes": {name: tuple(mask.shape) for name, mask in self.whole.items()},
            "rewound": _state_to_file(self.rewound),
            "masks": _bits([one.masks for one in self.rounds], self.whole),
            "oneshot": _bits(self.oneshot, self.whole),
            "rounds": [_round_to_file(one) for one in self.rounds],
            "planned": len(self.oneshot),
            "granularity": _granularity_to_file(self.granularity),
            "settings": dict(self.settings),
        }
        write(path, content, _FORMAT)

    @classmethod
    def load(cls, path: str | os.PathLike[str], make_model: MakeModel) -> Ticket:
        """Read what `save` wrote, on the CPU.

        Raises FileNotFoundError where there is no file, and ValueError where it holds no ticket, is damaged, or does
        not fit the networks that `make_model` makes.
        """
        content = read(path, _FORMAT)
        try:
            whole = Masks({name: torch.ones(shape, dtype=torch.bool) for name, shape in content["shapes"].items()})
            masks = _masks(content["masks"], whole, len(content["rounds"]))
            rounds = zip(content["rounds"], masks, strict=True)
            ticket = cls(
                make_model,
                check_seed(content["seed"]),
                whole,
                State(**content["rewound"]),
                tuple(_round_from_file(one, mask) for one, mask in rounds),
                tuple(_masks(content["oneshot"], whole, content["planned"])),
                _granularity_from_file(content["granularity"]),
                content["settings"],
            )
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{os.fspath(path)!r} is damaged: {error}") from error
        try:
            ticket.model()
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)!r} does not fit make_model: {error}") from error
        return ticket


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def make(make_model: MakeModel, seed: int) -> nn.Module:
    """The network of a seed: the generators of Python, NumPy and torch start from it, and are as they were afterwards.

    So `make_model` may draw from the global generators, and need not look at its argument. Raises TypeError where it
    makes no module.
    """
    if not callable(make_model) or isinstance(make_model, nn.Module):
        raise TypeError(f"make_model must be a function make_model(seed) → network, not {make_model!r:.60}")
    with seeded(check_seed(seed)):
        model = make_model(seed)
    if not isinstance(model, nn.Module):
        raise TypeError(f"make_model(seed) must give a torch.nn.Module, not {type(model).__name__}")
    return model


# --- how a ticket lies in its file -----------------------------------------------------------------------------------


def _bits(masks: Sequence[Masks], whole: Masks) -> dict[str, Tensor]:
    """One bit an entry: uint8 (rounds, ⌈entries / 8⌉) for each parameter."""
    return {
        name: torch.from_numpy(
            np.packbits(
                np.array([one[name].cpu().numpy().ravel() for one in masks], bool).reshape(len(masks), every.numel()), 1
            )
        )
        for name, every in whole.items()
    }


def _masks(bits: Mapping[str, Tensor], whole: Masks, rounds: int) -> list[Masks]:
    by_name = {
        name: torch.from_numpy(np.unpackbits(bits[name].numpy(), 1, every.numel()).astype(bool))
        for name, every in whole.items()
    }
    return [Masks({name: kept[i].reshape(whole[name].shape) for name, kept in by_name.items()}) for i in range(rounds)]


def _state_to_file(state: State | None) -> dict[str, Any] | None:
    return None if state is None else {one.name: getattr(state, one.name) for one in fields(state)}


def _round_to_file(one: Round) -> dict[str, Any]:
    known = {"number": one.number, "keep": one.keep, "loss": one.loss, "score": one.score}
    return known | {"start": _state_to_file(one.start)}


def _round_from_file(known: dict[str, Any], masks: Masks) -> Round:
    start = known.pop("start")
    return Round(**known, masks=masks, start=None if start is None else State(**start))


def _granularity_to_file(granularity: Granularity | None) -> dict[str, Any] | None:
    """A granularity of the library by its name and settings; one of the user's own is code, so the file has None."""
    if granularity is None or type(granularity).__module__ != Granularity.__module__:
        return None
    settings = {one.name: getattr(granularity, one.name) for one in fields(granularity)}  # type: ignore[arg-type]
    return {"kind": type(granularity).__name__, "settings": settings}


def _granularity_from_file(known: dict[str, Any] | None) -> Granularity | None:
    if known is None:
        return None
    kind = getattr(granularities, known["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, Granularity)):
        raise ValueError(f"the file names a granularity that does not exist: {known['kind']!r}")
    return kind(**known["settings"])
