"""What a setting is, in words that are the same in every process: how a later run knows that it is the same one."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

_DEEPEST = 6
_KNOWN = frozenset({"prunelab", "torch", *sys.stdlib_module_names})  # whose code changes with their versions only
_SIMPLE = (bool, int, float, complex, str, bytes, type(None))


def describe(value: Any) -> str:
    """`value` in words: settings by their values, functions by name and a digest of their code, tensors by their shape.

    The digest of a function covers its code, its defaults, and what it reads from outside, where that is a simple
    value, a frozen dataclass, or a function or class of its own module. That of a class, which stands with every
    object of a class that is neither prunelab's nor PyTorch's, covers its methods and those of its bases. It does not
    see what may change while it runs (lists, models, tensors) and the code of other modules.

    >>> from prunelab.criteria import Magnitude
    >>> describe(Magnitude(p=2))
    "Magnitude(p=2.0, reduction='sum', normalize=None)"
    >>> describe(lambda x: x + 1) == describe(lambda x: x + 2)
    False
    """
    return _describe(value, ())


def _describe(value: Any, above: tuple[int, ...]) -> str:
    if isinstance(value, _SIMPLE):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{type(value).__name__}{tuple(value.shape)}"
    if id(value) in above or len(above) > _DEEPEST:
        return "..."
    above = (*above, id(value))
    if isinstance(value, FunctionType):
        return f"{value.__qualname__}#{_digest(value, above)}"
    if isinstance(value, MethodType):
        return f"{_describe(value.__self__, above)}.{_describe(value.__func__, above)}"
    if isinstance(value, functools.partial):
        return f"partial({_describe(value.func, above)}, {_list(value.args, above)}, {_items(value.keywords, above)})"
    if isinstance(value, BuiltinFunctionType):
        return value.__qualname__
    if isinstance(value, type):
        return value.__qualname__ + _digest_of_class(value, above)
    return _describe_object(value, above) + _digest_of_class(type(value), above)


def _describe_object(value: Any, above: tuple[int, ...]) -> str:
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"{{{_items(value, above)}}}"
    if isinstance(value, tuple | list):
        return f"[{_list(value, above)}]"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(_describe(one, above) for one in value))}}}"
    if isinstance(value, nn.Module):
        return name
    if is_dataclass(value):
        return f"{name}({_items({f.name: getattr(value, f.name) for f in fields(value)}, above, '=')})"
    if type(value).__repr__ is object.__repr__:  # it would give an address in memory
        held = getattr(value, "__dict__", {})
        settled = {key: one for key, one in held.items() if _is_settled(one, type(value).__module__)}
        return f"{name}({_items(settled, above, '=')})"
    return repr(value)


def _list(values: Any, above: tuple[int, ...]) -> str:
    return ", ".join(_describe(one, above) for one in values)


def _items(values: Mapping[Any, Any], above: tuple[int, ...], sign: str = ": ") -> str:
    return ", ".join(f"{key}{sign}{_describe(one, above)}" for key, one in values.items())


def _digest(function: FunctionType, above: tuple[int, ...]) -> str:
    code = function.__code__
    read = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
    closure = dict(zip(code.co_freevars, (_content(cell) for cell in function.__closure__ or ()), strict=True))
    settled = {name: value for name, value in (read | closure).items() if _is_settled(value, function.__module__)}
    outside = {**settled, "defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    text = f"{_code(code)} {_items(dict(sorted(outside.items())), above)}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _digest_of_class(kind: type, above: tuple[int, ...]) -> str:
    """ "#" and a digest of the methods and settings of a class of the user's own; "" for all others."""
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in _KNOWN]
    above = (*above, *map(id, own))  # methods read the class that they are in
    parts = [
        f"{base.__qualname__}.{name}: {_describe(function, above)}"
        for base in own
        for name, held in sorted(vars(base).items())
        for function in _functions(held)
    ]
    return f"#{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:8]}" if parts else ""


def _functions(held: Any) -> list[Any]:
    """What an attribute of a class says of its code."""
    if isinstance(held, staticmethod | classmethod):
        return [held.__func__]
    if isinstance(held, property):
        return [one for one in (held.fget, held.fset) if one is not None]
    return [held] if isinstance(held, (FunctionType, int, float, tuple)) else []


def _is_settled(value: Any, module: str) -> bool:
    """Is it a setting? A list or an object may only be where a function puts what it finds."""
    if isinstance(value, FunctionType | type):
        return value.__module__ == module
    frozen = is_dataclass(value) and not isinstance(value, type) and type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen or isinstance(value, (*_SIMPLE, tuple, functools.partial))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _names(code: CodeType) -> list[str]:
    """The global names that the code reads, that of functions inside it included."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return [*code.co_names, *inner]


def _code(code: CodeType) -> str:
    constants = [_code(one) if isinstance(one, CodeType) else describe(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
