"""Answers to q3 that must be rejected, each with the message it must get."""

from __future__ import annotations

__all__ = ["WRONG"]


def _answer(
    *,
    norms: str = "weight.abs().sum((2, 3)).flatten()",
    count: str = "round(sparsity * len(norms))",
    order: str = "norms.argsort(stable=True)",
    result: str = "keep.reshape(*weight.shape[:2], 1, 1).expand(weight.shape)",
    before: str = "weight.shape",
) -> str:
    """The solution with one step changed."""
    return f"""\
def kernel_mask(weight, sparsity):
    {before}
    norms = {norms}
    keep = torch.ones_like(norms, dtype=torch.bool)
    keep[{order}[: {count}]] = False
    return {result}"""


WRONG = (
    (_answer(result="~keep.reshape(*weight.shape[:2], 1, 1).expand(weight.shape)"), "upside down"),
    (_answer(result="keep.reshape(*weight.shape[:2], 1, 1) * weight"), "This is the pruned weight"),
    (_answer(result="keep.reshape(weight.shape[:2])"), "one value for each kernel"),
    (_answer(order="norms.argsort(stable=True, descending=True)"), "The .largest. kernels"),
    (_answer(norms="weight.abs().flatten()", result="keep.reshape(weight.shape)"), "Single weights go"),
    (
        _answer(norms="weight.abs().sum((1, 2, 3))", result="keep.reshape(-1, 1, 1, 1).expand(weight.shape)"),
        "Whole filters go",
    ),
    (
        _answer(norms="weight.abs().sum((0, 2, 3))", result="keep.reshape(1, -1, 1, 1).expand(weight.shape)"),
        "Whole input channels go",
    ),
    (
        """\
def kernel_mask(weight, sparsity):
    norms = weight.abs().sum((2, 3))
    keep = torch.ones_like(norms, dtype=torch.bool)
    keep.scatter_(1, norms.argsort(dim=1)[:, : round(sparsity * norms.shape[1])], False)
    return keep[:, :, None, None].expand(weight.shape)""",
        "Each filter loses the same number",
    ),
    (_answer(norms="weight.norm(dim=(2, 3)).flatten()"), "ranked by their L2 norms"),
    (_answer(norms="weight.sum((2, 3)).flatten()"), "ranked by plain sums"),
    (_answer(count="max(0, round(sparsity * len(norms)) - 1)"), "One kernel is missing"),
    (_answer(count="round(sparsity * len(norms)) + 1"), "One kernel too many"),
    (_answer(count="round((1 - sparsity) * len(norms))"), "taken for the fraction to keep"),
    (_answer(count="round(sparsity / 100 * len(norms))"), "taken for a percentage"),
    (_answer(count="round(sparsity * weight.numel())"), "fraction of the number of weights"),
    (_answer(count="int(sparsity * len(norms))"), "`int` and `//` cut it off"),
    (_answer(count="math.ceil(sparsity * len(norms))", before="import math"), "`ceil` always rounds up"),
    (_answer(count="int(sparsity * len(norms) + 0.5)"), "Python's takes the even one"),
    (
        """\
def kernel_mask(weight, sparsity):
    norms = weight.abs().sum((2, 3))
    remove = round(sparsity * norms.numel())
    if remove == 0:
        return torch.ones_like(weight, dtype=torch.bool)
    threshold = norms.flatten().sort().values[remove - 1]
    return (norms > threshold)[:, :, None, None].expand(weight.shape)""",
        "a comparison treats them all alike",
    ),
    (
        _answer(
            order="norms.flip(0).argsort(stable=True)",
            result="keep.flip(0).reshape(*weight.shape[:2], 1, 1).expand(weight.shape)",
        ),
        "the last ones go first",
    ),
    (
        # Of equal kernels those at even positions first: an order that another sort might leave.
        _answer(order="sorted(range(len(norms)), key=lambda n: (float(norms[n]), n % 2))"),
        "among kernels of equal norm the wrong ones go",
    ),
    (
        _answer(result="keep.reshape(*weight.shape[:2], 1, 1).expand(weight.shape).float()"),
        "float32; it should be bool",
    ),
    (_answer(result="keep"), r"shape \(40,\); with one value for each weight"),
    (_answer(count="round(sparsity * len(norms)) + 3"), "15 of 40 kernels go"),
    (_answer(order="norms.argsort(stable=True).roll(2)"), "but not those of the smallest L1 norms"),
    (_answer(before="weight.abs_()"), "modified its input `weight` in place"),
    (_answer(norms="weight.abs().sum((2, 3)).sum(1)"), "raised RuntimeError"),
    (_answer(count="sparsity * len(norms)"), "raised TypeError"),
    (
        """\
def kernel_mask(weight, sparsity):
    keep = (weight.abs().sum((2, 3)) > 1)[:, :, None, None].expand(weight.shape).clone()
    keep[0, 0, 0, 0] = ~keep[0, 0, 0, 0]
    return keep""",
        "only partly removed",
    ),
    ("def kernel_mask(weight, sparsity):\n    keep = weight > 0", "Is a `return` missing"),
    ("def kernel_mask(weight):\n    return weight > 0", r"yours takes `\(weight\)`"),
    ("kernel_mask = torch.ones(8, dtype=torch.bool)", "needs the function itself"),
)
