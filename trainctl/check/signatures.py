"""Where a dotted path leads and which arguments it takes, read from source without importing anything.

Re-exports are followed through `__init__` files. Whatever cannot be read for certain (compiled modules, dynamic
attributes, exotic decorators) is `UNKNOWN` or has no signature, and is never complained about.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainctl.check.modules import Module, Node, exists, find, submodules
from trainctl.errors import did_you_mean

Function = ast.FunctionDef | ast.AsyncFunctionDef
MAX_HOPS = 12


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation as source (or None) and whether it may be left out."""

    name: str
    annotation: ast.expr | None
    required: bool
    positional_only: bool = False


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable; `open_ended` when it takes `**kwargs`, `variadic` when it takes `*args`."""

    parameters: tuple[Parameter, ...]
    open_ended: bool = False
    variadic: bool = False

    def names(self) -> list[str]:
        """What may be passed by keyword."""
        return [parameter.name for parameter in self.parameters if not parameter.positional_only]


@dataclass(frozen=True)
class Found:
    """What a path leads to: a syntax node and its module, something unreadable, or a sentence saying why nothing."""

    kind: Literal["node", "module", "unknown", "missing"]
    node: Node | None = None
    module: Module | None = None
    problem: str = ""


UNKNOWN = Found("unknown")


def locate(path: str, extra: tuple[str, ...] = ()) -> Found:
    """Follow a dotted path such as `torch.nn.Linear`; `extra` folders are searched besides sys.path."""
    parts = path.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        return Found("missing", problem=f"`{path}` is not a dotted path such as `torch.nn.Linear`")
    count = len(parts)
    while count and not exists(".".join(parts[:count]), extra):
        count -= 1
    if not count:
        return Found("missing", problem=f"`{path}` cannot be found: there is no module `{parts[0]}`; is it installed?")
    module = find(".".join(parts[:count]), extra)
    assert module is not None
    found = Found("module", module=module)
    for index in range(count, len(parts)):
        found = _member(found, parts[index], extra)
        if found.kind == "unknown":
            return _mistyped_module(path, parts, index, module) or UNKNOWN
        if found.kind == "missing":
            return _missing(path, parts, index, module, extra)
    return found


def signature(found: Found, extra: tuple[str, ...] = ()) -> Signature | None:
    """The arguments of what was located, without self; None when they cannot be read for certain."""
    if found.kind != "node" or found.module is None:
        return None
    if isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _of_function(found.node)
    return _of_class(found.node, found.module, extra, MAX_HOPS) if isinstance(found.node, ast.ClassDef) else None


def _mistyped_module(path: str, parts: list[str], index: int, module: Module) -> Found | None:
    """`torch.nnn.Linear`: torch makes names on demand, but none that looks like one of its modules and holds others."""
    part = parts[index]
    if index + 1 == len(parts) or part in module.names or ".".join(parts[:index]) != module.name or not part.islower():
        return None
    hint = _corrected(parts, index, sorted(submodules(module)))
    return Found("missing", problem=f"`{path}` does not exist in {module.name}{hint}") if hint else None


def _corrected(parts: list[str], index: int, names: list[str]) -> str:
    """`; did you mean ...?` with the whole path, its part at `index` replaced by the nearest name."""
    parent, rest = ".".join(parts[:index]), "".join(f".{part}" for part in parts[index + 1 :])
    return did_you_mean(parts[index], names).replace("mean `", f"mean `{parent}.").replace("`?", f"{rest}`?")


def _missing(path: str, parts: list[str], index: int, module: Module, extra: tuple[str, ...]) -> Found:
    parent = ".".join(parts[:index])
    names = sorted(set(_names(module, extra, MAX_HOPS))) if index == module.name.count(".") + 1 else []
    hint = _corrected(parts, index, [name for name in names if not name.startswith("_")])
    return Found("missing", problem=f"`{path}` does not exist in {parent}{hint}")


def _member(found: Found, name: str, extra: tuple[str, ...]) -> Found:
    if found.kind == "module" and found.module is not None:
        return _lookup(found.module, name, extra, MAX_HOPS)
    if isinstance(found.node, ast.ClassDef) and found.module is not None:
        for statement in found.node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                return Found("node", statement, found.module)
    return UNKNOWN  # inherited or dynamic


def _lookup(module: Module, name: str, extra: tuple[str, ...], hops: int) -> Found:
    """A name of a module: its own definition, what it imports, or one of its submodules."""
    if not hops:
        return UNKNOWN
    if name in module.names:
        return _follow(module, *module.names[name], extra, hops - 1)
    child = find(f"{module.name}.{name}", extra) if module.folders is not None else None
    if child is not None:
        return Found("module", module=child)
    for star in module.stars:
        source = find(star, extra)
        found = _lookup(source, name, extra, hops - 1) if source else UNKNOWN
        if found.kind != "missing":
            return found
    return UNKNOWN if module.opaque else Found("missing")


def _follow(module: Module, node: Node, origin: ast.ImportFrom | None, extra: tuple[str, ...], hops: int) -> Found:
    if isinstance(node, ast.alias):
        if origin is None:
            target = find(node.name if node.asname else node.name.split(".")[0], extra)
            return Found("module", module=target) if target else UNKNOWN
        source = find(module.absolute(origin), extra)
        found = _lookup(source, node.name, extra, hops) if source else UNKNOWN
        return UNKNOWN if found.kind == "missing" else found
    if isinstance(node, ast.Name) and node.id in module.names:
        return _lookup(module, node.id, extra, hops)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return Found("node", node, module)
    return UNKNOWN


def _names(module: Module, extra: tuple[str, ...], hops: int) -> Iterator[str]:
    yield from module.names
    yield from submodules(module)
    for star in module.stars if hops else ():
        source = find(star, extra)
        if source:
            yield from _names(source, extra, hops - 1)


def _of_class(node: ast.ClassDef, module: Module, extra: tuple[str, ...], hops: int) -> Signature | None:
    """From `__init__` of the class or the first base that has one; unknown bases and metaclass magic give None."""
    if not hops or node.keywords or any(_decorator(item) != "final" for item in node.decorator_list):
        return _of_dataclass(node, module)
    functions = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    if "__init__" in functions:
        return _of_function(functions["__init__"], bound=True)
    if "__new__" in functions:
        return None
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id == "object":
            continue
        found = _expression(base, module, extra, hops - 1)
        if found.kind != "node" or not isinstance(found.node, ast.ClassDef) or found.module is None:
            return None
        return _of_class(found.node, found.module, extra, hops - 1)
    return Signature(())


def _expression(node: ast.expr, module: Module, extra: tuple[str, ...], hops: int) -> Found:
    """Where a base class written as `Name` or `module.Name` (or either, subscripted) leads."""
    if isinstance(node, ast.Subscript):
        return _expression(node.value, module, extra, hops)
    if isinstance(node, ast.Attribute):
        return _member(_expression(node.value, module, extra, hops), node.attr, extra)
    if isinstance(node, ast.Name) and not (hasattr(builtins, node.id) and node.id not in module.names):
        return _lookup(module, node.id, extra, hops)
    return UNKNOWN


def _of_dataclass(node: ast.ClassDef, module: Module) -> Signature | None:
    if node.bases or node.keywords or [_decorator(item) for item in node.decorator_list] != ["dataclass"]:
        return None
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    return Signature(
        tuple(
            Parameter(item.target.id, item.annotation, required=item.value is None)
            for item in fields
            if isinstance(item.target, ast.Name) and "ClassVar" not in ast.dump(item.annotation)
        )
    )


def _of_function(node: Function, bound: bool = False) -> Signature | None:
    decorators = [_decorator(item) for item in node.decorator_list]
    if "overload" in decorators or "property" in decorators:
        return None
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = [
        Parameter(item.arg, item.annotation, index < first_default, item in arguments.posonlyargs)
        for index, item in enumerate(positional)
    ]
    if parameters and (bound or "classmethod" in decorators or parameters[0].name == "self"):
        parameters = parameters[1:]
    parameters += [
        Parameter(item.arg, item.annotation, default is None)
        for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return Signature(tuple(parameters), arguments.kwarg is not None, arguments.vararg is not None)


def _decorator(node: ast.expr) -> str:
    """The last part of a decorator's name."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else "?"
