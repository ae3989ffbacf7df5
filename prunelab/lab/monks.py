"""The MONK's problems: three small classification tasks on which Optimal Brain Surgeon was first shown."""

from __future__ import annotations

import itertools
import os
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from prunelab.lab.extras import lab_extra

Row = tuple[int, ...]  # a1 to a6, each counted from 1
Pair = tuple[Tensor, Tensor]

VALUES = (3, 3, 2, 3, 4, 2)  # how many values each attribute has: 432 combinations, 17 inputs
TRAINING_SIZES = {1: 124, 2: 169, 3: 122}
FLIPPED = 6  # labels of MONK-3's training set that are wrong: about 5 %
RULES: dict[int, Callable[[Row], bool]] = {
    1: lambda a: a[0] == a[1] or a[4] == 1,
    2: lambda a: a.count(1) == 2,
    3: lambda a: (a[4] == 3 and a[3] == 1) or (a[4] != 4 and a[1] != 3),
}
PATIENCE = 10.0  # seconds to wait for a server


@dataclass(frozen=True, eq=False)
class Monks:
    """One of the MONK's problems. Both parts are pairs (inputs, targets): (N, 17) float32, one-hot, and (N,) int64.

    Attributes:
        problem: 1, 2 or 3.
        train: 124, 169 or 122 examples; of MONK-3's, 6 have the wrong label.
        test: all 432 combinations of the attributes with their right labels; it contains the training inputs.
        source: where the training set comes from, in words.
        original: it is the published one, not one drawn like it.
    """

    problem: int
    train: Pair
    test: Pair
    source: str
    original: bool

    def __repr__(self) -> str:
        return f"Monks(MONK-{self.problem}: train {len(self.train[1])}, test {len(self.test[1])}; {self.source})"


def monks(problem: int, data_home: str | os.PathLike[str] | None = None, *, download: bool = True) -> Monks:
    """The MONK's problem 1, 2 or 3 (Thrun et al. 1991): six attributes, two classes, a rule to be found.

    MONK-1: a1 = a2 or a5 = 1. MONK-2: exactly two attributes are 1. MONK-3: (a5 = 3 and a4 = 1) or (a5 ≠ 4 and a2 ≠ 3).
    The training set is the published one if UCI's file `monks-1.train` (-2, -3) lies in `data_home`, or in a folder
    `monks` there, or if OpenML has it; else one of the same size is drawn from the rule, with a warning. `source` says
    which.

    Args:
        problem: 1, 2 or 3.
        data_home: a folder with UCI's files, in which scikit-learn also keeps what it fetches; by default the folder
            that the environment variable PRUNELAB_DATA names, if any.
        download: False: do not ask OpenML.

    Raises:
        ValueError: another problem, or a file that is not in UCI's format.
    """
    if isinstance(problem, bool) or problem not in RULES:
        raise ValueError(f"problem={problem!r}: the MONK's problems are 1, 2 and 3")
    home = data_home if data_home is not None else os.environ.get("PRUNELAB_DATA")
    found = _from_files(problem, home) or (_from_openml(problem, home) if download else None)
    rows, source = found or (_drawn(problem), f"drawn: {TRAINING_SIZES[problem]} combinations, not the published ones")
    if found is None:
        warnings.warn(
            f"the published training set of MONK-{problem} was not found, so one of the same size was drawn; put UCI's "
            f"monks-{problem}.train into a folder and name it with data_home=",
            stacklevel=2,
        )
    everything = [(a, int(RULES[problem](a))) for a in _combinations()]
    return Monks(problem, _tensors(rows), _tensors(everything), source, original=found is not None)


def _from_files(problem: int, home: str | os.PathLike[str] | None) -> tuple[list[tuple[Row, int]], str] | None:
    """The training set in UCI's file, where there is one: `class a1 a2 a3 a4 a5 a6 id` in each line."""
    if home is None:
        return None
    name = f"monks-{problem}.train"
    path = next((p for p in (Path(home) / name, Path(home) / "monks" / name) if p.is_file()), None)
    if path is None:
        return None
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            label, *attributes = (int(field) for field in fields[:7])
            rows.append(_checked(tuple(attributes), label))
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not 'class a1 a2 a3 a4 a5 a6 id' with values from 1 to {VALUES}"
            ) from None
    return rows, f"UCI's file {name}"


def _from_openml(problem: int, home: str | os.PathLike[str] | None) -> tuple[list[tuple[Row, int]], str] | None:
    """The training set from OpenML, where it can be reached. It keeps both parts as one: the test set is taken away."""
    with lab_extra():
        from sklearn.datasets import fetch_openml
    name = f"monks-problems-{problem}"
    try:
        with _patience():
            found = fetch_openml(name, version=1, data_home=home and os.fspath(home), n_retries=0, as_frame=True)
        pairs = zip(found.data.astype(int).itertuples(index=False), found.target.astype(int), strict=True)
        rows = [_checked(tuple(attributes), int(label)) for attributes, label in pairs]
    except (OSError, ValueError):  # no network, or not what it was
        return None
    test = Counter((a, int(RULES[problem](a))) for a in _combinations())
    left = Counter(rows)
    if test - left:
        return None
    training = list((left - test).elements())
    return (training, f"OpenML's {name}") if len(training) == TRAINING_SIZES[problem] else None


def _drawn(problem: int) -> list[tuple[Row, int]]:
    """Combinations drawn without putting back, as the published ones were, always the same."""
    generator = torch.Generator().manual_seed(problem)
    combinations = list(_combinations())
    order = torch.randperm(len(combinations), generator=generator)[: TRAINING_SIZES[problem]]
    rows = [(combinations[i], int(RULES[problem](combinations[i]))) for i in sorted(order.tolist())]
    if problem == 3:
        wrong = torch.randperm(len(rows), generator=generator)[:FLIPPED].tolist()
        rows = [(a, 1 - label if i in wrong else label) for i, (a, label) in enumerate(rows)]
    return rows


def _combinations() -> Iterator[Row]:
    return itertools.product(*(range(1, values + 1) for values in VALUES))


def _checked(attributes: Row, label: int) -> tuple[Row, int]:
    ranges = zip(attributes, VALUES, strict=True)
    if label not in (0, 1) or not all(1 <= value <= values for value, values in ranges):
        raise ValueError(f"{attributes}, {label} is no example of a MONK's problem")
    return tuple(int(value) for value in attributes), label


def _tensors(rows: list[tuple[Row, int]]) -> Pair:
    attributes = torch.tensor([a for a, _ in rows]) - 1  # (N, 6)
    columns = [F.one_hot(column, values) for column, values in zip(attributes.T, VALUES, strict=True)]
    return torch.cat(columns, dim=1).float(), torch.tensor([label for _, label in rows])


@contextmanager
def _patience() -> Iterator[None]:
    """Inside, a server that does not answer is given up after a while."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
