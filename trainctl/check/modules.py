"""Python modules as syntax trees: found on the path and parsed, never imported.

Importing torch takes seconds; reading the one file that defines a class takes milliseconds.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

Node = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.alias | ast.expr


@dataclass(frozen=True)
class Module:
    """A parsed module: its dotted name, whether it is a package, and what its top level binds.

    `names` maps a name to the definition, import or assigned expression that bound it last; `stars` are the
    modules of `from x import *`. `opaque`: compiled, unreadable, or with a module-level `__getattr__`.
    """

    name: str
    folders: tuple[str, ...] | None = None
    names: dict[str, tuple[Node, ast.ImportFrom | None]] = field(default_factory=dict)
    stars: tuple[str, ...] = ()
    opaque: bool = False

    def absolute(self, statement: ast.ImportFrom) -> str:
        """The absolute name of the module that a `from ... import` statement reads."""
        if not statement.level:
            return statement.module or ""
        parts = self.name.split(".")
        keep = len(parts) - statement.level + (1 if self.folders is not None else 0)
        return ".".join([*parts[:keep], *([statement.module] if statement.module else [])])


@cache
def find(name: str, extra: tuple[str, ...] = ()) -> Module | None:
    """The module of that dotted name, None when there is none; `extra` folders are searched after sys.path."""
    spec = _spec(name, extra)
    if spec is None:
        return None
    folders = None if spec.submodule_search_locations is None else tuple(spec.submodule_search_locations)
    if spec.origin is None or not spec.origin.endswith(".py"):
        return Module(name, folders, opaque=spec.origin is not None)
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return Module(name, folders, opaque=True)
    module = Module(name, folders)
    stars = []
    for statement in _top_level(tree.body):
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            stars.append(module.absolute(statement))
        else:
            module.names.update(_bound(statement))
    return Module(name, folders, module.names, tuple(stars), opaque="__getattr__" in module.names)


def _spec(name: str, extra: tuple[str, ...]) -> ModuleSpec | None:
    parent, _, last = name.rpartition(".")
    if parent:
        folders = find_folders(parent, extra)
        return PathFinder.find_spec(last, list(folders)) if folders else None
    try:
        found = importlib.util.find_spec(name)
    except (ValueError, ImportError):
        found = getattr(sys.modules.get(name), "__spec__", None)
    return found or PathFinder.find_spec(name, list(extra))


@cache
def find_folders(name: str, extra: tuple[str, ...]) -> tuple[str, ...] | None:
    """Where a package keeps its modules, without parsing it; None for a plain module or none at all."""
    spec = _spec(name, extra)
    return tuple(spec.submodule_search_locations) if spec and spec.submodule_search_locations is not None else None


def exists(name: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a module of that name is on the path."""
    return _spec(name, extra) is not None


def submodules(module: Module) -> Iterator[str]:
    """Names of the modules directly inside a package."""
    for folder in module.folders or ():
        for entry in Path(folder).iterdir():
            if entry.suffix == ".py" or (entry / "__init__.py").is_file():
                yield entry.stem


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, also those inside if, try and with."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.With | ast.Try):
            yield from _top_level(statement.body)
            yield from _top_level(getattr(statement, "orelse", []))
            for handler in getattr(statement, "handlers", []):
                yield from _top_level(handler.body)


def _bound(statement: ast.stmt) -> Iterator[tuple[str, tuple[Node, ast.ImportFrom | None]]]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name, (statement, None)
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        origin = statement if isinstance(statement, ast.ImportFrom) else None
        for alias in statement.names:
            yield (alias.asname or alias.name.split(".")[0]), (alias, origin)
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, (statement.value, None)
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, (statement.value, None)
