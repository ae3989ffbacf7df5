"""What an operation of a trace was called with, and what its schema says: names, defaults, writes, views."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from prunelab.trace import Op


def arguments(op: Op) -> dict[str, Any]:
    """The arguments of an operation by name, defaults included."""
    names, defaults = _schema(op.func)[:2]
    return {**defaults, **dict(zip(names, op.args, strict=False)), **op.kwargs}


def operator(op: Op) -> str:
    """The operator's name without its overload and namespace, and without the sign that it works in place: "add"."""
    return _plain(op.func)


@cache
def _plain(func: Any) -> str:
    return str(func.name()).partition(".")[0].removeprefix("aten::").removesuffix("_")


def writes(op: Op) -> bool:
    """Whether the operation changes one of its arguments."""
    return _schema(op.func)[2]


def shares(op: Op) -> bool:
    """Whether what the operation returns lies in the memory of an argument."""
    return _schema(op.func)[3]


def positions(named: Mapping[str, Any], size: int) -> list[int]:
    """The positions along a dimension of `size` that a slice or select with these arguments takes."""
    if "index" in named:
        return [named["index"] % size] if size else []
    return list(range(size)[slice(named.get("start"), named.get("end"), named.get("step", 1))])


@cache
def _schema(func: Any) -> tuple[tuple[str, ...], dict[str, Any], bool, bool]:
    """The names of the arguments, the defaults, whether one is written to, and whether one is viewed."""
    declared = func._schema.arguments
    return (
        tuple(argument.name for argument in declared),
        {argument.name: argument.default_value for argument in declared if argument.has_default_value()},
        any(argument.alias_info is not None and argument.alias_info.is_write for argument in declared),
        any(argument.alias_info is not None and not argument.alias_info.is_write for argument in declared),
    )
