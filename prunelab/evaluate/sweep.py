"""Methods × granularities × sparsities × seeds, each beside the dense network and beside chance."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prunelab.criteria.base import Criterion
from prunelab.evaluate import kept
from prunelab.evaluate.cell import Cell, Finetune, Outcome, Score, Train, Work
from prunelab.evaluate.engine import Engine, resolve
from prunelab.evaluate.fingerprint import describe
from prunelab.evaluate.journal import Journal
from prunelab.evaluate.method import DENSE, Arm, Method, PruningFunction, arms_of
from prunelab.evaluate.results import Sweep
from prunelab.evaluate.seeding import check_seeds, check_sparsities
from prunelab.granularity import Granularity
from prunelab.progress import bar
from prunelab.schedule.base import check_step
from prunelab.scope import resolve as resolve_scope

if TYPE_CHECKING:
    from tqdm import tqdm


def sweep(
    methods: Mapping[str, Method | Criterion | PruningFunction],
    sparsities: Iterable[float],
    seeds: Iterable[int] = range(5),
    *,
    train: Train,
    score: Score,
    finetune: Finetune | None = None,
    granularities: Iterable[Granularity] | None = None,
    path: str | os.PathLike[str] | None = None,
    retry: bool = False,
    jobs: int = 1,
    engine: Engine | None = None,
    threads: int = 1,
    progress: bool = True,
) -> Sweep:
    """Compare pruning methods over sparsities and seeds, always beside the dense network and beside chance.

    For every seed a dense network is trained, once. Every method then prunes a copy of it to every sparsity, at every
    granularity; the copy is fine-tuned and scored. Each granularity and scope gets its random baseline: the same
    units, sparsities and seeds, with `criteria.Random(seed)` in place of the criterion.

    >>> import torch
    >>> from prunelab.criteria import Magnitude
    >>> results = sweep(
    ...     {"magnitude": Magnitude()}, sparsities=[0.5], seeds=range(3), progress=False,
    ...     train=lambda seed: torch.nn.Linear(4, 4), score=lambda model: model.weight.abs().sum(),
    ... )
    >>> results.frame()[["method", "kind", "sparsity", "seed"]].drop_duplicates(["method", "sparsity"])
          method    kind  sparsity  seed
    0      dense   dense       0.0     0
    3  magnitude  method       0.5     0
    6     random  random       0.5     0

    Args:
        methods: name → `Method`, a criterion alone, or any function method(model, sparsity, seed) that prunes a copy of
            its own and returns masks, or the pruned network (`prunelab.shrink(...).model`). A function that also takes
            `criterion=` gets a random baseline of its own, called with a random criterion.
        sparsities: fractions to remove, 0 to 1.
        seeds: one dense network each.
        train: train(seed) → the trained dense network.
        score: score(model) → a number, larger is better (accuracy), or several by name: {"accuracy": ..., "loss": ...}.
        finetune: finetune(model, masks, seed) trains the pruned network in place and keeps what is pruned at zero
            (`masks.hold`, or `lab.train.fit(masks=masks)`); what it returns is ignored. `masks` is None where a method
            returned a network. The dense network is scored as it was trained.
        granularities: what the methods that do not say it themselves prune; single weights by default.
        path: a file for the journal, one line of JSON a finished cell. A sweep that was killed goes on from there when
            it is called again; methods, sparsities and seeds may be added. The trained networks lie beside it, in
            `<path>.networks`, as pickles: take a journal only from whom you trust. None: nothing is kept.
        retry: run the cells again that the journal has as failed.
        jobs: processes on this machine (-1: one a core). `engine`, where given, computes the cells instead (`Engine`).
        threads: of torch, for every cell, so that the numbers do not depend on the number of processes.
        progress: show a bar.

    Chance: before each call of train, method, finetune and score the generators of Python, NumPy and torch start from
    the cell's seed, and afterwards they are as they were. So a cell gives the same in any order and in any process,
    and the methods meet the same networks, batches and draws: compare them in pairs (`Sweep.against`).

    A cell that raises is recorded, with its exception, and the others go on; in the end a warning says how many failed.

    Raises:
        TypeError, ValueError: a bad argument, a journal of another configuration (train, score, finetune or a method
            has changed; the message says which), or something that cannot be sent to other processes.
    """
    arms = arms_of(methods, granularities)
    levels = check_sparsities(sparsities)
    _check(arms, levels, train=train, score=score, finetune=finetune)
    cells = _grid(arms, levels, check_seeds(seeds))
    runner, threads = resolve(jobs, engine), check_step(threads, "threads", least=1)
    with ExitStack() as stack:
        journal, folder = None, Path()
        if path is None:
            folder = Path(stack.enter_context(TemporaryDirectory()))
        else:
            journal = Journal(path, {name: describe(f) for name, f in _named(train, score, finetune).items()})
            folder = journal.path.with_name(f"{journal.path.name}.networks")
            if folder.exists() and not folder.is_dir():
                raise ValueError(f"{str(folder)!r} is no folder, and the trained networks go there; name another path")
        pruners = {arm.key: arm.run for arm in arms if arm.run is not None}
        known = _known(journal, arms, retry)
        shown = stack.enter_context(bar(len(cells), "sweep", done=sum(c in known for c in cells), shown=progress))
        run = _Run(runner, Work(train, score, finetune, pruners, folder, threads=threads), arms, journal, known, shown)
        run.all(cells)
    outcomes = tuple(run.outcomes[cell] for cell in cells)
    if failed := [outcome for outcome in outcomes if outcome.error is not None]:
        said = failed[0].error or {}
        warnings.warn(
            f"{len(failed)} of {len(cells)} cells of the sweep failed, the first with {said['type']}: "
            f"{said['message']:.200}. See .failures",
            RuntimeWarning,
            stacklevel=2,
        )
    return Sweep(tuple(replace(arm, run=None) for arm in arms), outcomes)


class _Run:
    """The cells of one call: what is known of them, and how the rest is computed."""

    def __init__(
        self,
        engine: Engine,
        work: Work,
        arms: Sequence[Arm],
        journal: Journal | None,
        known: Mapping[Cell, Outcome],
        shown: tqdm,
    ) -> None:
        self._engine, self._work, self._journal, self._shown = engine, work, journal, shown
        self._arms = {arm.key: arm for arm in arms}
        self.outcomes = dict(known)
        self._classes: dict[str, type] = {}

    def all(self, cells: Sequence[Cell]) -> None:
        """Compute what is not known yet: the dense networks first, then all that is pruned."""
        dense = {cell.seed: cell for cell in cells if cell.arm == DENSE.key}
        pruned = [cell for cell in cells if cell.arm != DENSE.key]
        open_cells = [cell for cell in pruned if cell not in self.outcomes]
        needed = {cell.seed for cell in open_cells}
        self._compute(self._work, [cell for seed, cell in dense.items() if self._to_train(cell, seed in needed)])

        # What belongs to a network that could not be trained fails with it; a retry gets it back.
        trained = {seed: self.outcomes[cell] for seed, cell in dense.items()}
        for cell in open_cells:
            if (error := trained[cell.seed].error) is not None:
                message = f"the dense network of seed {cell.seed} failed: {error['message']}"
                self.outcomes[cell] = Outcome(cell, error=error | {"message": message})
                self._shown.update()
        networks = {seed: outcome.network for seed, outcome in trained.items()}
        # Seed by seed, so that a process reads each network once.
        left = sorted((cell for cell in open_cells if cell not in self.outcomes), key=lambda cell: cell.seed)
        self._compute(replace(self._work, networks=networks, classes=self._classes), left)

    def _to_train(self, cell: Cell, needed: bool) -> bool:
        """Is a dense network not known, or needed and no longer on the disk?"""
        outcome = self.outcomes.get(cell)
        if outcome is None or outcome.error is not None or not needed:
            return outcome is None
        file = kept.network_file(self._work.folder, cell.seed)
        try:
            model = kept.load(file.read_bytes(), {})
        except Exception:  # not there, torn, or of classes that are no more: nothing is lost but time
            return True
        self._classes |= kept.classes_of(model)
        return kept.digest(model) != outcome.network

    def _compute(self, work: Work, cells: list[Cell]) -> None:
        if not cells:
            return
        waiting, results = set(cells), self._engine.map(work, cells)
        try:
            for outcome in results:
                waiting.discard(outcome.cell)
                self._record(outcome)
        finally:
            if isinstance(results, Generator):
                results.close()  # so that nothing runs on when it was left by an exception
        if waiting:
            raise RuntimeError(f"the engine gave no result for {len(waiting)} of {len(cells)} cells: {self._engine!r}")

    def _record(self, outcome: Outcome) -> None:
        self._check_same(outcome)
        if self._journal is not None:
            arm = self._arms[outcome.cell.arm]
            self._journal.append(outcome.to_json() | {"method": arm.name, "definition": arm.definition})
        self._shown.update(outcome.cell not in self.outcomes)
        self.outcomes[outcome.cell] = outcome
        if outcome.error is not None:
            self._shown.set_postfix(failed=sum(one.error is not None for one in self.outcomes.values()))

    def _check_same(self, outcome: Outcome) -> None:
        """Raises ValueError where a dense network, trained again, is not the one that the journal's cells belong to."""
        before = self.outcomes.get(outcome.cell)
        if before is not None and before.network != outcome.network:
            raise ValueError(
                f"train({outcome.cell.seed}) does not give the same network again: that of the journal scored "
                f"{before.values}, now it is {outcome.values or outcome.error}. The cells of both cannot be compared; "
                "name another path"
            )


