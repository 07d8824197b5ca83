"""Whether a value fits the annotation of the parameter it is passed to: plain types, literals, unions, sequences."""

from __future__ import annotations

import ast
from typing import Any

from trainctl.check.kinds import shown
from trainctl.errors import did_you_mean

_NAMES = {"bool": "true or false (unquoted)", "int": "a whole number", "float": "a number", "str": "a text"}
_SEQUENCES = ("list", "List", "Sequence", "Iterable", "tuple", "Tuple", "Collection")
_MAPPINGS = ("dict", "Dict", "Mapping")


class Unreadable(Exception):
    """An annotation that says nothing checkable."""


def misfit(value: Any, annotation: ast.expr | None) -> str | None:
    """What is wrong with `value`, as `must be ..., got ...`; None when it fits or the annotation is not understood."""
    if annotation is None:
        return None
    try:
        fits, wanted = _match(value, annotation)
    except Unreadable:
        return None
    if fits:
        return None
    words = [item.strip("'") for item in wanted if item.startswith("'")]
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    got = f"'{value}'" if words and isinstance(value, str) else shown(value)
    return f"must be {_one_of(wanted)}, got {got}{hint}"


def _one_of(wanted: list[str]) -> str:
    words = [item.strip("'") for item in wanted if item.startswith("'")]
    kinds = [item for item in wanted if not item.startswith("'") and item != "null"]
    null = ["null"] if "null" in wanted else []
    return " or ".join(kinds + ([f"one of {', '.join(words)}"] if words else []) + null)


def _match(value: Any, node: ast.expr) -> tuple[bool, list[str]]:
    """Whether it fits, and the kinds that would."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _match(value, _parsed(node.value))
    if isinstance(node, ast.Constant) and node.value is None:
        return value is None, ["null"]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _any(value, [node.left, node.right])
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _is(value, node.id), [_NAMES[node.id]]
    if isinstance(node, ast.Name) and node.id in _SEQUENCES:
        return isinstance(value, list), ["a list"]
    if isinstance(node, ast.Subscript):
        return _subscript(value, _last(node.value), _items(node.slice))
    raise Unreadable


def _subscript(value: Any, name: str, items: list[ast.expr]) -> tuple[bool, list[str]]:
    if name == "Optional":
        return _any(value, [*items, ast.Constant(None)])
    if name == "Union":
        return _any(value, items)
    if name == "Literal":
        known = [item.value for item in items if isinstance(item, ast.Constant)]
        if len(known) < len(items):
            raise Unreadable
        return any(value == item and type(value) is type(item) for item in known), [f"'{item!s}'" for item in known]
    if name in _MAPPINGS:
        return isinstance(value, dict), ["a mapping"]
    if name in _SEQUENCES:
        kind = items[0]
        plain = isinstance(kind, ast.Name) and kind.id in _NAMES
        wanted = ["a list" + (f" of {_NAMES[kind.id][2:]}s" if isinstance(kind, ast.Name) and plain else "")]
        if not isinstance(value, list):
            return False, wanted
        return not plain or name in ("tuple", "Tuple") or all(_match(item, kind)[0] for item in value), wanted
    raise Unreadable


def _any(value: Any, nodes: list[ast.expr]) -> tuple[bool, list[str]]:
    matches = [_match(value, node) for node in nodes]
    return any(fits for fits, _ in matches), [kind for _, kinds in matches for kind in kinds]


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "bool"
    kinds: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
    return isinstance(value, kinds[name])


def _parsed(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise Unreadable from error


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _items(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]
