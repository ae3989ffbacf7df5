"""The arguments of `shrink`, checked before anything is done."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from prunelab.anatomy import Anatomy
from prunelab.masks import Masks
from prunelab.surgery.rebuild import copied


def check_arguments(model: nn.Module, **asked: Any) -> None:
    """Raises TypeError or ValueError, with the value, the reason and the way out."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    for path, module in Anatomy(model).modules.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{repr(path) if path else 'the model'} is a TorchScript module, whose code and weights cannot be "
                "rebuilt smaller; shrink the module that it was made from, and script the result"
            )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name!r} is on the meta device and has no values; load the weights, then shrink")
    given = [name for name in ("sparsity", "masks", "budget") if asked[name] is not None]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(given)} were given, which say the same thing in several ways; give one of them"
        )
    if asked["sparsity"] is not None:
        _fraction("sparsity", asked["sparsity"])
    if asked["masks"] is not None and not isinstance(asked["masks"], Masks):
        raise TypeError(f"masks must be prunelab.Masks, not {type(asked['masks']).__name__}; prunelab.prune makes them")
    if asked["budget"] is not None:
        _check_budget(asked["budget"])
    for name, allowed in (
        ("scope", ("local", "global")),
        ("aggregate", ("mean", "sum", "max")),
        ("constants", (None, "keep", "zero")),
    ):
        if asked[name] not in allowed:
            raise ValueError(f"{name}={asked[name]!r}: known are {', '.join(map(repr, allowed))}")
    for name in ("multiple_of", "minimum"):
        value = asked[name]
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: a whole number of channels, at least 1")


def _fraction(name: str, value: Any) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number from 0 to 1, not {value!r}")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name}={value!r} is no fraction from 0 to 1")


def _check_budget(budget: Any) -> None:
    if not isinstance(budget, tuple | list) or len(budget) != 2 or budget[0] not in ("macs", "params", "latency"):
        raise ValueError(f'budget={budget!r}: write ("macs", 0.5), ("params", 0.5) or ("latency", 0.5)')
    _fraction("the budget's fraction", budget[1])


def masked_copy(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy of `model` with the masks applied. Raises ValueError where they do not fit."""
    return masks.apply_(copied(Anatomy(model)))
