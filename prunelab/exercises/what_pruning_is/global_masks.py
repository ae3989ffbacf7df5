"""q4, code: masks that remove an exact fraction of all the weights of a network, ties and all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong
from prunelab.exercises.what_pruning_is import global_masks_wrong
from prunelab.selection import keep_largest

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
The chapter's `prune_by_threshold` removes too many weights when several have the threshold's magnitude. Write
`global_masks(weights, sparsity)`, which does not: for a list of weights of any shapes, a list of bool masks of the same
shapes, True = kept. All weights compete with each other, whichever tensor they are in. Exactly `round(sparsity * n)` of
all n weights go, those of the smallest magnitude; among equals the one that comes first goes first: the first tensor
before the second, and within a tensor in the order of its `flatten()`.
"""

STARTER = '''\
def global_masks(weights, sparsity):
    """Masks of the largest weights of a whole network: a list of bool."""
    ...'''

SOLUTION = '''\
def global_masks(weights, sparsity):
    """Masks of the largest weights of a whole network: a list of bool."""
    everything = torch.cat([weight.abs().flatten() for weight in weights])
    order = everything.argsort(stable=True)  # stable: equals stay in order of position
    keep = torch.ones_like(everything, dtype=torch.bool)
    keep[order[: round(sparsity * len(everything))]] = False
    parts = keep.split([weight.numel() for weight in weights])
    return [part.reshape(weight.shape) for part, weight in zip(parts, weights)]'''

HINTS = (
    "No comparison with a threshold can part equal weights. An order can: sort all the weights, and let the first so "
    "many of that order go, however many have the same magnitude.",
    "Write all weights into one long row, decide there, and cut the decision into pieces again. `torch.cat` of the "
    "flattened tensors makes the row; `split` with the sizes of the tensors cuts it.",
    "`argsort(stable=True)` of the magnitudes keeps equals in order of position. Start from a row of True, write False "
    "at the positions that go, `split` it, and `reshape` each piece like its weight.",
)

TAKEAWAY = (
    "A rank decides what a threshold cannot. Ties are no curiosity: a network that has been pruned once is full of "
    "equal zeros, half precision makes equals of neighbours, and counts that are off by a few make experiments that "
    "cannot be compared."
)


def _keep(scores: Tensor, count: int) -> Tensor:
    """Bool, flat: False at the `count` smallest, ties by position."""
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    keep[scores.flatten().argsort(stable=True)[: max(count, 0)]] = False
    return keep


def _row(weights: Sequence[Tensor]) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights])


def _reference(weights: Sequence[Tensor], sparsity: float) -> Tensor:
    """The library's own answer, as one row."""
    return torch.cat(keep_largest(weights, round(sparsity * len(_row(weights))), magnitude=True))


def _by(scores: Callable[[Tensor], Tensor], *, also: int = 0) -> Callable[..., Tensor]:
    """The answer of someone who ranks by other scores, or removes `also` more of the weights."""
    return lambda weights, sparsity: _keep(scores(_row(weights)), round(sparsity * len(_row(weights))) + also)


def _by_count(count: Callable[[float, int], int]) -> Callable[..., Tensor]:
    """The answer of someone who has another idea of how many go."""
    return lambda weights, sparsity: _keep(_row(weights).abs(), count(sparsity, len(_row(weights))))


def _half_astray(sparsity: float, n: int) -> int:
    """`round`, except that a half goes to the odd neighbour."""
    exact = sparsity * n
    return math.floor(exact) + math.ceil(exact) - round(exact) if exact % 1 == 0.5 else round(exact)


def _local(weights: Sequence[Tensor], sparsity: float) -> Tensor:
    return torch.cat([_keep(weight.abs(), round(sparsity * weight.numel())) for weight in weights])


def _from_the_end(weights: Sequence[Tensor], sparsity: float) -> Tensor:
    row = _row(weights).abs()
    return _keep(row.flip(0), round(sparsity * len(row))).flip(0)


