"""LeCun's second derivatives, propagated back through the network like gradients, unit by unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunelab.criteria.measuring import Loss
from prunelab.curvature.outputs import checked_outputs, output_derivatives
from prunelab.curvature.tape import (
    BENT,
    MAXIMA,
    MEANS,
    PRODUCTS,
    STRAIGHT,
    SUMS,
    WAY_OUT,
    Tape,
    first_argument,
    plain_name,
    tensors_in,
    where_in,
)
from prunelab.curvature.uses import LAYERS, add, arguments_of, each, position_squares


def recursion(
    model: nn.Module,
    names: Mapping[Tensor, str],
    forward: Callable[[], Any],
    loss: Loss,
    labels: Any,
    examples: int,
    totals: dict[str, Tensor],
    *,
    bends: bool,
) -> None:
    """Diagonal second derivatives of a batch's loss as Optimal Brain Damage propagates them, times its examples: added
    to `totals`, flat and by name.

    With a for what a unit adds up and x = f(a) for what it puts out (LeCun et al. 1990, eqs. 5 to 8; their eq. 7 is
    often printed with a minus, but the chain rule gives plus):

        ∂²E/∂w_ij² = ∂²E/∂a_i² · x_j²                                     summed over all uses of a shared weight
        ∂²E/∂a_i²  = f'(a_i)² · Σ_l w_li² · ∂²E/∂a_l²  +  f''(a_i) · ∂E/∂x_i

    What units of one layer have to do with each other is left out, so that it is exact only where a layer has one unit.
    `bends=False` leaves out the f'' terms too, which makes all derivatives positive: Levenberg and Marquardt's variant.

    Two forward passes: the first notes slopes, maxima and what the layers read; the second has squared weights and
    slopes instead, so that the ordinary gradient of *its* outputs is the recursion.
    """
    with _Notes(model, names) as notes:
        outputs = checked_outputs(forward(), examples)
    slope, curvature = output_derivatives(loss, outputs, labels)
    with _Squared(model, names, notes) as squared:
        image = forward()
    if not squared.outputs:
        return
    roots, seeds = [image], [curvature.diagonal(dim1=1, dim2=2).reshape(outputs.shape)]
    if bends and notes.bends:
        edges = [bend.output for bend in notes.bends]
        slopes = torch.autograd.grad(outputs, edges, slope.view_as(outputs), allow_unused=True)
        for bend, source, gradient in zip(notes.bends, squared.inputs, slopes, strict=True):
            if gradient is not None:
                roots.append(source)
                seeds.append(bend.second * gradient)
    curvatures = torch.autograd.grad(roots, squared.outputs, seeds, allow_unused=True)
    for use, found in zip(notes.uses, curvatures, strict=True):
        for name, values in position_squares(use, found).items() if found is not None else ():
            add(totals, name, values, examples)


class _Notes(Tape):
    """The first pass: every activation function with its derivatives, and which of the values were the largest."""

    watched = STRAIGHT | BENT

    def __init__(self, model: nn.Module, names: Mapping[Tensor, str]) -> None:
        super().__init__(model, names, strict=True)
        self.maxima: list[Tensor] = []

    def _note(self, use: Any) -> None:
        self.uses.append(use)  # a weight that is shared may be used any number of times

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if plain_name(func) in MAXIMA and first_argument(args, kwargs).requires_grad:
            with torch.no_grad():
                self.maxima.append(func(*args, **{**kwargs, "return_indices": True})[1])
        return super().__torch_function__(func, types, args, kwargs)


class _Squared(TorchFunctionMode):
    """The second pass: every linear function has squared coefficients, every activation its squared slope.

    All values are zero: only the graph is wanted. `inputs` are those of the activation functions, `outputs` those of
    the layers, in the order of the first pass.
    """

    def __init__(self, model: nn.Module, names: Mapping[Tensor, str], notes: _Notes) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._model, self._names = model, {id(parameter): name for parameter, name in names.items()}
        self._bends, self._maxima = iter(notes.bends), iter(notes.maxima)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        moving = [t for t in tensors_in((args, kwargs)) if t.requires_grad and id(t) not in self._names]
        if name in LAYERS:
            return self._layer(func, args, kwargs, bool(moving))
        if name == "__get__" or not moving:
            return func(*args, **kwargs)
        if name in STRAIGHT | BENT:
            self.inputs.append(moving[0])
            return moving[0] * next(self._bends).first.square()
        if name in MAXIMA:
            places = next(self._maxima)
            spatial = -int(name[-2])
            return moving[0].flatten(spatial).gather(-1, places.flatten(spatial)).view(places.shape)
        if name in SUMS:
            return _sum(args, kwargs)
        if name in PRODUCTS:
            return _product(func, name, args, kwargs)
        result = func(*args, **kwargs)
        return result * self._share(name, args, kwargs, result) if name in MEANS else result

    def _layer(self, func: Any, args: Any, kwargs: Any, moving: bool) -> Tensor:
        """A layer with its weights squared and without biases; where none of it is wanted or moves, as it is."""
        given = arguments_of(func, args, kwargs)
        wanted = any(id(given.get(which)) in self._names for which in ("weight", "bias"))
        if not moving:
            result = func(*args, **kwargs).detach()
            result = torch.zeros_like(result).requires_grad_() if wanted else result
        elif "running_var" in given:
            variance = given["running_var"] + given.get("eps", 1e-5)
            scale = (given["weight"].detach() if given.get("weight") is not None else 1) / variance.sqrt()
            result = given["input"] * scale.square().reshape(-1, *[1] * (given["input"].dim() - 2))
        else:
            result = func(**{**given, "weight": given["weight"].detach().square(), "bias": None})
        if wanted:
            self.outputs.append(result)
        return result

    def _share(self, name: str, args: Any, kwargs: Any, result: Tensor) -> float:
        """What each value that is averaged is multiplied with; raises ValueError where they differ."""
        source = first_argument(args, kwargs)
        if name == "mean":
            return result.numel() / source.numel()
        spatial = int(name[-2])
        sides = list(zip(source.shape[-spatial:], result.shape[-spatial:], strict=True))
        if name.startswith("adaptive"):
            even = all(before % after == 0 for before, after in sides)
            share = math.prod([after / before for before, after in sides])
        else:
            given = signature(_average).bind(*args, **kwargs)
            given.apply_defaults()
            _, kernel, _, padding, ceil_mode, count_include_pad, divisor = given.args
            even = not ceil_mode and (divisor is not None or count_include_pad or not any(each(padding, spatial)))
            share = 1 / (divisor if divisor is not None else math.prod(each(kernel, spatial)))
        if not even:
            raise ValueError(
                f"{name}{where_in(self._model)} takes means over windows of several sizes, which LeCun's recursion "
                f"has no rule for; {WAY_OUT}"
            )
        return share


def _average(
    input: Any,  # noqa: A002
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> None:
    """The signature of torch's average pooling."""


def _sum(args: Any, kwargs: Any) -> Tensor:
    """A sum or difference: the squared coefficients are 1, and constants fall away."""
    terms = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]
    shape = torch.broadcast_shapes(*(term.shape for term in terms if isinstance(term, Tensor)))
    factors = (1.0, kwargs.get("alpha", 1) ** 2)
    moving = [
        term.expand(shape) * factor
        for term, factor in zip(terms, factors, strict=False)
        if isinstance(term, Tensor) and term.requires_grad
    ]
    return sum(moving[1:], start=moving[0])


def _product(func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
    """A product with something that does not depend on the parameters: that is squared."""

    def squared(item: Any) -> Any:
        return item if isinstance(item, Tensor) and item.requires_grad else item**2

    if name.startswith("conv"):  # a transposed convolution whose weight is not wanted
        source, weight, _, *others = [*args, None][: max(3, len(args))]
        return func(source, squared(weight), None, *others, **{k: v for k, v in kwargs.items() if k != "bias"})
    return func(*map(squared, args), **{key: squared(value) for key, value in kwargs.items()})
