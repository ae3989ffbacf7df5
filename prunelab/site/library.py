"""Which modules of the library a chapter stands on, read from the source alone, and a hash of them.

A chapter's outputs are stale when code that it runs has changed. Importing the library to find out would be slow and
would run it, so the imports are read from the syntax tree, with what Python adds to them:

- `import a.b.c` runs the packages `a` and `a.b` on its way;
- `from package import name` loads a submodule, or a name that the package's `__init__` has from elsewhere;
- a lazy package declares its names under `if TYPE_CHECKING:` and loads them by `__getattr__` when they are used: only
  names that are used count. `package.name` uses one; a bare `package`, a `*` or a `getattr` may use any, so all count.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ALL = "*"


@dataclass(frozen=True)
class Use:
    """A name of a module that is used; name "" is the bare module, run by importing it, and ALL any of its names."""

    module: str
    name: str = ""


@dataclass
class Module:
    """What one file says: the uses it makes, the names it has, and those it promises under `if TYPE_CHECKING:`."""

    path: Path
    uses: set[Use] = field(default_factory=set)
    promised: dict[str, Use] = field(default_factory=dict)
    bound: set[str] = field(default_factory=set)
    lazy: bool = False


class Library:
    """The package `name` in the folder `root`: its modules, and what each needs."""

    def __init__(self, root: Path, name: str = "prunelab") -> None:
        self.root = root
        self.name = name

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every module of the package by its dotted name."""
        found = {}
        for path in sorted((self.root / self.name).rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[dotted] = self._read(path, dotted)
        return found

    def needed(self, sources: Iterable[str]) -> set[str]:
        """The modules that run when these pieces of code do, with all that they import themselves."""
        waiting = [use for source in sources for use in self._code_uses(source)]
        seen: set[Use] = set()
        needed: set[str] = set()
        while waiting:
            use = waiting.pop()
            if use in seen:
                continue
            seen.add(use)
            waiting.extend(self._consequences(use, needed))
        return needed

    def digest(self, modules: Iterable[str]) -> str:
        """A hash of the text of these modules."""
        digest = hashlib.sha256()
        for name in sorted(modules):
            digest.update(f"{name}\0".encode())
            digest.update(hashlib.sha256(self.modules[name].path.read_bytes()).digest())
        return digest.hexdigest()

    def _consequences(self, use: Use, needed: set[str]) -> Iterator[Use]:
        """What a use leads to; the modules it runs are added to `needed`."""
        module = self.modules.get(use.module)
        if module is None:
            return
        if use.module not in needed:
            needed.add(use.module)
            yield from module.uses
            if "." in use.module:  # the packages above run first
                yield Use(use.module.rpartition(".")[0])
        if use.name == ALL:
            for promise in module.promised.values():
                yield promise
                yield Use(self._as_module(promise) or promise.module, ALL)
            if module.lazy and not module.promised:  # it does not say what it loads: anything below it
                yield from (Use(child, ALL) for child in self._children(use.module))
        elif use.name:
            yield from self._named(module, use)

    def _named(self, module: Module, use: Use) -> Iterator[Use]:
        """Where a name of a module comes from: a promise, a submodule (it may be both), or any promise if not known."""
        inside = f"{use.module}.{use.name}"
        if use.name in module.promised:
            yield module.promised[use.name]
        if inside in self.modules:
            yield Use(inside)
        elif module.lazy and use.name not in module.promised and use.name not in module.bound:
            yield Use(use.module, ALL)

    def _children(self, package: str) -> list[str]:
        return [name for name in self.modules if name.rpartition(".")[0] == package]

    def _read(self, path: Path, dotted: str) -> Module:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        package = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
        module = Module(path)
        for node in tree.body:
            if _is_type_checking(node):
                assert isinstance(node, ast.If)
                module.promised.update(self._bindings(node, package))
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                module.bound.add(node.name)
                module.lazy |= node.name == "__getattr__"
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                module.bound.update(target.id for target in targets if isinstance(target, ast.Name))
        module.bound.update(self._bindings(tree, package))
        module.uses = self._tree_uses(tree, package)
        return module

    def _code_uses(self, source: str) -> set[Use]:
        """The uses in a cell. Text that is not Python once IPython's own lines are out counts as using everything."""
        lines = [re.sub(r"^(\s*)[%!?].*", r"\1pass", line) for line in source.splitlines()]
        try:
            tree = ast.parse("\n".join(lines))
        except SyntaxError:
            return {Use(name, ALL) for name in self.modules}
        return self._tree_uses(tree, "")

    def _tree_uses(self, tree: ast.AST, package: str) -> set[Use]:
        """Every use in a syntax tree, imports inside functions included; those for type checking only are left out."""
        bindings = self._bindings(tree, package)
        uses = {use for node in _running(tree) for use in self._import_uses(node, package)}
        roots: set[int] = set()
        for node in _running(tree):
            if isinstance(node, ast.Attribute) and id(node) not in roots:
                uses |= self._attribute_uses(node, bindings, roots)
        for node in _running(tree):
            if isinstance(node, ast.Name) and id(node) not in roots and isinstance(node.ctx, ast.Load):
                module = self._as_module(bindings[node.id]) if node.id in bindings else ""
                if module:  # the module itself is handed on: any name of it may be used
                    uses.add(Use(module, ALL))
        return uses

    def _import_uses(self, node: ast.AST, package: str) -> Iterator[Use]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if self._is_ours(alias.name):
                    yield Use(alias.name)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, package)
            if self._is_ours(source):
                for alias in node.names:
                    yield Use(source, ALL if alias.name == "*" else alias.name)

    def _attribute_uses(self, node: ast.Attribute, bindings: dict[str, Use], roots: set[int]) -> set[Use]:
        """`lab.plots.show` with `lab` bound to a module: one use for each step that leads through a module."""
        chain: list[str] = []
        value: ast.AST = node
        while isinstance(value, ast.Attribute):
            roots.add(id(value))
            chain.append(value.attr)
            value = value.value
        if not isinstance(value, ast.Name) or value.id not in bindings:
            return set()
        roots.add(id(value))
        module = self._as_module(bindings[value.id])
        uses = set()
        for attribute in reversed(chain):
            if not module:
                break
            uses.add(Use(module, attribute))
            module = self._as_module(Use(module, attribute))
        return uses

    def _bindings(self, tree: ast.AST, package: str) -> dict[str, Use]:
        """Names that imports give to things of the library."""
        bindings: dict[str, Use] = {}
        inside = tree.body if isinstance(tree, ast.If) else [tree]
        for node in (found for part in inside for found in _running(part)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if self._is_ours(alias.name):
                        bindings[alias.asname or self.name] = Use(alias.name if alias.asname else self.name)
            elif isinstance(node, ast.ImportFrom) and self._is_ours(_absolute(node, package)):
                for alias in node.names:
                    bindings[alias.asname or alias.name] = Use(_absolute(node, package), alias.name)
        return bindings

    def _as_module(self, use: Use) -> str:
        """The module that this name is, or "" when it is something else."""
        dotted = f"{use.module}.{use.name}" if use.name else use.module
        path = self.root.joinpath(*dotted.split("."))
        return dotted if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() else ""

    def _is_ours(self, dotted: str) -> bool:
        return dotted == self.name or dotted.startswith(f"{self.name}.")


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of code that runs: all but the bodies of `if TYPE_CHECKING:`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not _is_type_checking(child):
            yield from _running(child)


def _is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that `from X import` names, with a relative X resolved."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
