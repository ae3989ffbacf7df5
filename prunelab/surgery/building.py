"""`shrink`: a smaller network that computes what the masked one computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from prunelab.anatomy import Anatomy
from prunelab.surgery.aligned import inside
from prunelab.surgery.blame import without_blamed
from prunelab.surgery.cost import dense_macs, macs_after
from prunelab.surgery.coupling import Coupling, Group
from prunelab.surgery.diagnosis import comparable, compare, confirmed
from prunelab.surgery.numbers import Numbers
from prunelab.surgery.plan import Part, Plan
from prunelab.surgery.reference import folds_exactly
from prunelab.surgery.rehearsal import Rehearsed, rehearse, rehearse_shapes, shapes_of
from prunelab.surgery.slices import Slices, slices_of
from prunelab.surgery.verifying import Check, NotEqual, check, differs_in_training

Keep = NDArray[np.bool_]
Choice = Callable[[Coupling], "Chosen"]
_ATTEMPTS = 80
_TRIALS = 60  # then numbers are tried no more, and what fails stays


@dataclass(frozen=True)
class Chosen:
    """Which units stay, what the removal of the others adds to biases, and what to tell about it; the constants of
    those that are `zeroed` are lost."""

    keep: Keep
    biases: dict[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()
    zeroed: Keep | None = None


@dataclass(frozen=True)
class Built:
    """A smaller network that ran with the shapes it should have, its plan, and how it compared."""

    model: nn.Module
    plan: Plan
    chosen: Chosen
    coupling: Coupling
    check: Check | None


class OtherPath(Exception):
    """On inputs like the examples the smaller network failed where the masked one did not."""

    def __init__(self, inputs: Any, error: str) -> None:
        super().__init__(error)
        self.inputs = inputs


class OtherMode(Exception):
    """In training mode the smaller network fails, or computes something else than the masked one."""


def build(example_inputs: Any, coupling: Coupling, choose: Choice, verify: bool, exact: bool = True) -> Built:
    """Choose, cut, run what is left and compare; where the model's code cannot follow, or computes something else with
    fewer channels, keep those channels and start again.

    Where the result need not be `exact`, the difference is measured and told, not mended. Raises NotEqual where the
    results differ and it is not known where from.
    """
    model, numbers = coupling.anatomy.model, Numbers(coupling.anatomy)
    for attempt in range(_ATTEMPTS):
        chosen = choose(coupling)
        plan = plan_for(coupling, chosen, numbers)
        small = plan.cut_out_of(coupling.anatomy)
        asked = example_inputs, coupling, chosen.keep, plan.replaced
        sketched, shapes = comparable(coupling) if verify and exact else frozenset(), None
        trial = partial(rehearse, sketched=sketched) if verify else rehearse_shapes
        result = trial(Anatomy(small), *asked)
        if result.failed and not _loses(coupling, chosen.keep, result.op):  # perhaps sizes that depend on the data
            shapes = shapes_of(plan.masked(model), example_inputs, coupling, plan.replaced)
            result = rehearse(Anatomy(small), *asked, sketched=sketched, shapes=shapes)
        if result.failed:
            if attempt >= _TRIALS or not numbers.another(result.op, result.seen, coupling, chosen.keep):
                coupling = without_blamed(coupling, chosen.keep, result)
            continue
        if not verify:
            return Built(small, plan, chosen, coupling, None)
        masked = plan.masked(model)
        expected, at = compare(masked, *asked, result.sketches, shapes)
        outcome = check(masked, small, example_inputs, (expected, result.outputs))
        if at is not None and outcome.holds:
            at = confirmed(at, masked, small, *asked, sketched)
        settled = at is None or bool(chosen.keep.all())  # where nothing goes, nothing that differs is our doing
        if (outcome.holds and settled) or (not exact and not outcome.raised):
            if exact and _folds_wrongly(coupling, chosen, example_inputs, result.outputs):
                coupling = replace(coupling, folds=False)
            elif exact and _has_another_mode(coupling) and differs_in_training(masked, small, example_inputs):
                raise OtherMode
            elif (unfit := _unfit_for_training(coupling, chosen, small, example_inputs, plan.replaced)) is not None:
                coupling = unfit
            else:
                return Built(small, plan, chosen, coupling, outcome)
            continue
        if at is None:
            raise _unequal(model, outcome)
        op = coupling.followed[0].trace.ops[at]
        seen = f"{op.name} returns something else when there are fewer"
        coupling = without_blamed(coupling, chosen.keep, Rehearsed(failed=True, op=at, module=op.module, seen=seen))
    raise NotEqual(
        f"{type(model).__name__}: no smaller network ran after {_ATTEMPTS} attempts; the last one failed in "
        f"{result.module or 'the model itself'}: {result.seen or 'it computes something else'}"
    )


def _unequal(model: nn.Module, outcome: Check) -> Exception:
    if outcome.raised:
        return OtherPath(outcome.inputs, outcome.raised)
    return NotEqual(
        f"the smaller {type(model).__name__} does not compute what the masked one computes: relative difference "
        f"{outcome.error:.2e}, allowed {outcome.tolerance:.0e}. Nothing was changed; leave layers out with "
        "exclude=[...], or look at the difference with verify=False"
    )


def _folds_wrongly(coupling: Coupling, chosen: Chosen, example_inputs: Any, outputs: Any) -> bool:
    """The masked network has the same biases as the smaller one, so comparing these two does not tell."""
    if not coupling.folds or chosen.keep.all():
        return False
    zeroed = np.zeros_like(chosen.keep) if chosen.zeroed is None else chosen.zeroed
    return not folds_exactly(coupling, chosen.keep, zeroed, example_inputs, outputs)


def _has_another_mode(coupling: Coupling) -> bool:
    """Whether training mode, not followed yet, may be another one: where the code of the modules, that of PyTorch's own
    classes aside, has the word `training`."""
    if any(followed.training for followed in coupling.followed):
        return False
    modules = coupling.anatomy.modules.values()
    classes = {base for module in modules for base in type(module).__mro__ if not base.__module__.startswith("torch.")}
    held = (one for base in classes for one in vars(base).values())
    return any(isinstance(one, FunctionType) and _says(one.__code__, "training") for one in held)


def _says(code: CodeType, name: str) -> bool:
    return name in code.co_names or any(isinstance(one, CodeType) and _says(one, name) for one in code.co_consts)


def _unfit_for_training(
    coupling: Coupling, chosen: Chosen, small: nn.Module, example_inputs: Any, replaced: Sequence[str]
) -> Coupling | None:
    """Where the smaller network fails in training mode, a coupling in which what is to blame stays."""
    training = next((followed for followed in coupling.followed if followed.training), None)
    if training is None or chosen.keep.all():
        return None
    first = replace(coupling, followed=(training, *(other for other in coupling.followed if other is not training)))
    result = rehearse(Anatomy(small), example_inputs, first, chosen.keep, replaced)
    if not result.failed or not _loses(first, chosen.keep, result.op):  # sizes that depend on the data may be others
        return None
    return replace(without_blamed(first, chosen.keep, result), followed=coupling.followed)


def _loses(coupling: Coupling, keep: Keep, number: int | None) -> bool:
    """Whether a channel goes of what this operation returns; also where it is not known which operation it was."""
    if number is None:
        return True
    return not all(coupling.kept(f, keep).all() for labels in coupling.followed[0].returned[number] for f in labels)


def plan_for(coupling: Coupling, chosen: Chosen, numbers: Numbers | None = None) -> Plan:
    """What the choice means for every tensor and every number."""
    keep, anatomy = chosen.keep, coupling.anatomy
    slices = _slices(coupling, keep)
    biases = _of_kept_rows(anatomy, chosen.biases, slices)
    sizes = {name: parameter.numel() for name, parameter in anatomy.parameters.items()}
    left = sum(math.prod(slices[name].left) if name in slices else size for name, size in sizes.items())
    other_heads = _replaced(anatomy, slices)
    return Plan(
        model=type(anatomy.model).__name__,
        slices=slices,
        attributes=numbers.updates(coupling, keep) if numbers is not None else (),
        replaced=other_heads,
        biases=biases,
        parts=tuple(_part(group, keep) for group in coupling.groups),
        frozen=(*(_part(group, keep) for group in coupling.frozen), *_unseen(coupling)),
        params=(sum(sizes.values()), left + _added(anatomy, biases, slices)),
        macs=(dense_macs(coupling), macs_after(coupling, keep)),
        notes=(*chosen.notes, *_without_fast_path(anatomy, other_heads)),
        caches=tuple(name for name in anatomy.others if name in slices),
        normed=tuple(name for name in coupling.normed if name in slices),
    )


def _slices(coupling: Coupling, keep: Keep) -> dict[str, Slices]:
    slices: dict[str, Slices] = {}
    known: dict[bytes, tuple[int, ...]] = {}
    alike: dict[Any, Slices | None] = {}  # tensors of one layer may have their labels in common
    for name, labels in coupling.tensors.items():
        key = id(labels), coupling.shapes[name]
        if key not in alike:
            alike[key] = slices_of(coupling.shapes[name], [coupling.kept(label, keep) for label in labels], known)
        if (cut := alike[key]) is not None:
            slices[name] = cut
    return slices


def added_biases(coupling: Coupling, chosen: Chosen) -> int:
    """Parameters of the biases that layers get for constants."""
    anatomy = coupling.anatomy
    if all(name in anatomy.parameters for name in chosen.biases):
        return 0
    slices = _slices(coupling, chosen.keep)
    return _added(anatomy, _of_kept_rows(anatomy, chosen.biases, slices), slices)


def _of_kept_rows(
    anatomy: Anatomy, biases: dict[str, tuple[float, ...]], slices: dict[str, Slices]
) -> dict[str, tuple[float, ...]]:
    """Without what would be added to channels that go themselves."""
    held, found = anatomy.parameters, {}
    for name, values in biases.items():
        like = slices.get(name if name in held else f"{name.rpartition('.')[0]}.weight".lstrip("."))
        left = np.array(values) if like is None else np.where(like.rows(), values, 0.0)
        if left.any():
            found[name] = tuple(left.tolist())
    return found


def _added(anatomy: Anatomy, biases: Mapping[str, tuple[float, ...]], slices: Mapping[str, Slices]) -> int:
    """Parameters of the biases that layers get which had none."""
    held, count = anatomy.parameters, 0
    for name, values in biases.items():
        if name not in held:
            cut = slices.get(f"{name.rpartition('.')[0]}.weight".lstrip("."))
            count += len(values) if cut is None else int(cut.rows().sum())
    return count


def _replaced(anatomy: Anatomy, slices: dict[str, Slices]) -> tuple[str, ...]:
    """Attention layers of PyTorch, whose heads would have to fill their width."""
    return tuple(
        path
        for path, module in anatomy.modules.items()
        if isinstance(module, nn.MultiheadAttention)
        and any(f"{path}.{name}".lstrip(".") in slices for name, _ in module.named_parameters())
    )


def _without_fast_path(anatomy: Anatomy, replaced: Sequence[str]) -> Iterator[str]:
    for path, module in anatomy.modules.items():
        nested = isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor
        if nested and any(inside(layer, [path]) for layer in replaced):
            yield (
                f"{path or 'TransformerEncoder'}: without gradients PyTorch's fast path returns zeros for padded "
                "positions (src_key_padding_mask); the smaller network computes them, as both do in training"
            )


def _unseen(coupling: Coupling) -> Iterator[Part]:
    """The weights that no recorded operation counts for."""
    reason = "it did not run on the example inputs, or nothing that was recorded reads what it computes"
    for name in coupling.unused:
        if len(shape := coupling.shapes[name]) > 1:
            yield Part(name.rpartition(".")[0] or name, shape[0], 0, 1, (name,), (name,), reason)


def _part(group: Group, keep: Keep) -> Part:
    removed = int((~keep[group.units]).sum())
    reason = "" if group.why is None else f"{group.why.reason}" + (f" ({group.why.where})" if group.why.where else "")
    channels = len(group) if group.why is None else group.channels
    return Part(group.name, channels, removed, group.width, group.made_by, group.members, reason)
