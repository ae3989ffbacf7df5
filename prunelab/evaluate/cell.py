"""One cell of a sweep: a dense network trained, or a copy of it pruned, fine-tuned and scored."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.evaluate import kept
from prunelab.evaluate.method import DENSE, PruningFunction
from prunelab.evaluate.seeding import seeded, torch_threads
from prunelab.masks import Masks
from prunelab.memory import memory_of
from prunelab.scope import LayerCollapseWarning
from prunelab.targets import named_parameters
from prunelab.trace import NonzeroCounter

Train = Callable[[int], nn.Module]
Finetune = Callable[[nn.Module, Masks | None, int], Any]
Score = Callable[[nn.Module], float | Mapping[str, float]]

TAIL = 12  # lines of a traceback that are kept
# What a run is, in the frame of the results, beside its scores.
COLUMNS = frozenset(
    ["method", "kind", "granularity", "scope", "sparsity", "seed", "removed", "collapsed", "seconds", "error"]
)


@dataclass(frozen=True)
class Cell:
    """What one cell is: the key of its arm, the sparsity asked for, the seed."""

    arm: str
    sparsity: float
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    `values` are its scores by name; None where it failed, and `error` then has the exception's type, its message and
    the end of its traceback. `removed` is the fraction of the dense network's parameters that are zero or gone,
    `collapsed` the parameters of which nothing is left, `network` the digest of the trained network (dense cells only).
    """

    cell: Cell
    values: dict[str, float] | None = None
    removed: float | None = None
    collapsed: tuple[str, ...] = ()
    seconds: float = 0.0
    network: str = ""
    error: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """As a record for a journal."""
        return asdict(self) | {"cell": asdict(self.cell)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Outcome:
        """What `to_json` made. Raises ValueError where it is something else."""
        try:
            rest = {key: record[key] for key in ("values", "removed", "seconds", "network", "error")}
            cell = Cell(**record["cell"])
            hash(cell)
            return cls(cell=cell, collapsed=tuple(record["collapsed"]), **rest)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no cell of a sweep: {record!s:.80} ({error!r})") from error


@dataclass
class Work:
    """Computes cells. It is sent to other processes, so it holds functions, names and a folder, and no networks.

    Chance starts from the cell's seed before training, pruning, fine-tuning and scoring alike: what a cell gives
    depends on no other cell, and methods meet the same chance.
    """

    train: Train
    score: Score
    finetune: Finetune | None
    methods: Mapping[str, PruningFunction]
    folder: Path
    networks: Mapping[int, str] = field(default_factory=dict)  # seed → digest of the trained network
    classes: Mapping[str, type] = field(default_factory=dict)  # of networks that an earlier run has kept
    threads: int = 1
    _read: tuple[int, bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self, cell: Cell) -> Outcome:
        """The cell's outcome; what goes wrong in it is an outcome too."""
        start = time.perf_counter()
        # Whether gradients are recorded is left as it was, whatever the functions set.
        with torch_threads(self.threads), torch.set_grad_enabled(torch.is_grad_enabled()), warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerCollapseWarning)  # the outcome says it
            try:
                outcome = self._dense(cell) if cell.arm == DENSE.key else self._pruned(cell)
            except (Exception, SystemExit) as error:
                outcome = {"error": _said(error)}
        return Outcome(cell, seconds=time.perf_counter() - start, **outcome)

    def _dense(self, cell: Cell) -> dict[str, Any]:
        with seeded(cell.seed):
            model = self.train(cell.seed)
        if not isinstance(model, nn.Module):
            raise TypeError(f"train(seed) must return the trained network, not {type(model).__name__}")
        kept.keep(self.folder, cell.seed, model)
        network = kept.digest(model)  # as it was kept: what `score` changes in it, the pruned copies do not inherit
        return self._scored(model, cell, parameter_count(model)) | {"network": network}

    def _pruned(self, cell: Cell) -> dict[str, Any]:
        model = self._network(cell.seed)
        dense = parameter_count(model)
        with seeded(cell.seed):
            made = self.methods[cell.arm](model, cell.sparsity, cell.seed)
        masks = made if isinstance(made, Masks) else None
        if masks is not None:
            masks.apply_(model)
        elif isinstance(made, nn.Module):
            model = made
        else:
            raise TypeError(f"a method must return Masks or the pruned network, not {type(made).__name__}")
        if self.finetune is not None:
            with seeded(cell.seed):
                self.finetune(model, masks, cell.seed)
            _check_held(model, masks)
        return self._scored(model, cell, dense) | {"collapsed": masks.collapsed if masks is not None else ()}

    def _scored(self, model: nn.Module, cell: Cell, dense: int) -> dict[str, Any]:
        counter = NonzeroCounter(model)
        left = sum(map(counter.count, _distinct(model)))
        with seeded(cell.seed):
            values = checked_values(self.score(model))
        return {"values": values, "removed": 1 - left / dense if dense else 0.0}

    def _network(self, seed: int) -> nn.Module:
        """A fresh copy of the trained network. The file is read once for the cells of one seed."""
        if self._read is not None and self._read[0] == seed:
            return kept.load(self._read[1], self.classes)
        file = kept.network_file(self.folder, seed)
        content = file.read_bytes()
        model = kept.load(content, self.classes)
        if kept.digest(model) != self.networks[seed]:
            raise ValueError(
                f"{str(file)!r} is not the network that was trained for this sweep; delete the file, and it is trained "
                "again"
            )
        self._read = seed, content
        return model


def parameter_count(model: nn.Module) -> int:
    """All parameters, shared ones once."""
    return sum(parameter.numel() for parameter in _distinct(model))


def checked_values(given: Any) -> dict[str, float]:
    """What `score` returned, as numbers by name; a number alone is called "score"."""
    named = given if isinstance(given, Mapping) else {"score": given}
    values = {}
    for name, value in named.items():
        if isinstance(value, Tensor):
            value = value.detach()
        number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
        if not isinstance(name, str) or not isinstance(number, Real) or isinstance(number, bool):
            raise TypeError(f"score(model) must return a number, or numbers by name, not {given!r:.80}")
        values[name] = float(number)
    if not values:
        raise TypeError("score(model) returned no number")
    if taken := COLUMNS & set(values):
        raise ValueError(
            f"score(model) calls a number {', '.join(map(repr, sorted(taken)))}, as a column of the results is called; "
            "give it another name"
        )
    return values


def _distinct(model: nn.Module) -> list[Tensor]:
    return list({memory_of(parameter): parameter for parameter in model.parameters()}.values())


def _check_held(model: nn.Module, masks: Masks | None) -> None:
    """Raises ValueError where fine-tuning has brought pruned weights back: the sparsity would be another one."""
    parameters = named_parameters(model)
    for name, mask in (masks or {}).items():
        back = int(torch.count_nonzero(parameters[name].detach()[~mask.to(parameters[name].device)]))
        if back:
            raise ValueError(
                f"after finetune, {back} of the pruned entries of {name!r} are no longer zero; hold them, with "
                "masks.hold(model, optimizer)"
            )


def _said(error: BaseException) -> dict[str, str]:
    try:
        message = str(error)
    except Exception as other:  # of anybody's class: the cell has failed, and says so all the same
        message = f"(its text cannot be shown: {type(other).__name__})"
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {"type": type(error).__name__, "message": message, "traceback": "\n".join(lines[-TAIL:])}
