"""q3, code: the correlation of all filters with each other, by one matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, require_form
from prunelab.exercises.core import Material, Question
from prunelab.exercises.criteria.correlation_wrong import WRONG
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `correlation(weight)`: the absolute value of the Pearson correlation of each filter with each other filter, as a
matrix (O, O), from a weight of the shape (O, I/g, kH, kW). A filter whose weights are all equal (a pruned one is all
zeros) does not vary, so it has no correlation: its row and its column are 0, also at the place where they meet. Any
other filter has 1 with itself. The result has the weight's dtype and device. Do it without a loop over pairs.
"""

STARTER = '''\
def correlation(weight):
    """|Pearson correlation| of all filters: (O, I/g, kH, kW) -> (O, O)."""
    ...'''

SOLUTION = '''\
def correlation(weight):
    """|Pearson correlation| of all filters: (O, I/g, kH, kW) -> (O, O)."""
    matrix = weight.flatten(1)  # (O, members)
    centred = matrix - matrix.mean(dim=1, keepdim=True)
    varies = matrix.amax(dim=1, keepdim=True) > matrix.amin(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    unit = torch.where(varies, centred / length, 0.0)  # rows of length 1, or of zeros
    return (unit @ unit.T).abs()'''

HINTS = (
    "Pearson's correlation of two filters is the cosine of the angle between them once each has lost its own mean. So: "
    "take the means away, bring every filter to length 1, and multiply.",
    "With one filter a row, the product of the matrix with its own transpose holds the inner products of all pairs at "
    "once. The order matters: take away the mean, then divide by the length of what is left, then multiply.",
    "A filter of zeros has length 0, and 0 / 0 is NaN, which spreads over its row and column. `torch.where` puts zeros "
    "there instead; decide by whether the largest and the smallest weight of the filter differ.",
)

TAKEAWAY = (
    "One Gram matrix replaces a loop over all pairs. The sign and the scale of a filter have no part in it, and what "
    "does not vary has no correlation: without that rule a single pruned filter would fill the matrix with NaN."
)


def _reference(weight: Tensor) -> Tensor:
    """Pair by pair: |covariance| / (deviation × deviation), in float64."""
    matrix = weight.flatten(1).double()
    found = torch.zeros(len(matrix), len(matrix), dtype=torch.float64, device=weight.device)
    for one, first in enumerate(matrix):
        for other, second in enumerate(matrix):
            if first.amax() > first.amin() and second.amax() > second.amin():
                a, b = first - first.mean(), second - second.mean()
                found[one, other] = (a * b).sum().abs() / (a.square().sum() * b.square().sum()).sqrt()
    return found.to(weight.dtype)


def _safe(rows: Tensor) -> Tensor:
    """The rows at length 1, those of zeros left as they are."""
    length = rows.norm(dim=1, keepdim=True)
    return rows / length.where(length > 0, 1)


def _centred(weight: Tensor) -> Tensor:
    matrix = weight.flatten(1)
    return matrix - matrix.mean(1, keepdim=True)


def _gram(rows: Tensor) -> Tensor:
    return rows @ rows.T


def _scaled_first(weight: Tensor) -> Tensor:
    rows = _safe(weight.flatten(1))
    return rows - rows.mean(1, keepdim=True)


def _unbiased(weight: Tensor) -> float:
    """(M - 1) / M, for M members: what `std()` in place of the root mean square makes of a correlation."""
    return 1 - 1 / weight[0].numel()


def _signed(weight: Tensor) -> Tensor:
    return torch.corrcoef(weight.flatten(1)).nan_to_num(0)


MISTAKES = (
    Mistake(
        lambda weight: _gram(_safe(weight.flatten(1))).abs(),
        "These are cosines: the mean of each filter has not been taken away.",
    ),
    Mistake(
        _signed,
        "The sign is still there. A filter and its negative are as redundant as two equal ones here.",
    ),
    Mistake(lambda weight: _signed(weight).square(), "These are squared correlations; take the absolute value."),
    Mistake(
        lambda weight: 1 - _reference(weight),
        "This is 1 - |correlation|: a measure of how *unlike* they are. The task asks for the correlation.",
    ),
    Mistake(
        lambda weight: _gram(_centred(weight)).abs(),
        "The filters are centred but not scaled to length 1, so large ones look correlated with everything.",
    ),
    Mistake(
        lambda weight: _gram(weight.flatten(1)).abs(), "This is the plain Gram matrix: neither centred nor normalised."
    ),
    Mistake(
        lambda weight: torch.cov(weight.flatten(1)).abs(),
        "These are covariances. A correlation divides them by both deviations, so that scale has no part in it.",
    ),
    Mistake(
        lambda weight: _gram(_safe(weight.flatten(1) - weight.flatten(1).mean(0))).abs(),
        "The mean filter has been taken away from all. Each filter has a mean of its own, over its members.",
    ),
    Mistake(
        lambda weight: _gram(_safe(weight.flatten(1) - weight.mean())).abs(),
        "The mean of the whole layer has been taken away. Each filter has one of its own.",
    ),
    Mistake(
        lambda weight: _reference(weight).fill_diagonal_(0),
        "The diagonal is zero: a filter that varies has the correlation 1 with itself.",
    ),
    Mistake(
        lambda weight: _reference(weight).triu(1),
        "Only one half of the matrix is filled: the correlation of a with b is that of b with a.",
    ),
    Mistake(
        lambda weight: _reference(weight) * _unbiased(weight),
        "All values are a little too small, by (M - 1) / M. `std()` divides by M - 1 and your product by M: use the "
        "same for both.",
    ),
    Mistake(
        lambda weight: _gram(_scaled_first(weight)).abs(),
        "You scaled first and centred after: the rows no longer have length 1.",
    ),
    Mistake(
        lambda weight: _reference(weight.transpose(0, 1)),
        "These are the correlations of the *input* channels. Filters are counted by the first dimension.",
    ),
    Mistake(
        lambda weight: _gram(_safe(_centred(weight).abs())).abs(),
        "The absolute value comes too early: the weights lose their signs before they are multiplied.",
    ),
    Mistake(
        lambda weight: _reference(weight).fill_diagonal_(1),
        "A filter that does not vary has no correlation, not even with itself: its place on the diagonal is 0.",
    ),
    Mistake(
        lambda weight: _rows_of_one(weight),
        "A filter that does not vary counts as correlated with all others. It has no correlation: 0.",
    ),
)


