"""q3, code: a mask that removes an exact fraction of the kernels of a convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.comparing import Mistake, name_mistake, require_form, same
from prunelab.exercises.core import Material, Question
from prunelab.exercises.granularity import kernel_mask_wrong
from prunelab.exercises.outcome import Wrong
from prunelab.granularity import Kernel
from prunelab.pruner import prune

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
Write `kernel_mask(weight, sparsity)` for a convolution's weight of the shape (O, I/g, kH, kW): a bool mask of the same
shape, True = kept, that removes the kernels of the smallest L1 norm. Exactly `round(sparsity * kernels)` of them go;
among kernels of the same norm the one that comes first in the weight goes first.
"""

STARTER = '''\
def kernel_mask(weight, sparsity):
    """Which weights stay if the weakest kernels go: a bool mask."""
    ...'''

SOLUTION = '''\
def kernel_mask(weight, sparsity):
    """Which weights stay if the weakest kernels go: a bool mask."""
    norms = weight.abs().sum(dim=(2, 3)).flatten()  # (O·I/g,): one score a unit
    order = norms.argsort(stable=True)  # stable: ties stay in order of position
    keep = torch.ones_like(norms, dtype=torch.bool)
    keep[order[: round(sparsity * len(norms))]] = False
    return keep.reshape(*weight.shape[:2], 1, 1).expand(weight.shape)'''

HINTS = (
    "Three steps: a score for each kernel, the decision which kernels go, and the decision written out for every "
    "weight of the kernel.",
    "All kernels of the layer compete with each other, so put their norms in one row. A threshold cannot part kernels "
    "of equal norm: an order can. Sort the kernels, and let the first so many of that order go.",
    "`argsort(stable=True)` keeps equal norms in order of position. Start from a mask of ones over the kernels, write "
    "False at the positions that go, then `reshape` to (O, I/g, 1, 1) and `expand` to the weight's shape.",
)

TAKEAWAY = (
    "Score, decide, expand: every method of structured pruning has these three steps. An order instead of a threshold "
    "makes the count exact when kernels tie, and after pruning once, all the zero ones do."
)


def _weakest(norms: Tensor, count: int, *, stable: Callable[[Tensor], Tensor] = lambda norms: norms) -> Tensor:
    """Bool, shaped like `norms`: False at the `count` smallest. `stable` may reverse the order of position."""
    keep = torch.ones(norms.numel(), dtype=torch.bool, device=norms.device)
    keep[stable(norms.flatten()).argsort(stable=True)[: max(count, 0)]] = False
    return stable(keep).reshape(norms.shape)


def _wide(keep: Tensor, weight: Tensor) -> Tensor:
    """A decision over leading dimensions, written out for every weight."""
    return keep.reshape(*keep.shape, *[1] * (weight.dim() - keep.dim())).expand(weight.shape)


def _norms(weight: Tensor) -> Tensor:
    return weight.abs().sum((2, 3))  # (O, I/g)


def _by(scores: Callable[[Tensor], Tensor], *, also: int = 0) -> Callable[..., Tensor]:
    """The answer of someone who ranks by other scores, or removes `also` more of the units."""

    def answer(weight: Tensor, sparsity: float) -> Tensor:
        values = scores(weight)
        return _wide(_weakest(values, round(sparsity * values.numel()) + also), weight)

    return answer


def _by_count(count: Callable[[float, int], int]) -> Callable[..., Tensor]:
    """The answer of someone who has another idea of how many go."""
    return lambda weight, sparsity: _wide(_weakest(_norms(weight), count(sparsity, _norms(weight).numel())), weight)


def _within_filters(weight: Tensor, sparsity: float) -> Tensor:
    norms = _norms(weight)
    return _wide(torch.stack([_weakest(row, round(sparsity * row.numel())) for row in norms]), weight)


def _channels(weight: Tensor, sparsity: float) -> Tensor:
    norms = weight.abs().sum((0, 2, 3))
    return _weakest(norms, round(sparsity * norms.numel()))[None, :, None, None].expand(weight.shape)


def _from_the_end(weight: Tensor, sparsity: float) -> Tensor:
    norms = _norms(weight)
    return _wide(_weakest(norms, round(sparsity * norms.numel()), stable=lambda row: row.flip(0)), weight)


def _half_astray(sparsity: float, kernels: int) -> int:
    """`round`, except that a half goes to the odd neighbour."""
    exact = sparsity * kernels
    return math.floor(exact) + math.ceil(exact) - round(exact) if exact % 1 == 0.5 else round(exact)


