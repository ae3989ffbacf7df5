"""The diagonal of the Hessian: what Optimal Brain Damage needs of it, for networks whose Hessian cannot be built."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from prunelab.criteria.grasp import hessian_product
from prunelab.criteria.measuring import Batches, Loss, batches, run
from prunelab.curvature.objective import check_data, check_number, running
from prunelab.curvature.places import places_of
from prunelab.curvature.recursion import recursion
from prunelab.curvature.sweep import sweep
from prunelab.schedule import check_step
from prunelab.targets import unwrap

Diagonal = dict[str, Tensor]
_METHODS: dict[str, Callable[..., None]] = {
    "exact": partial(sweep, exact=True),
    "gauss-newton": partial(sweep, exact=False),
    "lecun": partial(recursion, bends=True),
    "levenberg-marquardt": partial(recursion, bends=False),
}


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def hessian_diagonal(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    method: Literal["exact", "gauss-newton", "lecun", "levenberg-marquardt", "hutchinson"] = "exact",
    *,
    parameters: Iterable[str] | None = None,
    weight_decay: float = 0.0,
) -> Diagonal:
    """∂²/∂w² of the mean loss + λ/2 · ‖w‖² for every parameter entry: {parameter name: tensor of its shape}.

    What `criteria.OBD` takes. In eval mode, in the model's dtype, float32 at least; the model is left as it is.

    >>> first, last = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False)
    >>> first.weight.data, last.weight.data = torch.eye(2), torch.tensor([[3.0, 1.0]])
    >>> model = torch.nn.Sequential(first, torch.nn.ReLU(), last)
    >>> data = [(torch.tensor([[2.0, 5.0], [2.0, 5.0]]), torch.zeros(2, 1))]
    >>> found = hessian_diagonal(model, data, torch.nn.functional.mse_loss)
    >>> found["0.weight"].tolist(), found["2.weight"].tolist()              # 2 · (3 · 2)² first, 2 · 5² last
    ([[72.0, 450.0], [8.0, 50.0]], [[8.0, 50.0]])

    Args:
        model: of Linear, convolution (grouped too, not transposed) and BatchNorm layers, as far as their parameters
            are asked for.
        data: batches (inputs, targets), something that can be iterated more than once.
        loss: loss(outputs, targets) → scalar, the mean over the examples of a batch, which do not know of each other.
        method: "exact" (the default) and "gauss-newton" sweep columns back through the network, and agree where it is
            piecewise linear; "exact" wants functions that are linear or elementwise, and is slow where many of them
            bend. "lecun" is the recursion of Optimal Brain Damage, "levenberg-marquardt" the same without second
            derivatives of the activation functions: both leave out what the units of a layer have to do with each
            other. "hutchinson" is the mean of 100 random products; `hutchinson` also gives its error.
        parameters: names or globs; by default all.
        weight_decay: λ.

    Raises:
        TypeError, ValueError: an argument that makes no sense, or a module that the method cannot handle, by its name.
    """
    check_method(method)
    if method == "hutchinson":
        return hutchinson(model, data, loss, parameters=parameters, weight_decay=weight_decay).values
    check_data(data, loss)
    decay = check_number("weight_decay", weight_decay)
    model = _in_full_precision(model)
    names = {target.weight: target.name for target in places_of(model, parameters)[1]}
    totals: Diagonal = {}
    examples = 0
    with running(model), _depending_on(model, names):
        for inputs, labels, count in batches(model, data):
            _METHODS[method](model, names, partial(run, model, inputs), loss, labels, count, totals)
            examples += count
    if not examples:
        raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")
    found: Diagonal = {}
    for weight, name in names.items():  # a parameter that no batch depends on has no second derivative
        mean = totals[name].div_(examples) if name in totals else weight.detach().new_zeros(weight.numel())
        found[name] = (mean.add_(decay) if decay else mean).view(weight.shape)
    return found


def check_method(method: str) -> None:
    """Raises ValueError for a method that `hessian_diagonal` does not know."""
    known = [*_METHODS, "hutchinson"]
    if method not in known:
        raise ValueError(f"method must be one of {', '.join(map(repr, known))}, not {method!r}")


class Estimate(NamedTuple):
    """An estimated diagonal, by parameter name, and the standard error of each of its entries."""

    values: Diagonal
    errors: Diagonal


@torch.inference_mode(False)  # derivatives need tensors that autograd knows
def hutchinson(
    model: nn.Module,
    data: Batches,
    loss: Loss,
    samples: int = 100,
    *,
    seed: int = 0,
    parameters: Iterable[str] | None = None,
    weight_decay: float = 0.0,
) -> Estimate:
    """An estimate of the Hessian's diagonal from products with random signs, for any network: mean of v ⊙ (H v).

    v is ±1 with equal chance, so that E[v ⊙ H v] is the diagonal. The standard error of an entry is the standard
    deviation of its samples over √samples; it comes from the rest of the Hessian's row, √(Σ_j≠i h_ij² / samples), and
    is often larger than what is estimated. As for `hessian_diagonal`; each sample costs about two gradients.
    """
    check_data(data, loss)
    decay, count = check_number("weight_decay", weight_decay), check_step(samples, "samples", least=2)
    model = _in_full_precision(model)
    places, targets = places_of(model, parameters)
    generator = torch.Generator().manual_seed(seed)
    vector = places.join({target.name: target.weight for target in targets})
    total, squares = torch.zeros_like(vector), torch.zeros_like(vector)
    for _ in range(count):
        signs = torch.randint(2, (places.size,), generator=generator).to(total) * 2 - 1
        found = signs * places.join(hessian_product(model, targets, data, loss, places.split(signs)))
        total += found
        squares += found.square()
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) * count / (count - 1)
    return Estimate(places.split(mean + decay), places.split((variance / count).sqrt()))


def _in_full_precision(model: nn.Module) -> nn.Module:
    """The model itself, or where a parameter has half precision, a copy in float32."""
    model = unwrap(model)
    half = any(p.is_floating_point() and p.element_size() < 4 for p in model.parameters())
    return copy.deepcopy(model).float() if half else model


@contextmanager
def _depending_on(model: nn.Module, wanted: Iterable[Tensor]) -> Iterator[None]:
    """Inside, these parameters require gradients, and no others do; outside, each as before."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    ids = {id(parameter) for parameter in wanted}
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in ids)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