def _rows_of_one(weight: Tensor) -> Tensor:
    matrix, idle = weight.flatten(1), _idle(weight)
    return _reference(matrix).masked_fill(idle[:, None] | idle[None, :], 1)


def _idle(weight: Tensor) -> Tensor:
    """(O,) the filters that do not vary."""
    matrix = weight.flatten(1)
    return matrix.amax(1) == matrix.amin(1)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="correlation")


def _judge(found: Any, weight: Tensor) -> None:
    expected = _reference(weight)
    if _same(found, expected):
        return
    _require_exact_zeros(found, expected, weight)
    for mistake in MISTAKES:
        wrong = mistake.answer(weight)
        if _same(found, wrong, dtype=False) and not _same(wrong, expected, dtype=False):
            raise Wrong(mistake.message)
    require_form(found, like=expected, per="pair of filters")
    if not torch.isfinite(found).all():
        where = "a filter that does not vary has length 0" if _idle(weight).any() else "something is divided by 0"
        raise Wrong(f"The result has NaN or infinite values: {where} here.")
    if bool((found.abs() > 1 + 1e-4).any()):
        raise Wrong("Some values are above 1, which no correlation can be. Has each filter length 1?")
    wrong_pairs = int(((found - expected).abs() > 1e-4).sum())
    raise Wrong(f"{wrong_pairs} of the {expected.numel()} values are not the correlations of these filters.")


def _require_exact_zeros(found: Any, expected: Tensor, weight: Tensor) -> None:
    """Raise `Wrong` if the only fault is a filter of equal weights, not zero, whose centred weights were not exactly 0.

    Other faults in how such a filter is treated have shown before, on filters of zeros.
    """
    idle = _idle(weight)
    if not bool(weight[idle].any()) or not isinstance(found, Tensor) or found.shape != expected.shape:
        return
    if found.isfinite().all() and _same(found[~idle][:, ~idle], expected[~idle][:, ~idle]):
        raise Wrong(
            "A filter whose weights are all equal gets a correlation. Its mean is rounded, so taking it away need not "
            "leave exact zeros: look at the weights themselves, or leave some tolerance."
        )


def _same(found: Any, expected: Tensor, *, dtype: bool = True) -> bool:
    """Equal up to rounding, which is larger here than `comparing.same` allows: lengths are divided out."""
    if not isinstance(found, Tensor) or found.shape != expected.shape or found.device != expected.device:
        return False
    if found.is_complex() or (dtype and found.dtype != expected.dtype):
        return False
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    tolerance = (1e-9 if found.dtype == torch.float64 else 1e-4) * scale
    return torch.allclose(found.detach().double(), expected.double(), rtol=0, atol=tolerance)


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, 3, 3, generator=draw) + 0.5  # a mean that is not zero
    twins = weight.clone()
    twins[1], twins[3] = 3 * twins[0], -twins[2]
    shifted = weight + torch.arange(6.0).reshape(6, 1, 1, 1)
    pruned = weight.clone()
    pruned[[1, 4]] = 0
    constant = weight.clone()
    constant[2] = 0.7
    tries = {
        "a random weight (6, 4, 3, 3)": weight,
        "filter 1 is three times filter 0, filter 3 the negative of filter 2": twins,
        "a constant is added to each filter": shifted,
        "the same weight times -64": -64 * weight,
        "two filters are zero": pruned,
        "all weights of one filter are the same": constant,
        "a grouped convolution: 6 filters that each read 2 of the 4 input channels": torch.randn(
            6, 2, 3, 3, generator=draw
        ),
        "a single filter": weight[:1],
        "a weight of zeros": torch.zeros(3, 2, 3, 3),
        "a weight in double precision": torch.randn(5, 3, 3, 3, generator=draw, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        tries["a weight on the GPU"] = weight.cuda()
    return [Case(about, {"weight": tensor}) for about, tensor in tries.items()]


QUESTION = Question(
    name="q3",
    kind="code",
    title="All correlations at once",
    task=TASK,
    answer="correlation",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
