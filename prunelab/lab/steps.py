"""One pass of training, step by step: loss and penalty, the optimizer, the proximal step, the pruner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from prunelab.lab.data import Pair

if TYPE_CHECKING:
    from tqdm.auto import tqdm

    from prunelab.masks import Masks

Loss = Callable[[Tensor, Tensor], Tensor]
Penalty = Callable[[nn.Module], Tensor]
Proximal = Callable[[nn.Module, float], object]


class BatchSource(Protocol):
    """What `fit` and `accuracy` accept as batches: sized, and iterable more than once (a list, a DataLoader)."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Pair]: ...


class StepPruner(Protocol):
    """What `fit` asks of a pruner, such as `prunelab.Pruner`: a step after each step of the optimizer."""

    @property
    def masks(self) -> Masks: ...
    def step(self) -> object: ...
    def release(self) -> object: ...


MakePruner = Callable[[nn.Module, torch.optim.Optimizer], StepPruner]


@dataclass(frozen=True)
class Trainee:
    """A model and everything that moves its weights."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    penalty: Penalty | None = None
    proximal: Proximal | None = None
    pruner: StepPruner | None = None


@dataclass(frozen=True)
class Pass:
    """Means over the examples of one pass, as they were met; `penalty` is None without one. `steps` were taken."""

    loss: float
    accuracy: float
    penalty: float | None
    steps: int


def one_pass(trainee: Trainee, batches: BatchSource, limit: int, device: torch.device, shown: tqdm) -> Pass:
    """Take up to `limit` steps over the batches."""
    trainee.model.train()
    # Sums stay on the device: reading one number back every step would make a GPU wait for the CPU.
    total_loss, total_penalty = torch.zeros((), device=device), torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.long, device=device)
    seen = taken = 0
    for inputs, targets in batches:
        if taken == limit:
            break
        inputs, targets = inputs.to(device), targets.to(device)
        value, extra, logits = _step(trainee, inputs, targets)
        total_loss += value * len(targets)
        if extra is not None:
            total_penalty += extra * len(targets)
        correct += (logits.argmax(1) == targets).sum()
        seen, taken = seen + len(targets), taken + 1
        shown.update()
    if not taken:
        raise ValueError("the data gave no batch on this pass; give batches that can be iterated over again")
    penalty = total_penalty.item() / seen if trainee.penalty is not None else None
    return Pass(total_loss.item() / seen, correct.item() / seen, penalty, taken)


def _step(trainee: Trainee, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """One step of the optimizer and what follows it; the loss, the penalty and the logits from before the step."""
    trainee.optimizer.zero_grad()
    logits = trainee.model(inputs)
    value = trainee.loss(logits, targets)
    extra = _scalar(trainee.penalty(trainee.model)) if trainee.penalty is not None else None
    (value if extra is None else value + extra).backward()
    trainee.optimizer.step()
    if trainee.proximal is not None:
        trainee.proximal(trainee.model, float(trainee.optimizer.param_groups[0]["lr"]))
    if trainee.pruner is not None:
        trainee.pruner.step()
    return value.detach(), None if extra is None else extra.detach(), logits


def _scalar(penalty: object) -> Tensor:
    if not isinstance(penalty, Tensor) or penalty.dim():
        shape = f"a tensor of shape {tuple(penalty.shape)}" if isinstance(penalty, Tensor) else f"{penalty!r:.40}"
        raise TypeError(f"penalty(model) gave {shape}; it must give a tensor with one number, as regularize's do")
    return penalty


@contextmanager
def pruning(make: MakePruner | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[StepPruner | None]:
    """The pruner that `make` makes, released in the end, also when training fails."""
    if make is None:
        yield None
        return
    pruner = make(model, optimizer)
    try:
        yield pruner
    finally:
        pruner.release()
