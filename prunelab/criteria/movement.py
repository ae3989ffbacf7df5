"""Movement: which weights training has moved away from zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunelab.criteria.base import Criterion, Subject
from prunelab.criteria.members import member_sums
from prunelab.criteria.watching import PerWeight
from prunelab.memory import memory_of
from prunelab.targets import named_parameters


class Movement(Criterion):
    """-(sum over steps of w · ∂L/∂w), added up while the model is trained, then over a unit (Sanh et al. 2020).

    A step of gradient descent moves a weight against its gradient: where w · ∂L/∂w is negative, away from zero. Such
    weights are kept, however small they are; weights that shrink go first. The criterion reads neither weights nor
    data when it scores: it depends on the training that it has watched.

    >>> import prunelab
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> model.weight.data[:] = torch.tensor([[0.1, 2.0]])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> movement = Movement()
    >>> with movement.watch(model, optimizer):
    ...     (model.weight - 1).square().sum().backward()           # 0.1 grows towards 1, and 2 shrinks
    ...     optimizer.step()
    >>> prunelab.score(model, movement)
    {'weight': tensor([ 0.1800, -4.0000])}

    With a `Pruner`, make it inside the `with`: `Pruner(model, optimizer, criterion=movement, ...)`. Weights that it has
    removed are zero, and move no more.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[str] = "the training steps that it has watched"

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # -(sum of w · ∂L/∂w), in float32 at least, by parameter name
        self._steps = 0
        self._watching = False

    def __repr__(self) -> str:
        return f"Movement({self._steps} steps watched)"

    @contextmanager
    def watch(self, model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
        """Inside, every step of the optimizer counts, for the parameters that it trains; the next watch goes on adding.

        What counts is the gradient that the step is given: after clipping, summed where batches accumulate, and without
        the factor of a `GradScaler`; steps that it skips do not count. A copy of the model may be pruned in its place.

        Raises:
            TypeError: no optimizer.
            ValueError: an optimizer that trains no parameter of the model, a model of other shapes than the one watched
                before, and LBFGS or a step with a closure, whose gradients are not there when the step begins.
        """
        pairs = self._pairs(model, optimizer)
        for name, parameter in pairs:
            if name not in self._sums:
                precision = torch.promote_types(parameter.dtype, torch.float32)
                self._sums[name] = torch.zeros_like(parameter, dtype=precision, requires_grad=False)
        hook = optimizer.register_step_pre_hook(lambda *call: self._add(pairs, *call))
        watching, self._watching = self._watching, True
        try:
            yield
        finally:
            hook.remove()
            self._watching = watching

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "sums": {name: total.clone() for name, total in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(state) != {"steps", "sums"}:
            raise ValueError(f"Movement's state has steps and sums, not {', '.join(state) or 'nothing'}")
        for name, total in state["sums"].items():
            self._check_shape(name, total)
        self._steps = int(state["steps"])
        self._sums = {name: total.clone() for name, total in state["sums"].items()}

    def observe(self, subject: Subject) -> Mapping[str, PerWeight]:
        if not self._steps and not self._watching:
            raise ValueError(
                "Movement has watched no training: train the model inside `with movement.watch(model, optimizer):`, "
                "then prune with criterion=movement"
            )
        for target in subject.targets:
            if target.name not in self._sums:
                raise ValueError(
                    f"Movement has not watched {target.name!r}: the optimizer did not train it, or it belongs to "
                    f"another model; leave it out with exclude=[...] (watched were {', '.join(self._sums)})"
                )
            self._check_shape(target.name, target.weight)
        return {target.name: PerWeight(self._sums[target.name]) for target in subject.targets}

    def score(self, weights: Tensor, gradients: Tensor | None, statistics: Any) -> Tensor:
        return member_sums(statistics)

    def _pairs(self, model: nn.Module, optimizer: Optimizer) -> list[tuple[str, nn.Parameter]]:
        """The model's parameters that the optimizer trains, under their first names."""
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError("LBFGS takes its gradients within its step, where they cannot be watched; use SGD or Adam")
        names: dict[Any, str] = {}
        for name, parameter in named_parameters(model).items():
            names.setdefault(memory_of(parameter), name)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        pairs = [(names[memory_of(p)], p) for p in trained if memory_of(p) in names]
        if not pairs:
            raise ValueError(
                "the optimizer trains no parameter of this model: it was made for another one, or for a copy; make it "
                "from model.parameters()"
            )
        for name, parameter in pairs:
            self._check_shape(name, parameter)
        return pairs

    def _check_shape(self, name: str, parameter: Tensor) -> None:
        if name in self._sums and self._sums[name].shape != parameter.shape:
            raise ValueError(
                f"Movement has watched another model, whose {name!r} has shape {tuple(self._sums[name].shape)}, not "
                f"{tuple(parameter.shape)}; make a new Movement() for this one"
            )

    @torch.no_grad()
    def _add(
        self, pairs: list[tuple[str, nn.Parameter]], optimizer: Any, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        # The hook is given the arguments of `step` with the optimizer in front.
        if arguments[1:2] not in ((), (None,)) or named.get("closure") is not None:
            raise ValueError(
                "Movement cannot watch a step with a closure, whose gradients are not there yet when it begins; "
                "call loss.backward() before optimizer.step()"
            )
        skipped, scale = getattr(optimizer, "found_inf", None), getattr(optimizer, "grad_scale", None)
        if skipped is not None and bool(skipped):  # a fused optimizer leaves this step out
            return
        for name, parameter in pairs:
            if parameter.grad is not None:
                total = self._sums[name] = self._sums[name].to(parameter.device)  # where the model is now
                gradient = parameter.grad.to(total.dtype)
                total -= parameter.detach() * (gradient if scale is None else gradient / scale.to(gradient.device))
        self._steps += 1
