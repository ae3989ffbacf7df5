"""The average gradient outer product: along which directions of its input a function changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunelab.criteria.measuring import differentiable, measuring
from prunelab.criteria.members import finest
from prunelab.targets import unwrap
from prunelab.trace import device_of

Function = Callable[[Tensor], Tensor]


def agop(
    model: nn.Module | Function,
    inputs: Tensor,
    layer: str | None = None,
    *,
    batch_size: int = 256,
    diagonal: bool = False,
) -> Tensor:
    """The average gradient outer product of a function's outputs (Radhakrishnan et al. 2022).

    (1/n) Σᵢ Σₖ ∇fₖ(xᵢ) ∇fₖ(xᵢ)ᵀ over all n inputs and all outputs k: exact, by one backward pass an output. Its
    diagonal says how much the outputs change with each coordinate, its eigenvectors along which directions.

    >>> layer = nn.Linear(3, 2, bias=False).double()
    >>> torch.allclose(agop(layer, torch.randn(5, 3).double()), layer.weight.T @ layer.weight)
    True

    Args:
        model: a module, run in eval mode and left as it was, or any function of a batch, (n, ...) → (n, ...), that
            treats every example alone.
        inputs: floats (n, ...); an example of several dimensions counts as flattened, d coordinates in all.
        layer: the name of a module of `model`: take the gradient for what that module reads (its first argument, which
            is flattened likewise) in place of the inputs. What goes round it, in a shortcut, is held constant.
        batch_size: so many examples are differentiated at a time.
        diagonal: only the diagonal, (d,), without ever holding a matrix.

    Returns:
        (d, d), symmetric and positive semidefinite, in float64 (float32 on MPS).

    Raises TypeError or ValueError for a bad argument, outputs that do not belong to the examples one by one, a layer
    that does not run exactly once, and gradients that hold NaN or infinity.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError(f"inputs must be a tensor of floats, to have gradients, not {_kind(inputs)}")
    if inputs.dim() < 2 or not inputs.numel():
        raise ValueError(f"inputs of shape {tuple(inputs.shape)}: give at least one example, (n, coordinates)")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: a whole number of examples, at least 1")
    reader = _Reader(model, layer)
    total: Tensor | float = 0.0
    with reader.running():
        for batch in inputs.detach().split(batch_size):
            for gradient in reader.gradients(batch.to(reader.device)):
                rows = gradient.flatten(1).to(finest(gradient.device))  # (examples, d)
                total = total + (rows.square().sum(0) if diagonal else rows.T @ rows)
    average = torch.as_tensor(total) / len(inputs)
    if not average.isfinite().all():
        raise ValueError("the gradients hold NaN or infinity; look at the inputs, and at where the forward diverges")
    return average


class _Reader:
    """Runs a function so that the place whose gradient is asked for is a leaf."""

    def __init__(self, model: nn.Module | Function, layer: str | None) -> None:
        if not callable(model):
            raise TypeError(f"model must be a module or a function of a batch, not {_kind(model)}")
        self.model = unwrap(model) if isinstance(model, nn.Module) else model
        self.device = device_of(self.model) if isinstance(self.model, nn.Module) else None
        self.layer = layer
        self.module = None if layer is None else find(self.model, layer)
        self._leaves: list[Tensor] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """In eval mode, with gradients, and with the layer's input caught; afterwards all is as it was."""
        with ExitStack() as stack:
            if isinstance(self.model, nn.Module):
                stack.enter_context(measuring(self.model))
            stack.enter_context(differentiable([]))
            if self.module is not None:
                hook = self.module.register_forward_pre_hook(self._catch)
                stack.callback(hook.remove)
            yield

    def gradients(self, batch: Tensor) -> Iterator[Tensor]:
        """∂(output k)/∂x for each output k, of the shape of x, a row an example."""
        self._leaves.clear()
        x = batch.clone() if self.module is not None else self._leaf(batch)  # the model may change it in place
        out = self.model(x)
        if not isinstance(out, Tensor) or out.dim() < 1 or len(out) != len(batch) or not out.numel():
            shape = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else _kind(out)
            raise ValueError(f"the model gives {shape} for {len(batch)} examples; it should give one row an example")
        if len(self._leaves) != 1:
            raise ValueError(
                f"layer={self.layer!r} runs {len(self._leaves)} times in a forward, so what it reads is not one input; "
                "name a layer that runs once"
            )
        leaf = self._leaves[0]
        if len(leaf) != len(batch):
            raise ValueError(f"layer={self.layer!r} reads {len(leaf)} rows for {len(batch)} examples; it should read "
                             "one row an example")  # fmt: skip
        for column in out.reshape(len(out), -1).T:
            if column.requires_grad:  # else this output does not depend on x at all
                (found,) = torch.autograd.grad(column.sum(), leaf, retain_graph=True, allow_unused=True)
                if found is not None:
                    yield found
                    continue
            yield torch.zeros_like(leaf)

    def _leaf(self, x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        self._leaves.append(leaf)
        return leaf.clone()

    def _catch(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            raise ValueError(f"layer={self.layer!r} reads no floats as its first positional argument; name another")
        return (self._leaf(args[0]), *args[1:])


def find(model: object, layer: str) -> nn.Module:
    """The module of that name. Raises TypeError or ValueError, naming what there is."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"layer={layer!r} names a module, but the model is {_kind(model)}; give a torch.nn.Module")
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if layer not in modules:
        raise ValueError(f"layer={layer!r} is no module of the model, whose modules are {', '.join(modules)}")
    return modules[layer]


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
