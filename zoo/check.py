"""The check that every architecture passes: the small network computes what the masked one computes."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import prunelab
from zoo.architecture import Architecture, Inputs, call

TOLERANCE = 1e-4
NEW_SEEDS = (1, 2)  # of the inputs that shrink has not seen; its example has seed 0


@dataclass(frozen=True)
class Outcome:
    """What shrinking one architecture gave. `error` is the largest relative difference between masked and removed."""

    name: str
    small: Any
    parameters: int
    left: int
    error: float
    forwards: int
    seconds: float

    @property
    def removed(self) -> float:
        """The fraction of the parameters that is gone."""
        return 1 - self.left / self.parameters

    def line(self) -> str:
        return (
            f"{self.name:30} {self.parameters:>11,} -> {self.left:>11,} ({self.removed:5.1%} less)"
            f"  error {self.error:.1e}  {self.forwards:2} forwards  {self.seconds:6.2f} s"
        )


class Snapshot:
    """All that shrinking must leave as it is."""

    def __init__(self, model: nn.Module) -> None:
        self.values = copy.deepcopy(model.state_dict())  # with its metadata: load_state_dict may ask for a version
        self.state = self._state(model)

    @staticmethod
    def _state(model: nn.Module) -> dict[str, Any]:
        modules = {
            name: (type(module), module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
            for name, module in model.named_modules()
        }
        return {**modules, **{name: (p.requires_grad, p.grad is None) for name, p in model.named_parameters()}}

    def assert_same(self, model: nn.Module) -> None:
        """Parameters and buffers bit for bit; modules, modes, hooks and gradients as they were."""
        now = model.state_dict()
        assert now.keys() == self.values.keys(), "the original's state_dict has other names now"
        changed = [name for name in now if not torch.equal(now[name], self.values[name])]
        assert not changed, f"the original was changed: {changed[:3]}"
        assert self._state(model) == self.state, (
            "the original's modules, modes, hooks or gradients are not as they were"
        )


def check(architecture: Architecture, *, sparsity: float = 0.5, tolerance: float = TOLERANCE) -> Outcome:
    """Shrink it and hold the result against everything that shrinking promises; AssertionError where it is not so."""
    model = architecture.model()
    assert_responds(model, architecture)
    before = Snapshot(model)
    calls: list[None] = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(None))
    start = time.perf_counter()
    small = prunelab.shrink(model, architecture.example(0), sparsity=sparsity)
    spent = time.perf_counter() - start
    forwards = len(calls)  # now: the hook went into the copies too, and these are run again below
    hook.remove()

    before.assert_same(model)
    assert_replayed(small, architecture, before.values)
    masked = small.plan.masked(model)
    assert_same_shapes(masked, model)
    examples = [architecture.example(seed, batch=3) for seed in NEW_SEEDS]
    error = max(difference(small.model, masked, example) for example in examples)
    assert error <= tolerance, f"masked and removed differ by {error:.1e}, relative to the largest output"
    parameters, left = count(model), count(small.model)
    moved = max(difference(masked, copy.deepcopy(model), example) for example in examples)
    assert moved > 10 * tolerance or left == parameters, "masking changes nothing: this network proves nothing"
    assert_trains(copy.deepcopy(small.model), architecture.example(3))
    before.assert_same(model)
    return Outcome(architecture.name, small, parameters, left, error, forwards, spent)


def assert_responds(model: nn.Module, architecture: Architecture) -> None:
    """Other inputs, other outputs: in a network that ignores its inputs nothing that is removed is missed.

    The forwards also let a library finish what it does at a model's first call (transformers registers hooks then).
    """
    with torch.no_grad():
        first, second = (list(tensors(call(model, architecture.example(seed)))) for seed in NEW_SEEDS)
    spread = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(first, second, strict=True))
    assert spread > 10 * TOLERANCE, f"the outputs hardly depend on the inputs ({spread:.1e}): this proves nothing"


def count(model: nn.Module) -> int:
    """Numbers in the parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def assert_same_shapes(masked: nn.Module, model: nn.Module) -> None:
    """Masking changes no shape; it may give a layer a bias, for what removed channels contributed to it."""
    shapes, whole = ({name: p.shape for name, p in network.named_parameters()} for network in (masked, model))
    assert shapes | whole == shapes, "masking must not change shapes"
    assert all(name.endswith("bias") for name in shapes.keys() - whole.keys()), "masking must not add parameters"


def tensors(outputs: Any) -> Iterator[Tensor]:
    """Each tensor in nested tuples, lists, dicts and dataclasses."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from tensors(value)
    elif isinstance(outputs, tuple | list):
        for value in outputs:
            yield from tensors(value)
    elif dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        for field in dataclasses.fields(outputs):
            yield from tensors(getattr(outputs, field.name))


@torch.no_grad()
def difference(small: nn.Module, masked: nn.Module, inputs: Inputs) -> float:
    """The largest difference between the two networks' outputs, each relative to the largest value of its tensor."""
    ours, theirs = (list(tensors(call(model, inputs))) for model in (small, masked))
    assert len(ours) == len(theirs) > 0, "not the same number of outputs"
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape, f"an output has shape {tuple(a.shape)}, masked {tuple(b.shape)}"
        assert b.isfinite().all(), "the masked network's outputs are not finite: nothing is compared"
        scale = b.abs().max().clamp(min=1e-12) if b.numel() else torch.ones(())
        worst = max(worst, float(((a - b).abs() / scale).max()) if b.numel() else 0.0)
    return worst


def assert_replayed(small: Any, architecture: Architecture, before: dict[str, Tensor]) -> None:
    """The plan, written as JSON and read again, makes the identical small network from a fresh one."""
    text = json.dumps(small.plan.to_dict())
    fresh = architecture.build()
    fresh.load_state_dict(before)
    fresh.eval()
    again = type(small.plan).from_dict(json.loads(text)).apply(fresh)
    ours, theirs = small.model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys(), "the replayed plan gives other names"
    unlike = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not unlike, f"the replayed plan gives other values: {unlike[:3]}"
    assert difference(again, small.model, architecture.example(1)) == 0, "the replayed network computes something else"


def assert_trains(model: nn.Module, inputs: Inputs) -> None:
    """One step of gradient descent in training mode moves the parameters and keeps them finite."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    floats = [t for t in tensors(call(model, inputs)) if t.is_floating_point() and t.requires_grad]
    assert floats, "no output has a gradient"
    loss = torch.stack([(t / t.detach().abs().max().clamp(min=1e-12)).square().mean() for t in floats]).sum()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert loss.isfinite(), "the loss of the training step is not finite"
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.isfinite().all(), f"{name} is not finite after one step"
        assert parameter.grad is None or parameter.grad.shape == old.shape
    moved = sum(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert moved, "no parameter moved"