def _reference(weight: Tensor, sparsity: float) -> Tensor:
    """The library's own answer."""
    filters, inputs, *kernel = weight.shape
    conv = nn.utils.skip_init(nn.Conv2d, inputs, filters, tuple(kernel), bias=False, dtype=weight.dtype)
    conv = conv.to(weight.device)
    conv.weight.data.copy_(weight)
    return prune(conv, sparsity, granularity=Kernel(), apply=False)["weight"]


# In this order: where two mistakes give the same mask, the simpler explanation comes first. Those of rounding come
# before all others: they alone pass the first cases, so on a later one nothing else explains the same mask.
MISTAKES = (
    Mistake(
        _by_count(_half_astray),
        "A count that ends in one half goes to the wrong neighbour. The task says `round`, and Python's takes the even "
        "one: `round(0.5)` is 0 and `round(1.5)` is 2.",
    ),
    Mistake(
        _by_count(lambda sparsity, kernels: int(sparsity * kernels)),
        "One kernel too few goes where the count is no whole number: `int` and `//` cut it off; the task says `round`.",
    ),
    Mistake(
        _by_count(lambda sparsity, kernels: math.ceil(sparsity * kernels)),
        "One kernel more goes where the count is no whole number: `ceil` always rounds up; the task says `round`.",
    ),
    Mistake(
        lambda weight, sparsity: ~_reference(weight, sparsity),
        "The mask is upside down: True means kept, and yours is True where a kernel goes.",
    ),
    Mistake(
        lambda weight, sparsity: weight * _reference(weight, sparsity),
        "This is the pruned weight. The task asks for the mask: the decision alone, as True and False.",
    ),
    Mistake(
        lambda weight, sparsity: _weakest(_norms(weight), round(sparsity * _norms(weight).numel())),
        "The decision is right, but there is one value for each kernel: write it out for every weight of the kernel.",
    ),
    Mistake(_by(lambda weight: -_norms(weight)), "The *largest* kernels go; pruning removes the smallest."),
    Mistake(_by(torch.abs), "Single weights go. A kernel is a unit: all of its weights go or none."),
    Mistake(
        _by(lambda weight: weight.abs().sum((1, 2, 3))),
        "Whole filters go. Each kernel has a norm and a fate of its own.",
    ),
    Mistake(_channels, "Whole input channels go. Each kernel has a norm and a fate of its own."),
    Mistake(
        _within_filters,
        "Each filter loses the same number of kernels. All kernels of the layer compete with each other.",
    ),
    Mistake(_by(lambda weight: weight.square().sum((2, 3))), "The kernels are ranked by their L2 norms, not by L1."),
    Mistake(
        _by(lambda weight: weight.sum((2, 3))),
        "The kernels are ranked by plain sums: strong negative weights count as the weakest. Take magnitudes first.",
    ),
    Mistake(
        _by(_norms, also=-1),
        "One kernel is missing among those that go. Is the kernel at the threshold kept by mistake?",
    ),
    Mistake(_by(_norms, also=1), "One kernel too many goes. Is the first kernel that should stay removed as well?"),
    Mistake(
        _by_count(lambda sparsity, kernels: round((1 - sparsity) * kernels)),
        "The sparsity is taken for the fraction to keep. It is the fraction to remove.",
    ),
    Mistake(
        _by_count(lambda sparsity, kernels: round(sparsity / 100 * kernels)),
        "The sparsity is taken for a percentage. It is a fraction between 0 and 1.",
    ),
    Mistake(
        lambda weight, sparsity: _wide(_weakest(_norms(weight), round(sparsity * weight.numel())), weight),
        "The number to remove is a fraction of the number of weights; take it of the number of kernels.",
    ),
)


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="kernel_mask")


def _judge(found: Any, weight: Tensor, sparsity: float) -> None:
    expected = _reference(weight, sparsity)
    if same(found, expected) and found.dtype == torch.bool:
        return
    _require_order_of_ties(found, expected, weight, sparsity)
    if _norms(weight).unique().numel() > 1 and 0 < sparsity < 1:  # elsewhere different mistakes give the same mask
        name_mistake(found, expected, MISTAKES, weight=weight, sparsity=sparsity)
    require_form(found, like=expected, per="weight")
    if not _whole_kernels(found, weight):
        raise Wrong("Some kernels are only partly removed. A kernel is a unit: all of its weights go or none.")
    gone, wanted = (int((~mask[:, :, 0, 0]).sum()) for mask in (found, expected))
    if gone != wanted:
        raise Wrong(_why_count(gone, weight, sparsity))
    raise Wrong("The right number of kernels goes, but not those of the smallest L1 norms.")


