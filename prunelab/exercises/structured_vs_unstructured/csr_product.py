"""q2, code: a matrix in compressed sparse rows times a vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `csr_product(values, columns, starts, x)`: the product of a matrix in CSR and a vector, one number for each row,
without building the dense matrix. `values` has the K weights that are left, row by row, `columns` (K,) the column of
each, and row r owns the entries from `starts[r]` up to, but without, `starts[r + 1]`; `starts` has one entry more than
there are rows. A row may own none: its result is 0. Keep the dtype of `values`.
"""

STARTER = '''\
def csr_product(values, columns, starts, x):
    """A matrix in compressed sparse rows times a vector: (rows,).

    values: (K,) floats; columns: (K,) and starts: (rows + 1,), int64;
    x: (columns of the matrix,), floats.
    """
    ...'''

SOLUTION = '''\
def csr_product(values, columns, starts, x):
    """A matrix in compressed sparse rows times a vector: (rows,).

    values: (K,) floats; columns: (K,) and starts: (rows + 1,), int64;
    x: (columns of the matrix,), floats.
    """
    products = values * x[columns]  # (K,): the gather is what makes it slow
    rows = torch.repeat_interleave(starts.diff())  # (K,): the row of each entry
    result = torch.zeros(len(starts) - 1, dtype=values.dtype, device=values.device)
    return result.index_add(0, rows, products)'''

HINTS = (
    "First forget the rows: which number of `x` does each of the K weights meet? One line of indexing gives all K "
    "products.",
    "Then add up the products of each row. A loop over the rows with a slice from one start to the next is fine; what "
    "is the sum of an empty slice?",
    "Without a loop: how many entries has each row? `torch.repeat_interleave` turns such counts into the row number of "
    "each entry, and `index_add` adds each product where its row is.",
)

TAKEAWAY = (
    "K multiplications for K weights, and for each of them a lookup `x[columns]` that jumps through memory. The dense "
    "product reads `x` in order and does several multiplications in one instruction. That is where κ comes from."
)


def _rows(starts: Tensor) -> Tensor:
    return torch.repeat_interleave(starts.diff())


def _sums(products: Tensor, starts: Tensor) -> Tensor:
    return torch.zeros(len(starts) - 1, dtype=products.dtype).index_add(0, _rows(starts), products)


def _right(values: Tensor, columns: Tensor, starts: Tensor, x: Tensor) -> Tensor:
    return _sums(values * x[columns].to(values.dtype), starts)


def _totals(values: Tensor, columns: Tensor, starts: Tensor, x: Tensor) -> Tensor:
    """The running total at the end of each row."""
    return torch.cat([values.new_zeros(1), (values * x[columns]).cumsum(0)])[starts[1:]]


def _like_reduceat(values: Tensor, columns: Tensor, starts: Tensor, x: Tensor) -> Tensor:
    """Where a row is empty, the entry at its start: what numpy's `add.reduceat` gives."""
    padded = torch.cat([values * x[columns], values.new_zeros(1)])
    return torch.where(starts.diff() == 0, padded[starts[:-1]], _right(values, columns, starts, x))


def _without(values: Tensor, columns: Tensor, starts: Tensor, x: Tensor, which: str) -> Tensor:
    """Each row without its first or its last entry."""
    kept = torch.ones(len(values), dtype=values.dtype)
    filled = starts.diff() > 0
    kept[starts[:-1][filled] if which == "first" else starts[1:][filled] - 1] = 0
    return _sums(kept * values * x[columns], starts)


