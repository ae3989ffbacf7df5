"""The names and globs that users write, turned into names of a model's parameters."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

Predicate = Callable[[str, nn.Parameter], bool]
Exclude = str | Predicate | Iterable[str | Predicate]


def is_glob(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, by the last part of its name: `fc.bias`, `in_proj_bias`, `bias_hh_l0`."""
    return "bias" in name.rpartition(".")[2]


def matches(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a name or glob means: itself, or those that fit; `*` stands for dots too."""
    names = list(names)
    if pattern in names:
        return [pattern]
    return [name for name in names if fnmatchcase(name, pattern)] if is_glob(pattern) else []


def expand(pattern: str, known: Sequence[str], preferred: Sequence[str]) -> list[str]:
    """The parameters that a name or glob means. Raises ValueError, with what is close, where there are none.

    A glob means those of the `preferred` (pruned by default) that fit; where none of these does, all that fit. So
    `"layer3.*.weight"` means convolutions, not the normalisations between them.
    """
    found = (matches(pattern, preferred) if is_glob(pattern) and pattern not in known else []) or matches(
        pattern, known
    )
    if not found:
        raise unknown(pattern, known)
    return found


def excluded(exclude: Exclude | None, known: Mapping[str, nn.Parameter], further: Sequence[str] = ()) -> set[str]:
    """The names that `exclude` leaves out: names, globs, predicates (name, parameter) → bool, or several of these.

    A module's name means all of its parameters. Names and globs may also mean `further` names. Raises TypeError for
    anything else, and ValueError for a name or glob that means nothing.
    """
    if exclude is None:
        return set()
    several = [exclude] if isinstance(exclude, str) or callable(exclude) else exclude
    if not isinstance(several, Iterable) or isinstance(several, nn.Module | nn.Parameter):
        raise _not_excludable(exclude)
    out: set[str] = set()
    for one in several:
        if isinstance(one, str):
            names = [*known, *further]
            out.update([name for name in names if name.startswith(f"{one}.")] or expand(one, names, ()))
        elif callable(one) and not isinstance(one, nn.Module | type):
            out.update(name for name, parameter in known.items() if one(name, parameter))
        else:
            raise _not_excludable(one)
    return out


def unknown(pattern: str, known: Iterable[str]) -> ValueError:
    known = list(known)
    below = [candidate for candidate in known if candidate.startswith(f"{pattern}.")]
    meant = below or difflib.get_close_matches(pattern, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, meant))}? " if meant else ""
    what = "no parameter matches" if is_glob(pattern) else "unknown parameter"
    return ValueError(f"{what} {pattern!r}; {hint}The model has {', '.join(known) or 'none'}")


def _not_excludable(value: object) -> TypeError:
    return TypeError(
        "exclude must be the name of a parameter or module, a glob such as 'head.*', a function (name, parameter) → "
        f"bool, or a list of these, not {value!r:.60}"
    )
