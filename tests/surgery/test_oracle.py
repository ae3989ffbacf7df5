"""The ties found by following a forward, against brute force: disturb one channel, and see who notices.

Random small networks are drawn as programs over tensors (convolutions, plain, grouped and depthwise, BatchNorms,
rectifiers, sums, products, concatenations, splits, flattening). The oracle knows nothing of what an operation means: it
adds a number to one channel of one layer's output, with the outputs of all other layers held as they were, and notes
which channels arrive changed at which layers. Channels between which a disturbance travels must go together; those that
travel from the inputs or to the outputs must stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor, nn

import prunelab
from prunelab.granularity import Filter
from prunelab.scope import LayerCollapseWarning
from prunelab.surgery.coupling import Coupling, couple
from prunelab.surgery.ledger import Ledger
from zoo.architecture import randomise
from zoo.check import difference

WIDTHS = (4, 6, 8)
Node = tuple[str, str, int]  # layer, "in" or "out", channel


@dataclass(frozen=True)
class Step:
    """One line of a program: an operation on earlier tensors, with a layer where it has one."""

    operation: str
    sources: tuple[int, ...]
    layer: nn.Module | None = None
    size: int = 0


class Program(nn.Module):
    """Runs its steps in order; the means of the tensors that nothing read go into one linear layer."""

    def __init__(self, steps: list[Step], ends: list[int], width: int, flat: bool) -> None:
        super().__init__()
        self.steps, self.ends, self.flat = steps, ends, flat
        self.layers = nn.ModuleList(step.layer or nn.Identity() for step in steps)
        self.hidden, self.head = nn.Linear(width * (9 if flat else 1), 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 3, 3) -> (N, 3)."""
        held = [x]
        for step, layer in zip(self.steps, self.layers, strict=True):
            given = [held[i] for i in step.sources]
            if step.layer is not None:
                held.append(layer(given[0]))
            elif step.operation == "add":
                held.append(given[0] + given[1])
            elif step.operation == "multiply":
                held.append(given[0] * given[1])
            elif step.operation == "concatenate":
                held.append(torch.cat(given, 1))
            elif step.operation == "split":
                held += given[0].split([step.size, given[0].shape[1] - step.size], 1)
            elif step.operation == "chunk":
                held += given[0].chunk(2, 1)
        together = torch.cat([held[i] for i in self.ends], 1)
        return self.head(torch.relu(self.hidden(together.flatten(1) if self.flat else together.mean((2, 3)))))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    torch.manual_seed(draw(st.integers(0, 999)))
    steps: list[Step] = []
    widths, read = [3], [False]

    def push(step: Step, *made: int) -> None:
        steps.append(step)
        for source in step.sources:
            read[source] = True
        widths.extend(made)
        read.extend([False] * len(made))

    push(Step("convolution", (0,), nn.Conv2d(3, 8, 3, padding=1)), 8)
    for _ in range(draw(st.integers(2, 8))):
        source = draw(st.integers(1, len(widths) - 1))
        width = widths[source]
        same = [i for i in range(1, len(widths)) if widths[i] == width]
        operation = draw(st.sampled_from(["convolution", "convolution", "grouped", "depthwise", "norm", "relu", "add", "add",
                                          "multiply", "concatenate", "split", "chunk"]))  # fmt: skip
        out = draw(st.sampled_from(WIDTHS))
        if operation == "convolution":
            push(Step(operation, (source,), nn.Conv2d(width, out, draw(st.sampled_from([1, 3])), padding="same")), out)
        elif operation == "grouped" and width % 2 == 0 and width > 2:
            push(Step(operation, (source,), nn.Conv2d(width, out, 1, groups=2)), out)
        elif operation == "depthwise":
            push(Step(operation, (source,), nn.Conv2d(width, width, 3, padding=1, groups=width)), width)
        elif operation == "norm":
            push(Step(operation, (source,), nn.BatchNorm2d(width)), width)
        elif operation == "relu":
            push(Step(operation, (source,), nn.ReLU()), width)
        elif operation in ("add", "multiply"):
            push(Step(operation, (source, draw(st.sampled_from(same)))), width)
        elif operation == "concatenate":
            other = draw(st.integers(1, len(widths) - 1))
            push(Step(operation, (source, other)), width + widths[other])
        elif operation == "split" and width >= 4:
            size = draw(st.integers(2, width - 2))
            push(Step(operation, (source,), size=size), size, width - size)
        elif operation == "chunk" and width >= 4 and width % 2 == 0:
            push(Step(operation, (source,)), width // 2, width // 2)
    ends = [i for i, seen in enumerate(read) if not seen]
    return Program(steps, ends, sum(widths[i] for i in ends), draw(st.booleans())).eval()


# --- the oracle ----------------------------------------------------------------------------------------------------------


def mixes(layer: nn.Module) -> bool:
    """A layer whose output channels each depend on several inputs: disturbances stop there."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups < layer.in_channels)


def parametrised(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm2d)}


def observed(
    model: nn.Module, x: Tensor, disturbed: tuple[str, int] | None, clamp: dict[str, Tensor]
) -> dict[str, Any]:
    """Each layer's inputs and outputs, when the mixing layers give what `clamp` says and one channel is disturbed."""
    seen: dict[str, Any] = {}
    layers, hooks = parametrised(model), []

    def watch(name: str, layer: nn.Module) -> None:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            output = clamp.get(name, output)
            if disturbed is not None and disturbed[0] == name:
                output = output.clone()
                output[:, disturbed[1]] += 1 + torch.rand(output[:, disturbed[1]].shape) * 50
            seen[name] = inputs[0], output
            return output

        hooks.append(layer.register_forward_hook(hook))

    for name, layer in layers.items():
        watch(name, layer)
    if disturbed is not None and disturbed[0] == "inputs":
        x = x.clone()
        x[:, disturbed[1]] += 1 + torch.rand(x[:, disturbed[1]].shape) * 50
    with torch.no_grad():
        seen["outputs"] = model(x), None
    for hook in hooks:
        hook.remove()
    return seen


def changed(now: Tensor, before: Tensor) -> list[int]:
    """The channels (dimension 1) in which two tensors differ."""
    other = [d for d in range(now.dim()) if d != 1]
    return (now != before).any(dim=other[0] if len(other) == 1 else tuple(other)).nonzero().flatten().tolist()


def oracle(model: nn.Module, x: Tensor) -> tuple[DisjointSet, set[Node]]:
    """Which channels share their fate, as a partition; and those tied to the network's inputs or outputs."""
    layers = parametrised(model)
    free_run = observed(model, x, None, {})
    clamp = {name: free_run[name][1] for name, layer in layers.items() if mixes(layer)}
    sources = [(name, c) for name in clamp for c in range(clamp[name].shape[1])]
    partition = DisjointSet([(name, "out", c) for name, c in sources])
    for name in layers:
        for c in range(free_run[name][0].shape[1]):
            partition.add((name, "in", c))
    ends: set[Node] = set()
    for name, channel in [*sources, *(("inputs", c) for c in range(x.shape[1]))]:
        run = observed(model, x, (name, channel), clamp)
        reached = [(r, "in", c) for r in layers for c in changed(run[r][0], free_run[r][0])]
        start = (name, "out", channel)
        if name == "inputs":
            ends.update(reached)
            continue
        for node in reached:
            partition.merge(start, node)
        if changed(run["outputs"][0], free_run["outputs"][0]):
            ends.add(start)
    return partition, {node for end in ends for node in partition.subset(end)}


# --- what the library says -----------------------------------------------------------------------------------------------


def units_along(coupling: Coupling, name: str, dim: int) -> np.ndarray | None:
    """The unit of each position of a parameter along `dim`; None where no label varies with it alone."""
    for label in coupling.tensors[name]:
        if [d for d in range(label.ndim) if label.shape[d] > 1] == [dim]:
            return coupling.solution.unit_of[label].ravel()
    return None


def unit_of(coupling: Coupling, model: nn.Module, node: Node) -> int:
    """The unit in which the library has a channel of a layer's input or output."""
    name, side, channel = node
    layer = model.get_submodule(name)
    if side == "out" or not mixes(layer):
        units = units_along(coupling, f"{name}.weight", 0)
    elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
        # (O, I/g): the inputs of group g are read by its rows only.
        (label,) = (a for a in coupling.tensors[f"{name}.weight"] if a.ndim > 1 and a.shape[0] > 1 and a.shape[1] > 1)
        each = layer.in_channels // layer.groups
        row = channel // each * (layer.out_channels // layer.groups)
        return int(coupling.solution.unit_of[label].reshape(label.shape[:2])[row, channel % each])
    else:
        units = units_along(coupling, f"{name}.weight", 1)
    assert units is not None, f"no label of {name} varies with its {side}puts"
    return int(units[channel])


def compare(model: nn.Module, x: Tensor) -> None:
    """AssertionError where the library's ties are not those that the oracle sees."""
    partition, stays = oracle(model, x)
    coupling = couple(model, x)
    free = coupling.solution.free(True)
    found: dict[int, Node] = {}
    for component in partition.subsets():
        units = {node: unit_of(coupling, model, node) for node in component}
        if component <= stays:
            gone = [node for node, unit in units.items() if free[unit]]
            assert not gone, f"these must stay, and the library lets them go: {gone}"
            continue
        assert len(set(units.values())) == 1, f"these go together, and the library does not say so: {units}"
        node, unit = units.popitem()
        assert free[unit], f"{node} could go, and the library keeps it"
        assert unit not in found, f"{node} and {found[unit]} may go apart, and the library ties them"
        found[unit] = node


@settings(max_examples=80, derandomize=True)
@given(model=programs())
def test_ties_are_what_disturbing_each_channel_shows(model: Program) -> None:
    compare(model, torch.randn(2, 3, 3, 3))


@settings(max_examples=50, derandomize=True)
@given(model=programs(), sparsity=st.floats(0, 1), scope=st.sampled_from(["local", "global"]))
def test_removed_equals_masked_on_every_program(model: Program, sparsity: float, scope: str) -> None:
    randomise(model)
    small = prunelab.shrink(model, torch.randn(2, 3, 3, 3), sparsity=sparsity, scope=scope)
    masked = small.plan.masked(model)
    assert difference(small.model, masked, torch.randn(4, 3, 3, 3)) <= 1e-4
    for name, parameter in masked.named_parameters():
        # What a slice held is in the small network, in its order, or it is zero.
        left = small.model.get_parameter(name)
        assert int(parameter.count_nonzero()) <= left.numel()


@pytest.mark.filterwarnings(f"ignore::{LayerCollapseWarning.__module__}.LayerCollapseWarning")
@settings(max_examples=50, derandomize=True)
@given(model=programs(), sparsity=st.floats(0, 1), bias=st.booleans())
def test_what_masks_leave_dead_goes_and_nothing_changes(model: Program, sparsity: float, bias: bool) -> None:
    """The network with the masks applied, as it is, against the small one; also where biases live on in dead filters."""
    randomise(model)
    masks = prunelab.prune(model, sparsity, granularity=Filter(), scope="local")
    if bias:  # masks of the weights alone: the channel goes on giving its bias
        masks = prunelab.Masks({name: mask for name, mask in masks.items() if not name.endswith("bias")})
        randomise(model)
        masks.apply_(model)
    small = prunelab.shrink(model, torch.randn(2, 3, 3, 3), masks=masks)
    assert difference(small.model, model, torch.randn(4, 3, 3, 3)) <= 1e-4


def residual() -> Program:
    """x -> first -> (first + second) -> hidden -> head."""
    steps = [Step("", (0,), nn.Conv2d(3, 4, 1)), Step("", (1,), nn.Conv2d(4, 4, 1)), Step("add", (1, 2))]
    return Program(steps, [3], 4, False).eval()


def test_the_oracle_sees_a_residual_sum() -> None:
    """By hand: the sum ties the two layers, and what reads it, channel by channel."""
    partition, stays = oracle(residual(), torch.randn(2, 3, 3, 3))
    for c in range(4):
        assert partition.subset(("layers.0", "out", c)) == {
            ("layers.0", "out", c), ("layers.1", "in", c), ("layers.1", "out", c), ("hidden", "in", c)
        }  # fmt: skip
    assert {("layers.0", "in", 0), ("head", "out", 2)} <= stays
    assert ("hidden", "out", 0) not in stays


@pytest.mark.parametrize("forgotten", ["tie", "freeze"])
def test_a_missing_statement_is_noticed(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, forgotten, lambda *_: None)
    with pytest.raises(AssertionError, match=r"the library does not say so|the library lets them go"):
        compare(residual(), torch.randn(2, 3, 3, 3))
