"""torch's ONNX exporter makes its table of 800 operators anew for each export; here it is made once in a process.

That is half of the time of a small net. The table is no part of torch's public interface: where it is not as expected,
exports go on as torch does them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from functools import cache
from typing import Any


@contextlib.contextmanager
def operators_remembered() -> Iterator[None]:
    """Exports in this block share the table; each gets a copy, to which it may add."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        known = ONNXRegistry.__dict__["from_torchlib"]
    except (ImportError, KeyError):
        yield
        return

    def copied(registry: Any, *args: Any, **options: Any) -> Any:
        made = _table(known.__func__, registry, *args, **options)
        own = copy.copy(made)
        own.functions = {operator: list(found) for operator, found in made.functions.items()}
        return own

    ONNXRegistry.from_torchlib = classmethod(copied)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = known  # type: ignore[method-assign]


@cache
def _table(make: Any, *args: Any, **options: Any) -> Any:
    return make(*args, **options)
