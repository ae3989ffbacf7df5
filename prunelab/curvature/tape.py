"""Watches a forward pass and notes what second derivatives need of it: where parameters are used, and what bends."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from prunelab.curvature.uses import LAYERS, Use, use_of


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions by the names torch gives them, as functions and as methods; "relu_" is looked up as "relu".
# They only move values, and add them up: every derivative is 0 or 1.
MOVES = _names(
    "__getitem__ alpha_dropout cat chunk clone concat concatenate contiguous dropout dropout1d dropout2d dropout3d "
    "expand expand_as feature_dropout flatten flip hstack identity index_select movedim narrow pad permute "
    "pixel_shuffle pixel_unshuffle reshape reshape_as roll select split squeeze stack sum swapaxes swapdims t to "
    "transpose type_as unbind unflatten unsqueeze view view_as vstack"
)
SUMS = _names("__add__ __iadd__ __radd__ __sub__ __isub__ __rsub__ __neg__ add neg negative sub subtract")
# Linear in each of several arguments: straight as long as only one of them depends on the parameters.
PRODUCTS = LAYERS | _names(
    "__imul__ __itruediv__ __matmul__ __mul__ __rmul__ __truediv__ bmm conv_transpose1d conv_transpose2d "
    "conv_transpose3d div divide matmul mm mul multiply true_divide"
)
MEANS = _names("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d avg_pool2d avg_pool3d mean")
MAXIMA = _names("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool1d max_pool2d max_pool3d")
# Activation functions made of straight pieces, whose second derivative is zero, and those that bend.
STRAIGHT = _names(
    "abs clamp clamp_max clamp_min hardshrink hardsigmoid hardtanh leaky_relu relu relu6 rrelu softshrink threshold"
)
BENT = _names(
    "celu cos elu exp gelu hardswish log_sigmoid logsigmoid mish selu sigmoid silu sin softplus softsign square tanh "
    "tanhshrink"
)
KNOWN = MOVES | SUMS | PRODUCTS | MEANS | MAXIMA | STRAIGHT | BENT

WAY_OUT = (
    "leave such parameters out with parameters=[...], or take curvature.hutchinson or, on a small network, the "
    "diagonal of curvature.hessian"
)


@dataclass(frozen=True, eq=False)
class Bend:
    """An activation function: where its input and output lie in the graph, and its derivatives at the input."""

    input: GradientEdge
    output: GradientEdge
    first: Tensor
    second: Tensor


class Tape(TorchFunctionMode):
    """Active during a forward pass with gradients, it notes every use of the parameters, and every bend.

    Args:
        model: whose parameters are watched.
        names: parameter → the name under which its derivatives are wanted. What depends on none of them is not watched.
        strict: refuse a function that is neither linear nor elementwise, and a second use of a parameter.

    Attributes:
        uses: of the parameters, in the order of the calls.
        bends: in their order; only with `strict`.
    """

    watched = BENT

    def __init__(self, model: nn.Module, names: Mapping[Tensor, str], strict: bool) -> None:
        super().__init__()
        self.uses: list[Use] = []
        self.bends: list[Bend] = []
        self._used: set[str] = set()
        self._model, self._strict = model, strict
        self._names = {id(parameter): name for parameter, name in names.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        if name == "__get__":
            return func(*args, **kwargs)
        if self._strict and name in self.watched and first_argument(args, kwargs).requires_grad:
            return self._bend(func, args, kwargs)
        result = func(*args, **kwargs)
        if not any(tensor.requires_grad for tensor in tensors_in(result)):
            return result
        read = [tensor for tensor in tensors_in((*args, *kwargs.values())) if tensor.requires_grad]
        wanted = [tensor for tensor in read if id(tensor) in self._names]
        use = use_of(func, args, kwargs, result, self._names) if wanted else None
        if use is not None:
            self._note(use)
        elif wanted:
            raise ValueError(
                f"{self._names[id(wanted[0])]!r} is read by {name}{where_in(self._model)}, and only the parameters of "
                f"Linear, convolution (not transposed) and BatchNorm layers have a diagonal here; {WAY_OUT}"
            )
        if self._strict and (name not in KNOWN or (name in PRODUCTS and len(read) - len(wanted) > 1)):
            raise ValueError(
                f"{name}{where_in(self._model)} mixes the values that it reads, so the Hessian's diagonal cannot be "
                f'swept through it exactly; take method="gauss-newton", which can, or {WAY_OUT}'
            )
        return result

    def _note(self, use: Use) -> None:
        twice = self._used.intersection(use.names)
        if twice and self._strict:
            raise ValueError(
                f"{twice.pop()!r} is used more than once, so its second derivatives cannot be read off one layer; "
                f"{WAY_OUT}"
            )
        self._used.update(use.names)
        self.uses.append(use)

    def _bend(self, func: Any, args: Any, kwargs: Any) -> Any:
        edge, slopes = get_gradient_edge(first_argument(args, kwargs)), derivatives(func, args, kwargs)
        result = func(*args, **kwargs)
        self.bends.append(Bend(edge, get_gradient_edge(result), *slopes))
        return result


@lru_cache(maxsize=1024)
def plain_name(func: Any) -> str:
    """The name of a torch function, without the signs that it is private or works in place."""
    name = getattr(func, "__name__", "")
    return name if name.startswith("__") else name.strip("_")


def first_argument(args: Any, kwargs: Any) -> Tensor:
    return args[0] if args else kwargs["input"]


def tensors_in(item: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(item, Tensor):
        return [item]
    if isinstance(item, dict):
        item = item.values()
    elif not isinstance(item, (tuple, list)):
        return []
    found: list[Tensor] = []
    for one in item:
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, (tuple, list, dict)):
            found += tensors_in(one)
    return found


def derivatives(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    """f' and f'' of an elementwise function at its input, each of the input's shape."""
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        at = first_argument(args, kwargs).detach().clone().requires_grad_()
        others = {name: value for name, value in kwargs.items() if name != "input"}
        result = func(at.clone(), *args[1:], **others)  # of a copy: the function may work in place
        first = torch.autograd.grad(result.sum(), at, create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), at)[0] if first.requires_grad else torch.zeros_like(at)
    return first.detach(), second


def where_in(model: nn.Module) -> str:
    """The innermost module whose method is running, as " (in 'layer4.norm', a LayerNorm)"; empty for the model."""
    names = {id(module): name for name, module in model.named_modules()}
    frame = sys._getframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(id(module)):
            return f" (in {names[id(module)]!r}, a {type(module).__name__})"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