def _known(journal: Journal | None, arms: Sequence[Arm], retry: bool) -> dict[Cell, Outcome]:
    """The cells that the journal has, the last record of each, those that succeeded before those that failed: of two
    runs at once one may have failed where the other did not. Raises ValueError for those of another method."""
    by_key = {arm.key: arm for arm in arms}
    known: dict[Cell, Outcome] = {}
    for record in journal.records if journal is not None else ():
        try:
            outcome = Outcome.from_json(record)
        except ValueError as error:
            path = None if journal is None else str(journal.path)
            raise ValueError(f"in {path!r}, {error}. Delete that line, or name another path") from error
        arm = by_key.get(outcome.cell.arm)
        if arm is not None and journal is not None and record.get("definition") != arm.definition:
            raise ValueError(
                f"the journal {str(journal.path)!r} belongs to another sweep: there the method {arm.name!r} is "
                f"{record.get('definition')}, here {arm.definition}. Give it another name, or name another path"
            )
        before = known.get(outcome.cell)
        if outcome.error is None or before is None or before.error is not None:
            known[outcome.cell] = outcome
    return {cell: outcome for cell, outcome in known.items() if outcome.error is None or not retry}


def _grid(arms: Sequence[Arm], sparsities: Sequence[float], seeds: Sequence[int]) -> list[Cell]:
    """All cells, in the order of the frame."""
    dense = [Cell(DENSE.key, 0.0, seed) for seed in seeds]
    others = [arm.key for arm in arms if arm.kind != DENSE.kind]
    return dense + [Cell(*cell) for cell in product(others, sparsities, seeds)]


def _check(arms: Sequence[Arm], sparsities: Sequence[float], **functions: Any) -> None:
    """Raises for what would fail in every cell of a method."""
    for name, function in functions.items():
        if not callable(function) and not (function is None and name == "finetune"):
            raise TypeError(f"{name} must be a function, not {function!r:.60}")
    for arm in arms:
        if isinstance(arm.run, Method):
            for sparsity in sparsities:
                resolve_scope(arm.run.scope).check(sparsity)


def _named(train: Train, score: Score, finetune: Finetune | None) -> dict[str, Any]:
    return {"train": train, "score": score, "finetune": finetune}
