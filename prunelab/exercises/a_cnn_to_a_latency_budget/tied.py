"""q3, code: which convolutions must lose the same channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prunelab.exercises.calling import Case, try_cases
from prunelab.exercises.core import Material, Question
from prunelab.exercises.describing import describe
from prunelab.exercises.outcome import Wrong

__all__ = ["QUESTION", "SOLUTION", "STARTER", "WRONG"]

TASK = """
A network is written down as a list of operations `(kind, inputs, output)` in the order in which they run; `inputs` is a
tuple of names, `output` a name. There are three kinds: a `"conv"` reads one value and makes new channels; a `"keep"`
(normalisation, ReLU, pooling) reads one and keeps its channels; an `"add"` adds two values channel by channel.

Write `tied(ops)`: which convolutions must lose the same output channels? Call each by the name of its output; return a
list of groups, each a list or set of names, in any order. Every convolution is in one group, also when it is alone
there. The image, `"image"`, is no convolution, and here nothing is added to it.
"""

STARTER = '''\
def tied(ops):
    """Groups of convolutions that must lose the same channels.

    ops: [("conv", ("image",), "a"), ("keep", ("a",), "b"), ...]
    """
    ...'''

SOLUTION = '''\
def tied(ops):
    """Groups of convolutions that must lose the same channels.

    ops: [("conv", ("image",), "a"), ("keep", ("a",), "b"), ...]
    """
    makers = {"image": set()}  # value: the convolutions that made its channels
    for kind, inputs, output in ops:
        if kind == "conv":
            makers[output] = {output}
        else:
            together = set().union(*(makers[name] for name in inputs))
            for name, group in makers.items():
                if group & together:
                    makers[name] = together
            makers[output] = together
    return [set(group) for group in {frozenset(group) for group in makers.values() if group}]'''

HINTS = (
    "Walk through the list and remember for each value which convolutions made its channels. What does each of the "
    "three kinds do to that set?",
    "A `conv` starts a group of its own, whatever it reads. A `keep` hands its input's group on. An `add` makes one "
    "group of two.",
    "When two groups become one, every value that belonged to either belongs to the new one, also values further up: "
    "a chain of residual blocks adds to the same stream again and again, and ends up as one group.",
)

TAKEAWAY = (
    "Additions tie, convolutions cut. A residual stream is one group, however many blocks add to it; the inside of a "
    "block is free. Finding these groups is what a library for structured pruning has to do before anything else."
)

Op = tuple[str, tuple[str, ...], str]
Groups = set[frozenset[str]]


def examine(answer: Any) -> None:
    try_cases(answer, _cases, _judge, name="tied")


def _judge(found: Any, ops: list[Op]) -> None:
    groups, convolutions = _read(found), [output for kind, _, output in ops if kind == "conv"]
    named = [name for group in groups for name in group]
    if strange := sorted(set(named) - set(convolutions)):
        raise Wrong(f"`{strange[0]}` is in a group, but it is no convolution: only those have filters to lose.")
    if missing := [name for name in convolutions if name not in named]:
        raise Wrong(f"`{missing[0]}` is in no group. A convolution that is tied to nothing is a group of its own.")
    if twice := [name for name in convolutions if named.count(name) > 1]:
        raise Wrong(f"`{twice[0]}` is in more than one group. Groups that share a convolution are one group.")
    right = _groups(ops)
    home = {name: group for group in groups for name in group}
    for group in sorted(right, key=sorted):
        first = min(group)
        if apart := sorted(name for name in group if name not in home[first]):
            raise Wrong(_why_together(first, apart[0], ops))
    for group in groups:
        first = min(group)
        others = next(other for other in right if first in other)
        if strangers := sorted(group - others):
            raise Wrong(_why_apart(first, strangers[0], ops))


def _read(found: Any) -> list[frozenset[str]]:
    if isinstance(found, str | dict) or not isinstance(found, Iterable):
        raise Wrong(f"`tied` returns {describe(found)}; it should return a list of groups.")
    try:
        listed = list(found)
        if not all(isinstance(group, list | tuple | set | frozenset) for group in listed):
            raise TypeError
        groups = [frozenset(group) for group in listed]
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"`tied` returns {describe(found)}, whose elements should be lists or sets of names.") from None
    if not all(isinstance(name, str) for group in groups for name in group):
        raise Wrong("A group holds something that is not a name.")
    if not all(groups):
        raise Wrong("One group is empty.")
    return groups


def _groups(ops: list[Op], *, direct: bool = False) -> Groups:
    """The right groups; with `direct` only of convolutions that one and the same addition reads."""
    parent = {"image": "image"}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for kind, inputs, output in ops:
        parent[output] = output
        if kind == "keep" or (kind == "add" and not direct):
            for name in inputs:
                parent[root(name)] = root(output)
        elif kind == "add":
            parent[root(inputs[0])] = root(inputs[1])
    convolutions = [output for kind, _, output in ops if kind == "conv"]
    roots = {root(name) for name in convolutions}
    return {frozenset(name for name in convolutions if root(name) == one) for one in roots}


def _why_together(first: str, second: str, ops: list[Op]) -> str:
    """Why two convolutions are tied that were left apart."""
    read = {output: inputs for kind, inputs, output in ops if kind == "keep"}
    added = [inputs for kind, inputs, _ in ops if kind == "add"]
    if any({first, second} == set(inputs) for inputs in added):
        return f"`{first}` and `{second}` are added: channel 3 of one meets channel 3 of the other."
    plain = [{_origin(name, read) for name in inputs} for inputs in added]
    if {first, second} in plain:
        return (
            f"What `{first}` and `{second}` make is added, with operations in between that keep the channels as they "
            "are: these hand the group on."
        )
    return (
        f"`{first}` and `{second}` belong together although no addition reads both: what is added to a sum is tied to "
        "all that is in the sum."
    )


def _origin(name: str, read: dict[str, tuple[str, ...]]) -> str:
    while name in read:
        name = read[name][0]
    return name


def _why_apart(first: str, second: str, ops: list[Op]) -> str:
    """Why two convolutions are free of each other that were put together."""
    read = {output: inputs for kind, inputs, output in ops if kind == "keep"}
    sources = {output: _origin(inputs[0], read) for kind, inputs, output in ops if kind == "conv"}
    if sources[first] == second or sources[second] == first:
        return (
            f"`{first}` and `{second}` are in one group because one reads the other. A convolution mixes what it reads "
            "into new channels: only its weights lose columns, none of its filters has to go."
        )
    if sources[first] == sources[second]:
        return (
            f"`{first}` and `{second}` read the same value. Readers lose columns together, and each keeps its filters."
        )
    return f"`{first}` and `{second}` are in one group, and nothing adds their channels, directly or through others."


def _cases() -> list[Case]:
    tries: dict[str, str] = {
        "two convolutions in a row": "conv image a; keep a b; conv b c",
        "two branches that read one value and are not added": "conv image a; conv a b; conv a c",
        "two branches, added": "conv image a; conv a b; conv a c; add b c d; conv d e",
        "a residual block with normalisations": (
            "conv image a; keep a b; keep b c; conv c d; keep d e; keep e f; conv f g; keep g h; add h c i; keep i j"
        ),
        "three blocks on one stream, then a wider one with a projection": (
            "conv image s; keep s x0; conv x0 a1; keep a1 n1; conv n1 b1; keep b1 m1; add x0 m1 x1; "
            "conv x1 a2; conv a2 b2; add x1 b2 x2; conv x2 a3; conv a3 b3; add x2 b3 x3; "
            "conv x3 a4; conv a4 b4; conv x3 p; keep p q; add q b4 x4; keep x4 out"
        ),
        "two sums that meet late": "conv image a; conv a b; add a b c; conv c d; conv d e; add d e f; add c f g",
        "one convolution": "conv image a; keep a b",
        "no operation at all": "",
    }
    return [Case(about, {"ops": _ops(text)}) for about, text in tries.items()]


def _ops(text: str) -> list[Op]:
    words = [op.split() for op in text.split(";") if op.strip()]
    return [(kind, tuple(names[:-1]), names[-1]) for kind, *names in words]


def _changed(change: str, by: str) -> str:
    """The solution with a piece changed: a wrong answer for the tests."""
    if change not in SOLUTION:
        raise ValueError(f"the solution has no {change!r}")
    return SOLUTION.replace(change, by)


_ANSWER = "[set(group) for group in {frozenset(group) for group in makers.values() if group}]"
_MERGE = """\
            for name, group in makers.items():
                if group & together:
                    makers[name] = together