MISTAKES = (
    Mistake(
        lambda values, starts, **_: _sums(values, starts),
        "These are the sums of the weights: `x` does not enter.",
    ),
    Mistake(
        lambda columns, starts, x, **_: _sums(x[columns], starts),
        "These are sums of entries of `x`: the weights do not enter.",
    ),
    Mistake(
        lambda values, columns, starts, x: _sums(values + x[columns], starts),
        "You add weight and input; a product is asked for.",
    ),
    Mistake(_totals, "Each result contains the rows above it: these are running totals. A row has a beginning, too."),
    Mistake(
        _like_reduceat,
        "Rows that own nothing get a number of the next row (numpy's `reduceat` does the same). Their sum is 0.",
    ),
    Mistake(
        lambda **case: _without(**case, which="last"),
        "Each row lacks its last entry. The end of a slice is not part of it, and neither is `starts[r + 1]`.",
    ),
    Mistake(
        lambda **case: _without(**case, which="first"),
        "Each row lacks its first entry, the one at `starts[r]`.",
    ),
    Mistake(
        lambda values, columns, starts, x: _right(values, columns, starts, x) / starts.diff().clamp(min=1),
        "These are the means of the products of each row. A product of matrices adds.",
    ),
    Mistake(
        lambda values, starts, x, **_: _sums(values * x[_rows(starts) % len(x)], starts),
        "Each weight meets the entry of `x` with the number of its *row*. It is the column that says which one.",
    ),
    Mistake(
        lambda values, starts, x, **_: _sums(values * x[torch.arange(len(values)) % len(x)], starts),
        "The weights meet the entries of `x` in order, as if the columns had no gaps.",
    ),
    Mistake(
        lambda values, columns, starts, x: _right(values, columns, starts, x).flip(0),
        "The rows come out in reverse.",
    ),
    Mistake(
        lambda values, columns, starts, x: _right(values, columns, starts, x).abs(),
        "The results have lost their signs.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="csr_product")


def _judge(found: Any, values: Tensor, columns: Tensor, starts: Tensor, x: Tensor) -> None:
    expected = _right(values, columns, starts, x)
    if isinstance(found, Tensor) and found.shape == x.shape != expected.shape:
        raise Wrong("The result has one value for each column: this is the product with the transposed matrix.")
    if isinstance(found, Tensor) and found.dim() > 0 and len(found) == int((starts.diff() > 0).sum()) < len(expected):
        raise Wrong("Rows that own no entry are missing from the result. They are rows of the matrix too.")
    require_form(found, expected, "row")
    name_mistake(found, expected, MISTAKES, values=values, columns=columns, starts=starts, x=x)
    if not same(found, expected):
        differ = int((found.detach().double() - expected.double()).abs().gt(1e-4).sum())
        raise Wrong(f"The product is not right: {differ or 'some'} of {len(expected)} rows differ.")


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(2)

    def matrix(rows: int, columns: int, density: float, empty: tuple[int, ...] = ()) -> Tensor:
        kept = torch.rand(rows, columns, generator=draw) < density
        kept[list(empty)] = False
        return kept * torch.randn(rows, columns, generator=draw)

    tries = {
        "a matrix of 6 rows and 9 columns, no row empty": matrix(6, 9, 0.6),
        "a matrix whose middle rows own nothing": matrix(9, 5, 0.6, (2, 3)),
        "the first and the last row own nothing": matrix(5, 8, 0.5, (0, 4)),
        "a square matrix": matrix(6, 6, 0.4, (1,)),
        "a single row": matrix(1, 12, 0.5),
        "nothing is left": matrix(4, 3, -1),
        "a dense matrix in CSR": matrix(3, 4, 2),
        "double precision": matrix(8, 6, 0.4).double(),
    }
    cases = []
    for about, dense in tries.items():
        rows, columns = dense.nonzero().unbind(1)
        counts = torch.bincount(rows, minlength=len(dense))
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        x = torch.randn(dense.shape[1], generator=draw).to(dense.dtype)
        arguments = {"values": dense[rows, columns], "columns": columns, "starts": starts, "x": x}
        cases.append(Case(about, arguments))
    return cases


def _looping(line: str, after: str = "") -> str:
    return (
        "def csr_product(values, columns, starts, x):\n"
        "    n, y = len(starts) - 1, torch.zeros(len(starts) - 1, dtype=values.dtype)\n"
        "    for r in range(n):\n"
        "        a, e = starts[r], starts[r + 1]\n"
        f"        {line}\n"
        f"    return y{after}"
    )


_ROW = "y[r] = (values[a:e] * x[columns[a:e]]).sum()"

WRONG = (
    (_looping("y[r] = values[a:e].sum()"), "`x` does not enter"),
    (_looping("y[r] = x[columns[a:e]].sum()"), "the weights do not enter"),
    (_looping("y[r] = (values[a:e] + x[columns[a:e]]).sum()"), "a product is asked for"),
    (_looping("y[r] = (values[:e] * x[columns[:e]]).sum()"), "these are running totals"),
    (_looping("e = max(e, min(a + 1, len(values))); " + _ROW), "a number of the next row"),
    (_looping("e = max(e - 1, a); " + _ROW), "lacks its last entry"),
    (_looping("a = a + 1; " + _ROW), "lacks its first entry"),
    (_looping(_ROW.replace(".sum()", ".mean()")), "means of the products"),
    (_looping("y[r] = (values[a:e] * x[r % len(x)]).sum()"), "the number of its .row."),
    (_looping("y[r] = (values[a:e] * x[torch.arange(a, e) % len(x)]).sum()"), "as if the columns had no gaps"),
    (_looping(_ROW, ".flip(0)"), "in reverse"),
    (_looping(_ROW, ".abs()"), "lost their signs"),
    (_looping(_ROW, "[starts.diff() > 0]"), "Rows that own no entry are missing"),
    (_looping(_ROW, ".double()"), "should be float32"),
    (_looping(_ROW, "[:, None]"), "with one value for each row"),
    (_looping(_ROW, " + 1"), "The product is not right"),
    (
        "def csr_product(values, columns, starts, x):\n"
        "    rows = torch.repeat_interleave(starts.diff())\n"
        "    return torch.zeros(len(x)).index_add(0, columns, values * x[rows])",
        "the product with the transposed matrix",
    ),
    (
        "def csr_product(values, columns, starts, x):\n    values *= x[columns]\n    return values",
        "modified its input `values` in place",
    ),
    ("def csr_product(values, columns, starts, x):\n    return x[starts] * values", "raised (RuntimeError|IndexError)"),
    ("def csr_product(values, columns, starts, x):\n    y = values * x[columns]", "Is a `return` missing"),
    ("def csr_product(values, x):\n    return values", r"yours takes `\(values, x\)`"),
    ("csr_product = torch.zeros(3)", "needs the function itself"),
)

QUESTION = Question(
    name="q2",
    kind="code",
    title="A product without the zeros",
    task=TASK,
    answer="csr_product",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
