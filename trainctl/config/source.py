"""A source run's resolved config, published to Hydra as the option `from_run` of each of its groups.

Ordinary override semantics then do the rest: `data.batch_size=256`, `data=other`, and a typo is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.core.config_store import ConfigStore

FROM_RUN = "from_run"
# Top-level values that a verb takes over from its run; everything else that is not a group stays the verb's own.
CARRIED = ("seed",)


@contextmanager
def published(source: Mapping[str, Any] | None) -> Iterator[None]:
    """While active, `<group>=from_run` means that node of `source` (resolved, plain containers)."""
    if source is None:
        yield
        return
    store = ConfigStore.instance()
    nodes = {group: _literal(node) for group, node in source.items() if isinstance(node, dict)}
    for group, node in nodes.items():
        store.store(group=group, name=FROM_RUN, node=node)
    store.store(name=FROM_RUN, node={key: _literal(source[key]) for key in CARRIED if key in source})
    try:
        yield
    finally:
        for group in nodes:
            del store.repo[group][f"{FROM_RUN}.yaml"]
            if not store.repo[group]:
                del store.repo[group]
        del store.repo[f"{FROM_RUN}.yaml"]


def _literal(node: Any) -> Any:
    """The same values with `${` escaped: a source run's nodes are final and refer to nothing."""
    if isinstance(node, str):
        return node.replace("${", "\\${")
    if isinstance(node, Mapping):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_literal(value) for value in node]
    return node
