"""What Hydra finds besides the files in conf/: a source run's config, and an experiment given by its path.

A source run's nodes become the option `from_run` of each of its groups, a file the option of `experiment` that has its
path as its name. Ordinary override semantics then do the rest: `data.batch_size=256`, `data=other`; a typo is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from trainctl.errors import UsageError

EXPERIMENT = "experiment"
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


@contextmanager
def experiment_files(words: Sequence[str]) -> Iterator[None]:
    """While active, Hydra knows the file of `experiment=PATH.yaml` among `words`; YAML errors when it is none."""
    store = ConfigStore.instance()
    asked = [word for word in words if word.lstrip("+").startswith(f"{EXPERIMENT}=")]
    try:
        for override in OverridesParser.create().parse_overrides(asked):
            value = override.value()
            for name in filter(is_file_name, value if isinstance(value, list) else [value]):
                content = OmegaConf.load(name)
                if not isinstance(content, DictConfig):
                    raise UsageError(f"`{name}` is no experiment: it holds no keys")
                *folders, file = [part for part in f"{EXPERIMENT}/{name}".split("/") if part]
                node = OmegaConf.to_container(content)
                store.store(group="/".join(folders), name=file, node=node, package="_global_")
        yield
    finally:
        store.repo.pop(EXPERIMENT, None)


def is_file_name(option: Any) -> bool:
    """Whether the option of `experiment` is the path of a file, not a name."""
    return isinstance(option, str) and Path(option).suffix in (".yaml", ".yml")


def _literal(node: Any) -> Any:
    """The same values with `${` escaped: a source run's nodes are final and refer to nothing."""
    if isinstance(node, str):
        return node.replace("${", "\\${")
    if isinstance(node, Mapping):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_literal(value) for value in node]
    return node