# Those of rounding come before all others: they alone pass the first cases.
MISTAKES = (
    Mistake(
        _by_count(_half_astray),
        "A count that ends in one half goes to the wrong neighbour. The task says `round`, and Python's takes the even "
        "one: `round(0.5)` is 0 and `round(1.5)` is 2.",
    ),
    Mistake(
        _by_count(lambda sparsity, n: int(sparsity * n)),
        "One weight too few goes where the count is no whole number: `int` and `//` cut it off; the task says `round`.",
    ),
    Mistake(
        _by_count(lambda sparsity, n: math.ceil(sparsity * n)),
        "One weight more goes where the count is no whole number: `ceil` always rounds up; the task says `round`.",
    ),
    Mistake(
        lambda weights, sparsity: ~_reference(weights, sparsity),
        "The masks are upside down: True means kept, and yours are True where a weight goes.",
    ),
    Mistake(
        lambda weights, sparsity: _row(weights) * _reference(weights, sparsity),
        "These are the pruned weights. The task asks for the masks: the decision alone, as True and False.",
    ),
    Mistake(_local, "Each tensor loses the same fraction. The weights of all tensors compete with each other."),
    Mistake(_by(lambda row: -row.abs()), "The *largest* weights go; pruning removes the smallest."),
    Mistake(
        _by(lambda row: row),
        "The weights are ranked with their signs: strong negative weights count as the weakest. Take magnitudes first.",
    ),
    Mistake(
        _by(torch.abs, also=-1),
        "One weight is missing among those that go. Is the weight at the threshold kept by mistake?",
    ),
    Mistake(_by(torch.abs, also=1), "One weight too many goes. Is the first one that should stay removed as well?"),
    Mistake(
        _by_count(lambda sparsity, n: round((1 - sparsity) * n)),
        "The sparsity is taken for the fraction to keep. It is the fraction to remove.",
    ),
    Mistake(
        _by_count(lambda sparsity, n: round(sparsity / 100 * n)),
        "The sparsity is taken for a percentage. It is a fraction between 0 and 1.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="global_masks")


def _judge(found: Any, weights: list[Tensor], sparsity: float) -> None:
    if not isinstance(found, list | tuple) or len(found) != len(weights):
        raise Wrong(f"`global_masks` returns {describe(found)}; it should return a list with one mask for each weight.")
    for mask, weight in zip(found, weights, strict=True):
        if not isinstance(mask, Tensor) or mask.shape != weight.shape or mask.device != weight.device:
            require_form(mask, like=torch.ones_like(weight, dtype=torch.bool), per="weight")
    row, expected = _row(found), _reference(weights, sparsity)
    bools = all(mask.dtype == torch.bool for mask in found)
    if bools and same(row, expected):
        return
    if bools:
        _require_order_of_ties(row, expected, weights, sparsity)
    if 0 < sparsity < 1 and _row(weights).abs().unique().numel() > 1:  # elsewhere different mistakes look alike
        name_mistake(row, expected, MISTAKES, weights=weights, sparsity=sparsity)
    for mask in found:
        require_form(mask, like=torch.ones_like(mask, dtype=torch.bool), per="weight")
    gone, wanted = int((~row).sum()), int((~expected).sum())
    if gone != wanted:
        raise Wrong(_why_count(gone, weights, sparsity))
    raise Wrong("The right number of weights goes, but not those of the smallest magnitude.")


def _require_order_of_ties(row: Tensor, expected: Tensor, weights: list[Tensor], sparsity: float) -> None:
    """Raise `Wrong` if other weights go than expected, but as many and of the same magnitudes."""
    magnitudes = _row(weights).abs()
    if torch.equal(magnitudes[~row].sort().values, magnitudes[~expected].sort().values):
        if same(row, _from_the_end(weights, sparsity)):
            raise Wrong(
                "Among weights of equal magnitude the last ones go first. Ties break by position, from the start."
            )
        raise Wrong(
            "The magnitudes of the weights that go are right, but among equals the wrong ones go: those that come "
            "first should. `sort`, `argsort` and `topk` promise no order among equals; it takes a stable one."
        )


def _why_count(gone: int, weights: list[Tensor], sparsity: float) -> str:
    magnitudes = _row(weights).abs()
    told = f"{gone} of {len(magnitudes)} weights go, at a sparsity of {sparsity}."
    threshold = magnitudes.sort().values[max(round(sparsity * len(magnitudes)) - 1, 0)]
    by_comparison = (int((magnitudes <= threshold).sum()), int((magnitudes < threshold).sum()))
    if gone in by_comparison and (magnitudes == threshold).sum() > 1:
        return f"{told} Several weights share the magnitude at the threshold, and a comparison treats them all alike."
    return f"{told} Exactly the count that the task names should."


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=draw)

    plain = [normal(6, 5), normal(4, 6, scale=3.0), normal(2, 3)]  # 60 weights
    tied = [torch.randint(-2, 3, shape, generator=draw).float() for shape in ((5, 4), (3, 5), (2, 5))]
    pruned = [normal(4, 5), normal(3, 4)]
    pruned[0][1:] = 0
    tries: list[tuple[str, list[Tensor], float]] = [
        ("three random tensors of different scale", plain, 0.4),
        ("the same tensors in another order", plain[::-1], 0.4),
        ("the same tensors times -64", [-64 * weight for weight in plain], 0.4),
        ("a sparsity that does not divide the weights evenly", plain, 0.31),
        ("another sparsity that does not divide them evenly", plain, 0.42),
        ("a count that ends in one half, and `round` goes down", [normal(5, 2)], 0.25),
        ("a count that ends in one half, and `round` goes up", [normal(3, 2)], 0.25),
        ("sparsity 0: nothing goes", plain, 0.0),
        ("sparsity 1: everything goes", plain, 1.0),
        ("many weights of the same magnitude", tied, 0.5),
        ("a network pruned before: many weights are zero", pruned, 0.3),
        ("weights of zero: all of them tie", [torch.zeros(3, 4), torch.zeros(2, 3)], 0.5),
        ("a convolution and a vector", [normal(4, 2, 3, 3), normal(8)], 0.75),
        ("a single weight", [normal(1, 1)], 0.4),
        ("double precision", [normal(5, 4).double(), normal(3, 5).double()], 0.6),
    ]
    if torch.cuda.is_available():
        tries.append(("tensors on the GPU", [weight.cuda() for weight in plain], 0.4))
    return [Case(about, {"weights": tensors, "sparsity": sparsity}) for about, tensors, sparsity in tries]


WRONG = global_masks_wrong.WRONG

QUESTION = Question(
    name="q4",
    kind="code",
    title="Exactly as many as asked",
    task=TASK,
    answer="global_masks",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