"""
_PAIRS = """\
def tied(ops):
    made, groups = {"image": None}, []
    for kind, inputs, output in ops:
        if kind == "conv":
            made[output] = output
            groups.append({output})
        elif kind == "keep":
            made[output] = made[inputs[0]]
        else:
            pair, made[output] = {made[name] for name in inputs}, None
            if None not in pair:
                together = set().union(*(group for group in groups if group & pair))
                groups = [group for group in groups if not group & pair] + [together]
    return groups"""
_NO_KEEP = """\
def tied(ops):
    group = {}
    for kind, inputs, output in ops:
        group[output] = {output} if kind == "conv" else set()
        if kind == "add":
            both = set().union(*(group[name] for name in inputs), {output})
            for name in list(group):
                if group[name] & both or name in both:
                    group[name] = both
    convs = {output for kind, _, output in ops if kind == "conv"}
    found = {frozenset(group[name] & convs) for name in convs}
    return [set(one) for one in found]"""

WRONG = (
    (_changed("makers[output] = {output}", "makers[output] = {output} | makers[inputs[0]]"), "in more than one group"),
    (
        _changed('if kind == "conv":', 'if kind == "conv" and inputs == ("image",):'),
        "is in no group",
    ),
    (
        _changed("makers[output] = {output}", "makers[output] = {output} | makers[inputs[0]]").replace(
            _ANSWER,
            '[{o for k, _, o in ops if k == "conv"}] if ops else []',
        ),
        "one reads the other",
    ),
    (
        _changed(_ANSWER, "_by_reader(ops)").replace(
            "def tied",
            "def _by_reader(ops):\n"
            "    read = {}\n"
            "    for kind, inputs, output in ops:\n"
            '        if kind == "conv":\n'
            "            read.setdefault(inputs[0], set()).add(output)\n"
            "    return list(read.values())\n\n\ndef tied",
        ),
        "read the same value",
    ),
    (
        _changed("together = set().union(*(makers[name] for name in inputs))", "together = makers[inputs[0]]"),
        "are added: channel",
    ),
    (_NO_KEEP, "with operations in between"),
    (_PAIRS, "no addition reads both"),
    (
        _changed(_ANSWER, '[g for g in found if not g & {"a1", "a3"}] + [{"a1", "a3"}] * ("a1" in makers)').replace(
            "    return", f"    found = {_ANSWER}\n    return"
        ),
        "nothing adds their channels",
    ),
    (
        _changed(
            '        if kind == "conv":\n            makers[output] = {output}',
            '        if kind != "add":\n            makers[output] = {output}',
        ),
        "is no convolution",
    ),
    (_changed(_ANSWER, f"{_ANSWER} + [set()]"), "One group is empty"),
    (_changed(_ANSWER, f"len({_ANSWER})"), "it should return a list of groups"),
    (_changed(_ANSWER, f"[str(g) for g in {_ANSWER}]"), "elements should be lists or sets"),
    (_changed(_ANSWER, f"[{{len(g)}} for g in {_ANSWER}]"), "something that is not a name"),
    (_changed("makers = {", "ops.append(('keep', ('image',), 'z'))\n    makers = {"), "modified its input `ops`"),
    (_changed("makers = {", "ops[len(ops) * 2]\n    makers = {"), "raised IndexError"),
    (_changed("return [set", "[set"), "Is a `return` missing"),
    ("def tied():\n    return []", r"yours takes `\(\)`"),
    ("tied = []", "needs the function itself"),
)

QUESTION = Question(
    name="q3",
    kind="code",
    title="What is tied to what",
    task=TASK,
    answer="tied",
    material=Material(STARTER, HINTS, SOLUTION, TAKEAWAY, WRONG),
    examine=examine,
)
