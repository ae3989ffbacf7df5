"""Watches a forward pass and notes what second derivatives need of it: where parameters are used, and what bends."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from prunelab.curvature.uses import Use, use_of

# Functions by the names torch gives them, as functions and as methods; "relu_" is looked up as "relu".
# They only move values, and add them up: every derivative is 0 or 1.
MOVES = frozenset(
    "__getitem__ cat chunk clone concat concatenate contiguous dropout dropout1d dropout2d dropout3d expand expand_as "
    "feature_dropout flatten flip hstack identity index_select movedim narrow pad permute pixel_shuffle "
    "pixel_unshuffle reshape reshape_as roll select split squeeze stack sum swapaxes swapdims t to transpose type_as "
    "unbind unflatten unsqueeze view view_as vstack __get__ alpha_dropout".split()
)
SUMS = frozenset("__add__ __iadd__ __radd__ __sub__ __isub__ __rsub__ __neg__ add sub subtract neg negative".split())
SCALINGS = frozenset("__mul__ __imul__ __rmul__ __truediv__ __itruediv__ mul multiply div divide true_divide".split())
MEANS = frozenset(
    "mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d".split()
)
MAXIMA = frozenset(
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d".split()
)
# Activation functions made of straight pieces, whose second derivative is zero, and those that bend.
STRAIGHT = frozenset(
    "abs clamp clamp_max clamp_min hardshrink hardsigmoid hardtanh leaky_relu relu relu6 rrelu softshrink "
    "threshold".split()
)
BENT = frozenset(
    "celu cos elu exp gelu hardswish logsigmoid log_sigmoid mish selu sigmoid silu sin softplus softsign square tanh "
    "tanhshrink".split()
)
KNOWN = MOVES | SUMS | SCALINGS | MEANS | MAXIMA | STRAIGHT | BENT


@dataclass(frozen=True, eq=False)
class Bend:
    """An elementwise function that bends: where its input and output lie in the graph, and its second derivative."""

    input: GradientEdge
    output: GradientEdge
    second: Tensor


class Tape(TorchFunctionMode):
    """Active during a forward pass with gradients, it notes every use of the parameters, and every bend.

    Args:
        model: whose parameters are watched.
        names: parameter → the name under which its derivatives are wanted.
        exact: refuse whatever hides second derivatives from it: a function that is neither linear nor elementwise, a
            parameter that is used twice.

    Attributes:
        uses: of the parameters that are wanted, in the order of the calls.
        bends: only with `exact`.
    """

    def __init__(self, model: nn.Module, names: Mapping[Tensor, str], exact: bool) -> None:
        super().__init__()
        self.uses: list[Use] = []
        self.bends: list[Bend] = []
        self._model, self._exact = model, exact
        self._names = {id(parameter): name for parameter, name in names.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        if name in BENT and self._exact:
            return self._bend(func, args, kwargs)
        result = func(*args, **kwargs)
        if not any(tensor.requires_grad for tensor in tensors_in(result)):
            return result
        read = [tensor for tensor in tensors_in((args, kwargs)) if tensor.requires_grad]
        if not read:
            return result
        use = use_of(func, args, kwargs, result, self._names)
        if use is not None:
            self._note(use)
        elif name != "__get__":
            self._check(name, read, args, kwargs)
        return result

    def _note(self, use: Use) -> None:
        for name in use.names:
            if self._exact and any(name in other.names for other in self.uses):
                raise ValueError(
                    f"{name!r} is used more than once, so its second derivatives cannot be read off one layer; "
                    f"{_WAY_OUT}"
                )
        self.uses.append(use)

    def _check(self, name: str, read: list[Tensor], args: Any, kwargs: Any) -> None:
        wanted = [self._names[id(tensor)] for tensor in read if id(tensor) in self._names]
        if wanted:
            raise ValueError(
                f"{wanted[0]!r} is read by {name}{self._where()}, and only the parameters of Linear, convolution and "
                f"BatchNorm layers have a diagonal here; {_WAY_OUT}"
            )
        if self._exact and (name not in KNOWN or (name in SCALINGS and len(read) > 1)):
            raise ValueError(
                f"{name}{self._where()} mixes the values it reads in a way that the Hessian's diagonal cannot be swept "
                f'through exactly; take method="gauss-newton", which can, or {_WAY_OUT}'
            )

    def _bend(self, func: Any, args: Any, kwargs: Any) -> Any:
        source = args[0] if args else kwargs["input"]
        if not source.requires_grad:
            return func(*args, **kwargs)
        if func.__name__.endswith("_") or kwargs.get("inplace"):
            raise ValueError(
                f"{func.__name__}{self._where()} overwrites its input, which its second derivative is needed of; write "
                "inplace=False"
            )
        edge = get_gradient_edge(source)
        result = func(*args, **kwargs)
        self.bends.append(Bend(edge, get_gradient_edge(result), derivatives(func, args, kwargs)[1]))
        return result

    def _where(self) -> str:
        return where_in(self._model)


_WAY_OUT = (
    "leave such parameters out with parameters=[...], or take curvature.hutchinson, or on a small network the diagonal "
    "of curvature.hessian"
)


def plain_name(func: Any) -> str:
    """The name of a torch function, without the sign that it works in place."""
    name = getattr(func, "__name__", "")
    return name if name.startswith("__") else name.lstrip("_").removesuffix("_with_indices").rstrip("_")


def tensors_in(item: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, tuple | list):
        for one in item:
            yield from tensors_in(one)
    elif isinstance(item, dict):
        yield from tensors_in(list(item.values()))


def derivatives(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    """f' and f'' of an elementwise function at its input, each of the input's shape."""
    given = args[0] if args else kwargs["input"]
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        at = given.detach().requires_grad_()
        result = func(at, *args[1:], **{name: value for name, value in kwargs.items() if name != "input"})
        first = torch.autograd.grad(result.sum(), at, create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), at)[0] if first.requires_grad else torch.zeros_like(at)
    return first.detach(), second


def where_in(model: nn.Module) -> str:
    """ " (in 'layer4.norm', a LayerNorm)": the innermost module whose method is running; empty for the model itself."""
    names = {id(module): name for name, module in model.named_modules()}
    frame = sys._getframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(id(module)):
            return f" (in {names[id(module)]!r}, a {type(module).__name__})"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
