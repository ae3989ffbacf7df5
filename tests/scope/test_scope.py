"""Scopes on hand-written tables: who competes with whom."""

from __future__ import annotations

import pytest
import torch

from prunelab.scope import Candidates, Global, Local, Scope, resolve


def keep(scope: Scope, sparsity: float, *rows: list[float], **options) -> list[list[int]]:
    candidates = [Candidates(str(index), torch.tensor(row), 1, **options) for index, row in enumerate(rows)]
    return [decision.int().tolist() for decision in scope.keep(candidates, sparsity)]


@pytest.mark.parametrize(
    ("sparsity", "globally", "locally"),
    [
        (0.0, [[1, 1, 1, 1], [1, 1]], [[1, 1, 1, 1], [1, 1]]),
        (0.5, [[0, 0, 0, 1], [1, 1]], [[0, 0, 1, 1], [0, 1]]),
        (0.75, [[0, 0, 0, 0], [1, 1]], [[0, 0, 0, 1], [0, 0]]),  # round(4.5) = 4 and round(1.5) = 2: half to even
        (1.0, [[0, 0, 0, 0], [0, 0]], [[0, 0, 0, 0], [0, 0]]),
    ],
)
def test_global_and_local(sparsity: float, globally: list, locally: list) -> None:
    rows = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0]
    assert keep(Global(), sparsity, *rows) == globally
    assert keep(Local(), sparsity, *rows) == locally


def test_negative_scores_and_magnitudes() -> None:
    assert keep(Global(), 0.5, [-3.0, 1.0, -2.0, 2.0]) == [[0, 1, 0, 1]]
    assert keep(Global(), 0.5, [-3.0, 1.0, -2.0, 2.0], magnitude=True) == [[1, 0, 0, 1]]  # 2 ties with -2: first goes


def test_units_of_several_sizes_skip_what_does_not_fit() -> None:
    # Budget round(0.5 * 12) = 6: the 5 fits, the 4 does not, the 1 does; the 2 no longer.
    one = Candidates("w", torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([5, 4, 1, 2]))
    assert Global().keep([one], 0.5)[0].int().tolist() == [0, 1, 0, 1]


def test_what_was_removed_before_counts_and_stays_removed() -> None:
    scores, alive = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([False, True, True, True])
    for sizes in (1, torch.tensor([1, 1, 1, 2])):
        (kept,) = Global().keep([Candidates("w", scores, sizes, alive)], 0.5)
        assert kept.int().tolist() == ([0, 1, 1, 0] if isinstance(sizes, int) else [0, 1, 0, 1])


def test_resolve() -> None:
    mine = Local()
    assert (resolve("global"), resolve("local")) == (Global(), Local())
    assert resolve(mine) is mine
    for bad in ("Global", None, 3):
        with pytest.raises(ValueError, match="unknown scope"):
            resolve(bad)  # type: ignore[arg-type]
