"""Answers to q4 that must be rejected, each with the message it must get."""

from __future__ import annotations

__all__ = ["WRONG"]


def _answer(
    *,
    row: str = "torch.cat([w.abs().flatten() for w in weights])",
    count: str = "round(sparsity * len(row))",
    order: str = "row.argsort(stable=True)",
    part: str = "part.reshape(w.shape)",
    before: str = "weights",
) -> str:
    """The solution with one step changed."""
    return f"""\
def global_masks(weights, sparsity):
    {before}
    row = {row}
    keep = torch.ones_like(row, dtype=torch.bool)
    keep[{order}[: {count}]] = False
    parts = keep.split([w.numel() for w in weights])
    return [{part} for part, w in zip(parts, weights)]"""


_COMPARING = """\
def global_masks(weights, sparsity):
    row = torch.cat([w.abs().flatten() for w in weights])
    k = round(sparsity * len(row))
    threshold = row.sort().values[k - 1] if k else -1
    return [w.abs() > threshold for w in weights]"""

WRONG = (
    (_COMPARING, "a comparison treats them all alike"),
    (_answer(part="~part.reshape(w.shape)"), "upside down"),
    (_answer(part="part.reshape(w.shape) * w"), "These are the pruned weights"),
    (
        "def global_masks(weights, sparsity):\n"
        "    masks = [torch.ones_like(w, dtype=torch.bool).flatten() for w in weights]\n"
        "    for mask, w in zip(masks, weights):\n"
        "        mask[w.abs().flatten().argsort(stable=True)[: round(sparsity * w.numel())]] = False\n"
        "    return [mask.reshape(w.shape) for mask, w in zip(masks, weights)]",
        "Each tensor loses the same fraction",
    ),
    (_answer(order="row.argsort(stable=True, descending=True)"), "The .largest. weights go"),
    (_answer(row="torch.cat([w.flatten() for w in weights])"), "ranked with their signs"),
    (_answer(count="max(0, round(sparsity * len(row)) - 1)"), "One weight is missing"),
    (_answer(count="round(sparsity * len(row)) + 1"), "One weight too many"),
    (_answer(count="round((1 - sparsity) * len(row))"), "taken for the fraction to keep"),
    (_answer(count="round(sparsity / 100 * len(row))"), "taken for a percentage"),
    (_answer(count="int(sparsity * len(row))"), "`int` and `//` cut it off"),
    (_answer(count="math.ceil(sparsity * len(row))", before="import math"), "`ceil` always rounds up"),
    (_answer(count="int(sparsity * len(row) + 0.5)"), "Python's takes the even one"),
    (_answer(order="(len(row) - 1 - row.flip(0).argsort(stable=True))"), "the last ones go first"),
    (
        # Of equals those at even positions first: an order that another sort might leave.
        _answer(order="sorted(range(len(row)), key=lambda n: (float(row[n]), n % 2))"),
        "among equals the wrong ones go",
    ),
    (_answer(part="part.reshape(w.shape).float()"), "float32; it should be bool"),
    (_answer(part="part"), r"with one value for each weight it is \(6, 5\)"),
    (_answer(count="round(sparsity * len(row)) + 5"), "29 of 60 weights go"),
    (_answer(order="row.argsort(stable=True).roll(7)"), "but not those of the smallest magnitude"),
    (_answer(before="weights[0].abs_()"), "modified its input `weights` in place"),
    (_answer().replace("return [", "return *[").replace(")]", ")][:1],"), "a list with one mask for each weight"),
    (_answer(count="sparsity * len(row)"), "raised TypeError"),
    (_answer(row="torch.cat(weights)"), "raised RuntimeError"),
    ("def global_masks(weights, sparsity):\n    masks = weights", "Is a `return` missing"),
    ("def global_masks(model):\n    return []", r"yours takes `\(model\)`"),
    ("global_masks = [torch.ones(3)]", "needs the function itself"),
)