def _require_order_of_ties(found: Any, expected: Tensor, weight: Tensor, sparsity: float) -> None:
    """Raise `Wrong` if other kernels go than expected, but as many and of the same norms. Others get no blame for it:
    an answer with another mistake has failed before, on a case without ties."""
    if not isinstance(found, Tensor) or found.dtype != torch.bool or found.device != weight.device:
        return
    if not _whole_kernels(found, weight):
        return
    norms = _norms(weight)
    gone, wanted = (norms[~mask[:, :, 0, 0]].sort().values for mask in (found, expected))
    if torch.equal(gone, wanted):
        if same(found, _from_the_end(weight, sparsity)):
            raise Wrong(
                "Among kernels of the same norm the last ones go first. Ties break by position, from the start."
            )
        raise Wrong(
            "The norms of the kernels that go are right, but among kernels of equal norm the wrong ones go: those that "
            "come first in the weight should. `sort`, `argsort` and `topk` promise no order among equals; it takes a "
            "stable one."
        )


def _whole_kernels(mask: Tensor, weight: Tensor) -> bool:
    """Does each kernel go or stay as a whole?"""
    return mask.shape == weight.shape and bool((mask == mask[:, :, :1, :1]).all())


def _why_count(gone: int, weight: Tensor, sparsity: float) -> str:
    norms = _norms(weight).flatten()
    told = f"{gone} of {len(norms)} kernels go, at a sparsity of {sparsity}."
    threshold = norms.sort().values[max(round(sparsity * len(norms)) - 1, 0)]
    if gone in (int((norms <= threshold).sum()), int((norms < threshold).sum())) and (norms == threshold).sum() > 1:
        return f"{told} Several kernels share the norm at the threshold, and a comparison treats them all alike."
    return f"{told} Exactly `round(sparsity * kernels)` should."


def _cases() -> list[Case]:
    draw = torch.Generator().manual_seed(3)

    def weight(*shape: int, largest: int = 4096) -> Tensor:
        # Multiples of 1/1024 add up exactly in any order, so that a norm does not depend on how it is summed.
        return torch.randint(-largest, largest + 1, shape, generator=draw) / 1024

    plain, tied, zeroed = weight(8, 5, 3, 3), weight(4, 6, 2, 2, largest=1), weight(6, 3, 3, 3)
    zeroed[1:5] = 0
    tries: list[tuple[str, Tensor, float]] = [
        ("a random weight (8, 5, 3, 3)", plain, 0.3),
        ("the same filters in another order", plain[torch.randperm(8, generator=draw)], 0.3),
        ("the same weight times -64", -64 * plain, 0.3),
        ("a sparsity that does not divide the kernels evenly", plain, 0.42),
        ("another sparsity that does not divide them evenly", plain, 0.31),
        ("a count that ends in one half, and `round` goes down", weight(6, 3, 3, 3), 0.25),
        ("a count that ends in one half, and `round` goes up", weight(2, 3, 3, 3), 0.25),
        ("sparsity 0: nothing goes", plain, 0.0),
        ("sparsity 1: everything goes", plain, 1.0),
        ("many kernels of the same norm", tied, 0.5),
        ("a weight pruned before: most of its kernels are zero", zeroed, 0.3),
        ("a weight of zeros: every kernel ties", torch.zeros(4, 3, 3, 3), 0.5),
        ("a grouped convolution: 6 filters that each read 2 of the 4 input channels", weight(6, 2, 3, 5), 0.75),
        ("a single kernel", weight(1, 1, 3, 3), 0.4),
        ("a weight in double precision", weight(5, 4, 3, 3).double(), 0.6),
    ]
    if torch.cuda.is_available():
        tries.append(("a weight on the GPU", plain.cuda(), 0.3))
    return [Case(about, {"weight": tensor, "sparsity": sparsity}) for about, tensor, sparsity in tries]


WRONG = kernel_mask_wrong.WRONG

QUESTION = Question(
    name="q3",
    kind="code",
    title="A mask that removes kernels",
    task=TASK,
    answer="kernel_mask",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
