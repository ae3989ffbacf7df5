"""The loss over all the data, plus weight decay, as a function of one vector: its value, slope and curvature."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunelab.criteria.measuring import Batches, Loss, batches, differentiable, measuring
from prunelab.criteria.members import finest
from prunelab.curvature.places import places_of
from prunelab.targets import unwrap
from prunelab.trace import call_arguments, device_of, map_tensors

# Rows of a Hessian that are differentiated at once: more take more memory, fewer more time.
ROWS = 128


class Objective:
    """mean loss + λ/2 · ‖w‖², where w is the vector of all parameters (or of those named), in the model's order.

    The loss is the mean over all examples, whatever the batch sizes, in eval mode, in float64 (float32 on MPS). It is
    computed on a copy: the model is never touched.

    Args:
        model, data, loss: as for `prunelab.prune`; `data` can be iterated over again and again.
        parameters: names or globs; by default all parameters, biases too.
        weight_decay: λ; it concerns the entries of w.

    Raises:
        TypeError, ValueError: an argument that makes no sense.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Batches,
        loss: Loss,
        parameters: Iterable[str] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        check_data(data, loss)
        self.weight_decay = check_number("weight_decay", weight_decay)
        self.places, targets = places_of(model, parameters)
        self.dtype = torch.float32  # that of what is handed out: the widest of the parameters', float32 at least
        for target in targets:
            self.dtype = torch.promote_types(self.dtype, target.weight.dtype)
        self.device = targets[0].weight.device
        self.precision = finest(self.device)
        self.model = copy.deepcopy(unwrap(model)).to(self.precision).requires_grad_(False)
        self.data, self._loss = data, loss
        if isinstance(loss, nn.Module):  # it may hold weights of its own
            self._loss = copy.deepcopy(loss).to(self.precision)
        self.start = self.vector_of(self.model)
        self._names = {n.replace("_orig_mod.", ""): n for n, _ in self.model.named_parameters(remove_duplicate=False)}

    def vector_of(self, model: nn.Module) -> Tensor:
        """The entries of a model like this one as a vector (n,), in the precision that is computed in."""
        values = {name.replace("_orig_mod.", ""): parameter for name, parameter in unwrap(model).named_parameters()}
        return self.places.join(values, self.precision)

    def adopt(self, model: nn.Module) -> None:
        """Take over what is not in the vector, other parameters and buffers, from a model that has been trained on."""
        self.model.load_state_dict(unwrap(model).state_dict())

    def value(self, vector: Tensor) -> float:
        """The objective at a vector (n,)."""
        with running(self.model), torch.no_grad():
            pairs = [(value.item(), count) for value, count in self._values(vector)]
        examples = sum(count for _, count in pairs)
        mean = math.fsum(value * count for value, count in pairs) / examples
        return mean + self.weight_decay / 2 * float(vector @ vector)

    def gradient(self, vector: Tensor) -> Tensor:
        """Its slope at a vector, (n,)."""
        total, examples = torch.zeros_like(vector), 0
        with running(self.model):
            leaf = vector.detach().clone().requires_grad_()
            for value, count in self._values(leaf):
                total += count * torch.autograd.grad(_with_slope(value), leaf)[0]
                examples += count
        return total / examples + self.weight_decay * vector

    def hessian(self, vector: Tensor, kept: Tensor | None = None) -> Tensor:
        """Its second derivatives at a vector, (n, n); with `kept`, positions (k,), in these entries alone, (k, k)."""
        kept = torch.arange(len(vector), device=vector.device) if kept is None else kept
        total, examples = vector.new_zeros(len(kept), len(kept)), 0
        with running(self.model):
            leaf = vector[kept].detach().requires_grad_()
            # Rows of the identity, a few at a time, are multiplied with the second derivatives all at once.
            picks = torch.eye(len(kept), dtype=leaf.dtype, device=leaf.device).split(ROWS)
            for value, count in self._values(vector.detach().index_copy(0, kept, leaf)):
                slope = _slope(value, leaf)
                for start, rows in zip(range(0, len(kept), ROWS), picks, strict=True):
                    total[start : start + ROWS] += count * _product(slope, leaf, rows)
                examples += count
        total = total / examples
        return (total + total.T) / 2 + self.weight_decay * torch.eye(len(kept), dtype=total.dtype, device=total.device)

    def product(self, vector: Tensor, along: Tensor) -> Tensor:
        """The Hessian at a vector times vectors: (n,) or (n, k), without building it."""
        columns = along.reshape(len(along), -1).T.to(vector)  # (k, n)
        total, examples = torch.zeros_like(columns), 0
        with running(self.model):
            leaf = vector.detach().clone().requires_grad_()
            for value, count in self._values(leaf):
                slope = _slope(value, leaf)
                for start in range(0, len(columns), ROWS):
                    rows = columns[start : start + ROWS]
                    total[start : start + ROWS] += count * _product(slope, leaf, rows)
                examples += count
        found = total / examples + self.weight_decay * columns
        return found.T.reshape(along.shape)

    def runs(self, vector: Tensor) -> Iterator[tuple[Any, Any, Mapping[str, Any], int]]:
        """Of each batch: inputs, as (positional, keyword) arguments, targets, parameters to call with, examples."""
        named, examples = self.named(vector), 0
        for inputs, labels, count in batches(self.model, self.data):
            examples += count
            arguments = call_arguments(inputs, device_of(self.model))
            yield self.widened(arguments), self.widened(labels), named, count
        if not examples:
            raise ValueError("data is empty: it must yield at least one example as (inputs, targets)")

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector as the parameters to call the model with."""
        return {self._names[name]: values for name, values in self.places.split(vector).items()}

    def widened(self, item: Any) -> Any:
        """The same with floating tensors in the precision that is computed in."""
        return map_tensors(lambda t: t.to(self.precision) if t.is_floating_point() else t, item)

    def outputs(self, named: Mapping[str, Any], arguments: tuple[Any, Any]) -> Any:
        return functional_call(self.model, dict(named), *arguments)

    def loss(self, outputs: Any, labels: Any) -> Tensor:
        """The mean loss over a batch. Raises ValueError where it is no scalar."""
        value = self._loss(outputs, labels)
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss must return a scalar tensor, the mean over the batch; it returned {got}")
        return value

    def _values(self, vector: Tensor) -> Iterator[tuple[Tensor, int]]:
        for arguments, labels, named, count in self.runs(vector):
            yield self.loss(self.outputs(named, arguments), labels), count


@contextmanager
def running(model: nn.Module) -> Iterator[None]:
    """Inside, a model can be differentiated twice; a clash of dtypes is reported with the way out."""
    try:
        # Of attention's kernels only the one in plain mathematics can be differentiated twice.
        with measuring(model), differentiable([]), sdpa_kernel(SDPBackend.MATH):
            yield
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        raise ValueError(
            f"curvature is computed in float64, and the model or the loss cannot run in it ({error}); a loss that "
            "holds tensors of its own should be a torch.nn.Module, and a model should take its dtype from its inputs"
        ) from error


def check_data(data: object, loss: object) -> None:
    """Raises TypeError for data that are no batches or used up after one pass, and for a loss that is no function."""
    if not callable(loss) or isinstance(loss, type):
        call = f"; write {loss.__name__}()" if isinstance(loss, type) else ""
        raise TypeError(f"loss must be a function of (outputs, targets), not {loss!r:.60}{call}")
    if not isinstance(data, Iterable):
        raise TypeError(f"data must be batches of (inputs, targets), not {data!r:.60}")
    if isinstance(data, Iterator):
        raise TypeError(
            "data must be something that can be iterated more than once (a DataLoader, a list of batches), not a "
            f"{type(data).__name__}, which is used up after one pass; wrap it in list(...)"
        )


def check_number(name: str, value: object) -> float:
    """`value` as a float of at least 0. Raises TypeError or ValueError, naming it, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, 0 or more, not {value!r:.60}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, not {value!r}")
    return float(value)


def _with_slope(value: Tensor) -> Tensor:
    if not value.requires_grad:
        raise ValueError("the loss has no gradient: it was detached, or made from numbers instead of the outputs")
    return value


def _slope(value: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(_with_slope(value), leaf, create_graph=True)[0]


def _product(slope: Tensor, leaf: Tensor, rows: Tensor) -> Tensor:
    """rows (k, n) times the derivative of the slope (n,) in the leaf, (k, n); zero where the slope is constant."""
    if not slope.requires_grad:
        return torch.zeros_like(rows)
    found = torch.autograd.grad(slope, leaf, rows, retain_graph=True, is_grads_batched=True, allow_unused=True)[0]
    return torch.zeros_like(rows) if found is None else found
