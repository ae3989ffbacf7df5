"""The axes of an exploration: names, values, labels, and the states they span."""

from __future__ import annotations

import inspect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

State = tuple[int, ...]  # one position per axis, in the order of the axes


@dataclass(frozen=True)
class Axis:
    """One slider: the argument's name, and as many labels as values."""

    name: str
    labels: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def title(self) -> str:
        """The name as a reader wants it."""
        return self.name.replace("_", " ")


class Grid:
    """Every combination of the axes' values, checked against the function they are meant for.

    Raises:
        TypeError: an axis that is not a collection of values.
        ValueError: an axis with fewer than two values or with two equal labels, or names that do not fit `fn`.
    """

    def __init__(self, fn: Callable[..., Any], axes: Mapping[str, Any]) -> None:
        if not callable(fn):
            raise TypeError(f"fn is a {type(fn).__name__}; give the function that the sliders call")
        if not axes:
            raise ValueError(
                f"no axis: name at least one argument of {_name(fn)} and its values, as in sparsity=[0.5, 0.9]"
            )
        _check_names(fn, axes)
        self.axes = tuple(_axis(name, values) for name, values in axes.items())
        self.shape = tuple(len(axis.labels) for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[State]:
        return itertools.product(*map(range, self.shape))

    def arguments(self, state: State) -> dict[str, Any]:
        """What `fn` is called with in a state."""
        return {axis.name: axis.values[index] for axis, index in zip(self.axes, state, strict=True)}

    def labels(self, state: State) -> dict[str, str]:
        """What the sliders say in a state."""
        return {axis.name: axis.labels[index] for axis, index in zip(self.axes, state, strict=True)}

    def describe(self, state: State) -> str:
        """A state in words: "sparsity 0.5, granularity filter"."""
        return ", ".join(f"{axis.title} {axis.labels[index]}" for axis, index in zip(self.axes, state, strict=True))

    def sample(self, limit: int) -> list[State]:
        """At most `limit` states that still span the grid: the longest axes are thinned evenly, their ends kept."""
        kept = [list(range(size)) for size in self.shape]
        while math.prod(map(len, kept)) > limit and max(map(len, kept)) > 1:
            longest = max(kept, key=len)
            count, last = len(longest) - 1, longest[-1]
            longest[:] = sorted({round(index * last / max(count - 1, 1)) for index in range(count)})
        return list(itertools.product(*kept))

    def __str__(self) -> str:
        axes = " × ".join(f"{axis.name} ({', '.join(axis.labels)})" for axis in self.axes)
        return f"{axes}, {len(self)} states"


def _axis(name: str, values: Any) -> Axis:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(
            f"{name}={values!r} is a {type(values).__name__}; give a list of values, or a dict label -> value"
        )
    if isinstance(values, Mapping):
        labels, items = [str(key) for key in values], list(values.values())
    else:
        # An array's own numbers, so that fn is called with Python's and not with NumPy's or torch's.
        items = values.tolist() if hasattr(values, "tolist") else list(values)
        labels = [_label(value) for value in items]
    if len(items) < 2:
        what = "no value" if not items else f"the one value {labels[0]!r}"
        raise ValueError(f"{name} has {what}, and a slider needs two; fix arguments with functools.partial instead")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ValueError(f"{name} has several values labelled {twice}; tell them apart with a dict label -> value")
    if not all(label.strip() for label in labels):
        raise ValueError(f"{name} has an empty label among {labels}; give a dict label -> value")
    return Axis(name, tuple(labels), tuple(items))


def _label(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, type) or inspect.isroutine(value):
        return str(value.__name__)
    return str(value)


def _check_names(fn: Callable[..., Any], axes: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not tell
        return
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    accepted = [p.name for p in named]
    unknown = [name for name in axes if name not in accepted]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(f"{_name(fn)} has no argument {', '.join(map(repr, unknown))}; it takes {', '.join(accepted)}")
    unset = [p.name for p in named if p.default is p.empty and p.name not in axes]
    unset += [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    if unset:
        raise ValueError(
            f"{_name(fn)} also needs {', '.join(map(repr, unset))}: give values for it, a default, or functools.partial"
        )


def _name(fn: Callable[..., Any]) -> str:
    return f"{getattr(fn, '__name__', type(fn).__name__)}()"
