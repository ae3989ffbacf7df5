"""GraSP: keep the flow of gradients, before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunelab.criteria.base import Criterion, Subject
from prunelab.criteria.measuring import Batches, Loss, batches, differentiable, measure, measuring, run, scalar
from prunelab.criteria.members import member_sums
from prunelab.criteria.watching import PerWeight
from prunelab.targets import Target, unwrap


@dataclass(frozen=True)
class GraSP(Criterion):
    """How much of the gradient's flow |g|² goes with a unit: sum over members of w · (Hg) (Wang et al. 2020).

    g = ∂L/∂w and H = ∂²L/∂w² are those of the mean loss over all the data, in all parameters that are pruned; what
    `within=` has removed has no part in g. Removing a unit changes |g|² by -2 · sum of w · (Hg) to first order. The
    paper scores -w · Hg and removes the *highest*; here larger means keep, as everywhere, so the sign is turned. A
    negative score says that gradients flow better without the unit; it goes first.

    H is never built: Hg is the gradient of g · v at v = g, one more pass over the data. The authors' code divides the
    logits by 200: `loss=lambda outputs, targets: cross_entropy(outputs / 200, targets)` does the same.

    >>> GraSP().score(torch.tensor([[1.0, -2.0]]), None, torch.tensor([[3.0, 1.0]]))     # statistics: Hg
    tensor([1.])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weights", "data"})
    reads: ClassVar[str] = "the Hessian times the gradient, measured on the data"

    def probe(self) -> None:
        return None

    def observe(self, subject: Subject) -> Mapping[str, PerWeight]:
        if not callable(subject.loss) or subject.data is None:
            problem = ValueError if subject.loss is None else TypeError
            raise problem(
                "GraSP needs data= and loss=, a function of (outputs, targets) that returns the mean loss, not "
                f"{subject.loss!r:.60}"
            )
        flow = dict(measure(subject.model, subject.targets, subject.data, subject.loss).gradients)
        for name in flow.keys() & subject.kept.keys():
            flow[name] = flow[name].masked_fill(~subject.kept[name], 0)
        products = hessian_product(subject.model, subject.targets, subject.data, subject.loss, flow)
        return {name: PerWeight(values) for name, values in products.items()}

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return member_sums(weights * statistics)


def hessian_product(
    model: nn.Module, targets: Sequence[Target], data: Batches, loss: Loss, vectors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The Hessian of the mean loss over all examples, in the targets' weights, times a vector: by parameter name."""
    model, weights = unwrap(model), [target.weight for target in targets]
    examples = 0
    # Of attention's kernels only the one in plain mathematics can be differentiated twice.
    with measuring(model), differentiable(weights), sdpa_kernel(SDPBackend.MATH):
        along = [vectors[target.name].clone() for target in targets]  # they may have been made in inference mode
        sums = [torch.zeros_like(vector) for vector in along]
        for inputs, labels, count in batches(model, data):
            value = scalar(loss(run(model, inputs), labels))
            slopes = torch.autograd.grad(value, weights, create_graph=True, allow_unused=True)
            dots = [(s * v).sum() for s, v in zip(slopes, along, strict=True) if s is not None and s.requires_grad]
            if dots:  # else the loss is linear: a slope that is the same everywhere
                found = torch.autograd.grad(sum(dots[1:], start=dots[0]), weights, allow_unused=True)
                for part, product in zip(sums, found, strict=True):
                    part += 0 if product is None else product * count
            examples += count
    return {target.name: part / examples for target, part in zip(targets, sums, strict=True)}
