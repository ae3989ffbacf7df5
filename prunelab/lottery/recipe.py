"""Training said in full: data, order of the batches, optimizer, schedule, loss, steps; so that it can be rewound."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from prunelab.lottery.state import State, check_fits, check_seed, described, load, mixed, trainable, weights_of
from prunelab.masks import Masks
from prunelab.memory import memory_of
from prunelab.schedule.base import check_step
from prunelab.targets import named_parameters

OPTIMIZERS = ("sgd", "adam")
MakeOptimizer = Callable[[list[nn.Parameter], float], Optimizer]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a network is trained, as data: the same recipe, model and seed give the same weights, bit for bit.

    A function that trains can only be called again. A recipe can also be stopped at a step, go on from there, go on
    from there with other masks (late rewinding, Frankle et al. 2020), and train many models at once.

    >>> data = torch.randn(100, 3)
    >>> recipe = Recipe(data, (data.sum(1) > 0).long(), steps=50, batch_size=20, learning_rate=0.5)
    >>> model = nn.Linear(3, 2)
    >>> state = recipe.train(model, seed=0)
    >>> state.step, bool(state.losses[-5:].mean() < state.losses[:5].mean())
    (50, True)

    Args:
        inputs: (n, ...) all training examples; n of at least 1.
        targets: (n, ...) what `loss` compares the outputs with.
        steps: optimizer steps in all.
        batch_size: examples a step; the last batch of an epoch has what is left.
        optimizer: "sgd", "adam", or a function (parameters, learning_rate) → `torch.optim.Optimizer`.
        learning_rate: at a factor of 1.
        momentum: of "sgd".
        weight_decay: of "sgd" and "adam": λ in loss + λ/2 · ‖w‖².
        schedule: (step, steps) → a factor on the learning rate, steps counted from 0; None: always 1.
        loss: loss(outputs, targets) → scalar, the mean over a batch.

    Raises:
        TypeError, ValueError: a setting that makes no sense.
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    steps: int
    batch_size: int = 64
    optimizer: str | MakeOptimizer = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Callable[[int, int], float] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy

    def __post_init__(self) -> None:
        for name, tensor in (("inputs", self.inputs), ("targets", self.targets)):
            if not isinstance(tensor, Tensor) or tensor.dim() == 0:
                raise TypeError(f"{name} must be a tensor with one entry an example, not {described(tensor)}")
        if not len(self.inputs) or len(self.inputs) != len(self.targets):
            raise ValueError(
                f"there are {len(self.inputs)} inputs and {len(self.targets)} targets; give one target for each of "
                "one or more inputs"
            )
        check_step(self.steps, "steps", least=1)
        check_step(self.batch_size, "batch_size", least=1)
        if self.optimizer not in OPTIMIZERS and not callable(self.optimizer):
            raise ValueError(
                f"optimizer must be 'sgd', 'adam' or a function (parameters, learning_rate) → optimizer, not "
                f"{self.optimizer!r:.60}"
            )
        _check_number("learning_rate", self.learning_rate, above=0.0)
        _check_number("weight_decay", self.weight_decay)
        _check_number("momentum", self.momentum, below=1.0)
        for name, function in (("schedule", self.schedule), ("loss", self.loss)):
            if not callable(function) and not (name == "schedule" and function is None):
                raise TypeError(f"{name} must be a function, not {function!r:.60}")

    # --- what happens when -----------------------------------------------------------------------------------------

    def order(self, seed: int, start: int = 0) -> Iterator[Tensor]:
        """The examples of each step from `start` on, (batch,) int64: the same for every model trained with this seed.

        Each epoch is a permutation of its own, made from (seed, epoch), so that any step can be jumped to.
        """
        examples = len(self.inputs)
        batches = -(-examples // self.batch_size)
        permutation = torch.empty(0, dtype=torch.long)
        for step in range(start, self.steps):
            epoch, batch = divmod(step, batches)
            if step == start or batch == 0:
                permutation = torch.randperm(examples, generator=_generator(seed, epoch))
            yield permutation[batch * self.batch_size : (batch + 1) * self.batch_size]

    def rate(self, step: int) -> float:
        """The factor on the learning rate at `step`. Raises ValueError where the schedule gives none."""
        factor = 1.0 if self.schedule is None else float(self.schedule(step, self.steps))
        if not (math.isfinite(factor) and factor >= 0):
            raise ValueError(f"schedule({step}, {self.steps}) is {factor}; it must be a factor of 0 or more")
        return factor

    def make_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer:
        """A new optimizer for these parameters."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.learning_rate, weight_decay=self.weight_decay)
        made = self.optimizer(parameters, self.learning_rate)  # type: ignore[operator]  # a name was one of the two
        if not isinstance(made, Optimizer):
            raise TypeError(f"optimizer(parameters, learning_rate) gave {made!r:.60}, not a torch.optim.Optimizer")
        if isinstance(made, torch.optim.LBFGS):
            raise ValueError("LBFGS evaluates the model several times a step, which a recipe does not; use SGD or Adam")
        return made

    # --- training ----------------------------------------------------------------------------------------------------

    def train(
        self,
        model: nn.Module,
        masks: Masks | None = None,
        seed: int = 0,
        *,
        resume: State | None = None,
        stop: int | None = None,
    ) -> State:
        """Train a model in place, on its device, in train mode; its mode is restored.

        Training in pieces gives the weights of training at once, bit for bit: the batches of a step, and torch's chance
        in it (dropout), depend on the seed and the step alone. Torch's random state is the same afterwards.

        Args:
            model: any module that has something to train. Frozen parameters stay as they are.
            masks: pruned weights, zero before the first step and after every one.
            seed: of the batches and of chance.
            resume: go on from this state; the model gets its weights.
            stop: the step to stop before, that is, how many steps are done then; `steps` by default.

        Returns:
            where it stopped.

        Raises:
            TypeError, ValueError: a bad argument, masks or a state of another model; the model is then unchanged.
        """
        begin = 0 if resume is None else resume.step
        end = self._checked_end(begin, stop)
        parameters, seed = trainable(model), check_seed(seed)
        if masks is not None:
            Masks(masks, model)  # raises where they are another model's, before anything has changed
        if resume is not None:
            check_fits(model, resume.weights)
        optimizer = self.make_optimizer(parameters)
        rates = [group["lr"] for group in optimizer.param_groups]
        if resume is not None and resume.optimizer is not None:
            optimizer.load_state_dict(copy.deepcopy(dict(resume.optimizer)))
        if resume is not None:
            load(model, resume.weights)
        losses = torch.zeros(end - begin, device=parameters[0].device)
        with _training(model, losses.device), _held(masks, model, optimizer), torch.enable_grad():
            inputs, targets = self.inputs.to(losses.device), self.targets.to(losses.device)
            order = self.order(seed, begin)
            for step in range(begin, end):
                chosen = next(order).to(losses.device)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * self.rate(step)
                _draw_from(mixed(seed, step, 1), losses.device)
                optimizer.zero_grad()
                loss = self.loss(model(inputs[chosen]), targets[chosen])
                loss.backward()
                optimizer.step()
                losses[step - begin] = loss.detach()
            optimizer.zero_grad()
        done = copy.deepcopy(optimizer.state_dict()) if end else None
        return State(weights_of(model), done, end, losses.cpu())

    def _checked_end(self, begin: int, stop: int | None) -> int:
        end = self.steps if stop is None else check_step(stop, "stop")
        if not begin <= end <= self.steps:
            raise ValueError(f"stop={end} must lie between the step to go on from, {begin}, and steps={self.steps}")
        return end


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(mixed(seed, epoch, 0))


def _draw_from(seed: int, device: torch.device) -> None:
    # Not torch.manual_seed, which reseeds every kind of device: it takes a hundred times as long.
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


# --- contexts --------------------------------------------------------------------------------------------------------


@contextmanager
def _training(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Train mode and a random state of one's own inside; both as they were outside."""
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            model.train()
            yield
        finally:
            for module, training in modes.items():
                module.training = training


def _held(masks: Masks | None, model: nn.Module, optimizer: Optimizer) -> AbstractContextManager[object]:
    if masks is None:
        return nullcontext()
    trained = {memory_of(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = named_parameters(model)
    if not any(name in parameters and memory_of(parameters[name]) in trained for name in masks):
        masks.apply_(model)  # all of them are frozen: nothing moves them
        return nullcontext()
    return masks.hold(model, optimizer)


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_number(name: str, value: float, *, above: float | None = None, below: float = math.inf) -> None:
    good = not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < below
    if not good or value == above:
        limits = ("more than 0" if above is not None else "0 or more") + (f" and less than {below:g}" * (below < 9))
        raise ValueError(f"{name} must be a finite number, {limits}, not {value!r}")
