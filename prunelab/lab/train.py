"""A training loop to read: epochs, validation, early stopping, masks that hold, and what prunes while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelab.lab.data import Batches, Dataset, Pair
from prunelab.lab.history import Epoch, History
from prunelab.lab.progress import bar
from prunelab.lab.steps import BatchSource, Loss, MakePruner, Pass, Penalty, Proximal, Trainee, one_pass, pruning

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from prunelab.masks import Masks

MakeOptimizer = Callable[..., torch.optim.Optimizer]


def fit(
    model: nn.Module,
    data: Dataset | BatchSource,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    lr: float = 1e-3,
    optimizer: MakeOptimizer = torch.optim.Adam,
    loss: Loss = F.cross_entropy,
    batch_size: int = 64,
    seed: int | None = 0,
    masks: Masks | None = None,
    pruner: MakePruner | None = None,
    penalty: Penalty | None = None,
    proximal: Proximal | None = None,
    patience: int | None = None,
    device: torch.device | None = None,
    progress: bool = True,
) -> History:
    """Train a classifier in place and return what happened.

    Args:
        model: takes inputs (N, ...), gives logits (N, classes). Left in the train/eval mode it came in.
        data: a `Dataset`, whose `train` part is learned and whose `val` part is watched, or batches of (inputs,
            targets) that can be iterated over again and again (then there is no validation, so no `patience`).
        epochs, steps: how long, in passes over the data or in optimizer steps. Give one of them; the last epoch of a
            run counted in steps may be a part of one.
        lr, optimizer: the optimizer is made as `optimizer(model.parameters(), lr=lr)`; use `functools.partial` for its
            other settings, as in `partial(torch.optim.SGD, momentum=0.9)`.
        loss: `loss(logits, targets)`, the mean over the batch.
        batch_size: for a `Dataset`; batches come as they are.
        seed: the order of a `Dataset`'s examples and the chance in the model (dropout). The same seed gives the same
            weights, bit for bit, on a CPU. None: as chance has it. The global random state is not touched by a seed.
        masks: pruned weights, zero before the first step and after every one, until `fit` returns.
        pruner: prunes while the model learns. It is made as `pruner(model, optimizer)`, for example by
            `partial(prunelab.Pruner, schedule=...)`; its `step()` follows every optimizer step, its masks end up in
            the history, and it is released in the end.
        penalty: `penalty(model)`, a scalar tensor, is added to the loss of every step, for example
            `regularize.L1(1e-4).penalty`. The losses that are reported do not include it, so that training and
            validation compare; its mean has a column of its own.
        proximal: `proximal(model, lr)` follows every optimizer step, with the optimizer's current learning rate, for
            example `regularize.L1(1e-4).proximal_`. Give a regulariser as a penalty or as a proximal step, not both.
        patience: stop after this many epochs without a lower validation loss, and give the model back the weights of
            the best epoch. None: train to the end, keep the last weights.
        device: where to train, and where the model stays; None: where it is. See `prunelab.lab.device`.
        progress: show a bar (never while the book is built).

    Raises:
        TypeError, ValueError: a setting that makes no sense; nothing has been touched then.
        ValueError: the loss became NaN or infinite; the model has its first weights back.

    >>> from prunelab.lab import data, models, train
    >>> model = models.lenet_300_100(64, seed=0)
    >>> history = train.fit(model, data.digits(), epochs=5, progress=False)
    >>> train.accuracy(model, data.digits().test) > 0.9
    True
    """
    _check(model, data, epochs=epochs, steps=steps, lr=lr, patience=patience)
    _check_hooks(pruner=pruner, penalty=penalty, proximal=proximal)
    if pruner is not None and patience is not None:
        raise ValueError(f"patience={patience} could give back weights from before the last pruning; leave one out")
    if pruner is not None and masks is not None:
        raise ValueError("masks= and pruner= would both decide what is zero; let the pruner do it, or hold the masks")
    place = torch.device(device) if device is not None else _device_of(model)
    model.to(place)
    batches, validation = _sources(data, batch_size, seed, place)
    total = steps if steps is not None else (epochs or 0) * len(batches)
    history, best, first = History(), _Best(patience), _copy(model)
    maker = optimizer(model.parameters(), lr=lr)
    with (
        _modes_restored(model),
        _random(seed, place),
        _held(masks, model, maker),
        pruning(pruner, model, maker) as gradual,
        bar(total, "training", shown=progress) as shown,
    ):
        trainee = Trainee(model, maker, loss, penalty, proximal, gradual)
        while _steps(history) < total:
            done = one_pass(trainee, batches, total - _steps(history), place, shown)
            if wrong := _diverged(done, len(history) + 1, lr):
                model.load_state_dict(first)
                raise ValueError(wrong)
            history.epochs.append(_record(trainee, done, history, validation))
            shown.set_postfix(loss=f"{done.loss:.3f}")
            if best.enough(model, history[-1]):
                break
        history.restored = best.restore(model)
        history.masks = gradual.masks if gradual is not None else None
    return history


def accuracy(model: nn.Module, data: Pair | BatchSource) -> float:
    """The fraction of examples whose largest logit is at the target, in eval mode; the model's mode is restored.

    `data` is a pair (inputs, targets), such as `dataset.test`, or a re-iterable of such batches; it is moved to the
    model's device.
    """
    batches = Batches(data[0], data[1], 1024) if _is_pair(data) else data
    if not len(batches):
        raise ValueError("no batches to measure the accuracy on; give at least one example")
    return _measure(model, batches, F.cross_entropy)[1]


def _sources(
    data: Dataset | BatchSource, batch_size: int, seed: int | None, device: torch.device
) -> tuple[BatchSource, BatchSource | None]:
    """What to learn from and what to watch."""
    if not isinstance(data, Dataset):
        return data, None
    order = seed if seed is not None else int(torch.randint(2**31, ()).item())
    return data.batches("train", batch_size, order, device), data.batches("val", 1024, device=device)


def _is_pair(data: object) -> TypeIs[Pair]:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _steps(history: History) -> int:
    return history[-1].steps if len(history) else 0


def _record(trainee: Trainee, done: Pass, history: History, validation: BatchSource | None) -> Epoch:
    val_loss, val_accuracy = None, None
    if validation is not None:
        val_loss, val_accuracy = _measure(trainee.model, validation, trainee.loss)
    return Epoch(
        epoch=len(history) + 1,
        steps=_steps(history) + done.steps,
        train_loss=done.loss,
        train_accuracy=done.accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        penalty=done.penalty,
        sparsity=trainee.pruner.masks.sparsity if trainee.pruner is not None else None,
    )


@torch.no_grad()
def _measure(model: nn.Module, batches: BatchSource, loss: Loss) -> tuple[float, float]:
    """Mean loss and accuracy over all the examples, in eval mode."""
    device = _device_of(model)
    total_loss, correct, seen = 0.0, 0, 0
    with _modes_restored(model):
        model.eval()
        for inputs, targets in batches:
            inputs, targets = inputs.to(device), targets.to(device)
            logits = model(inputs)
            total_loss += loss(logits, targets).item() * len(targets)
            correct += int((logits.argmax(1) == targets).sum())
            seen += len(targets)
    return total_loss / seen, correct / seen


class _Best:
    """Early stopping: remembers the weights of the epoch with the lowest validation loss."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.loss = math.inf
        self.epoch = 0
        self.weights: dict[str, Tensor] | None = None

    def enough(self, model: nn.Module, record: Epoch) -> bool:
        """Take note of an epoch; True when `patience` epochs have passed since the best one."""
        if self.patience is None or record.val_loss is None:
            return False
        if record.val_loss < self.loss:
            self.loss, self.epoch, self.weights = record.val_loss, record.epoch, _copy(model)
        return record.epoch - self.epoch >= self.patience

    def restore(self, model: nn.Module) -> int | None:
        """Give the model the best weights back, and say of which epoch they are."""
        if self.weights is None:
            return None
        model.load_state_dict(self.weights)
        return self.epoch


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _modes_restored(model: nn.Module) -> Iterator[None]:
    # Module by module: a part may be frozen in eval mode on purpose.
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _random(seed: int | None, device: torch.device) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _held(masks: Masks | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> AbstractContextManager[object]:
    return masks.hold(model, optimizer) if masks is not None else nullcontext()


def _diverged(done: Pass, epoch: int, lr: float) -> str:
    """What to say of a pass whose loss or penalty is no number any more; nothing of any other."""
    for name, value in (("training loss", done.loss), ("penalty", done.penalty)):
        if value is not None and not math.isfinite(value):
            return (
                f"the {name} became {value} in epoch {epoch} (lr={lr}); the model has its first weights back. "
                "Lower lr, or look for NaN in the inputs"
            )
    return ""


def _check(
    model: nn.Module,
    data: object,
    *,
    epochs: int | None,
    steps: int | None,
    lr: float,
    patience: int | None,
) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model has no parameter that requires a gradient, so there is nothing to train")
    if (epochs is None) == (steps is None):
        raise ValueError(f"epochs={epochs} and steps={steps}: say how long to train with exactly one of the two")
    for name, count in (("epochs", epochs), ("steps", steps), ("patience", patience)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
            raise TypeError(f"{name}={count!r} is a {type(count).__name__}; give a positive int")
        if count is not None and count < 1:
            raise ValueError(f"{name}={count} must be at least 1")
    if not lr > 0 or not math.isfinite(lr):
        raise ValueError(f"lr={lr} must be positive and finite")
    if isinstance(data, Dataset):
        return
    if not isinstance(data, Iterable) or not hasattr(data, "__len__"):
        raise TypeError(
            f"data is a {type(data).__name__}; give a Dataset (lab.data.digits()), or batches that can be iterated "
            "over again: a list of (inputs, targets) or a DataLoader, not a generator"
        )
    if _is_pair(data):
        raise TypeError("data is one pair of tensors; batch it first: lab.data.Batches(inputs, targets, batch_size)")
    if patience is not None:
        raise ValueError(f"patience={patience} needs validation data; give a Dataset, which has a `val` part")


def _check_hooks(**hooks: object) -> None:
    examples = {
        "pruner": "functools.partial(prunelab.Pruner, schedule=...)",
        "penalty": "regularize.L1(1e-4).penalty",
        "proximal": "regularize.L1(1e-4).proximal_",
    }
    for name, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise TypeError(f"{name} is a {type(hook).__name__}, which cannot be called; give {examples[name]}")
