"""A verb, override words and config folders -> one config; Hydra composes it, every mistake is one UsageError.

Our own conf/ is the primary folder; a user's folder joins Hydra's search path, so it may add groups and
options but never silently replaces a built-in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from trainctl.config import listing
from trainctl.config.mistakes import Layers, leaves, text
from trainctl.config.overrides import parse, refuse_sweep
from trainctl.config.source import FROM_RUN, experiment_files, published
from trainctl.errors import UsageError, did_you_mean


def compose(
    verb: str,
    overrides: Sequence[str] = (),
    config_dir: Path | None = None,
    source: Mapping[str, Any] | None = None,
) -> DictConfig:
    """The config of one job of `verb`, interpolations still in place; UsageError for every mistake in it.

    `config_dir` is the user's folder (default: ./conf when there is one). `source` is the resolved config of
    the run that the verb reads; it becomes the option `from_run` of each of its groups.
    """
    parsed = parse(overrides)
    refuse_sweep(parsed)
    folders = listing.folders(config_dir)
    _check_verb(verb, folders[0], source)
    groups = frozenset(key for key, node in (source or {}).items() if isinstance(node, dict))
    layers = Layers(verb, folders, groups, partial(_compose, verb, folders))
    layers.check_groups(parsed)
    with published(source):
        try:
            config = layers.compose([text(override) for override in parsed])
        except Exception as error:  # Hydra raises ValueError, AttributeError and YAML errors besides its own
            raise layers.explain(error, parsed) from error
        layers.check_additions(parsed)
    return config


def plain(config: DictConfig) -> dict[str, Any]:
    """Every value resolved into plain containers; UsageError names the key and what it refers to."""
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _unresolved(config, error) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _check_verb(verb: str, conf: Path, source: Mapping[str, Any] | None) -> None:
    file = conf / f"{verb}.yaml"
    if not file.is_file():
        verbs = sorted(file.stem for file in conf.glob("*.yaml"))
        raise UsageError(f"no verb `{verb}`; have: {', '.join(verbs)}{did_you_mean(verb, verbs)}")
    if source is None and f": {FROM_RUN}" in file.read_text(encoding="utf-8"):
        raise UsageError(f"`{verb}` reads a run; name one, as in `trainctl {verb} latest`")


def _compose(verb: str, folders: Sequence[Path], words: Sequence[str]) -> DictConfig:
    with hydra_ready(verb, folders), experiment_files(words):
        return hydra_compose(verb, overrides=[*searchpath(folders), *words])


@contextmanager
def hydra_ready(verb: str, folders: Sequence[Path]) -> Iterator[None]:
    """Hydra's one global state set to our folders, and put back as it was afterwards."""
    state = GlobalHydra.instance()
    outer, state.hydra = state.hydra, None
    try:
        with initialize_config_dir(str(folders[0]), version_base="1.3", job_name=verb):
            yield
    finally:
        GlobalHydra.instance().hydra = outer  # initialize_config_dir has put a copy in its place


def searchpath(folders: Sequence[Path]) -> list[str]:
    """The override that adds all folders but the first to Hydra's search path."""
    quoted = [str(folder).replace("\\", "\\\\").replace("'", "\\'") for folder in folders[1:]]
    return ["hydra.searchpath=[" + ",".join(f"'file://{folder}'" for folder in quoted) + "]"] if quoted else []


def _unresolved(config: DictConfig, error: OmegaConfBaseException) -> UsageError:
    key = error.full_key or "the config"
    text = str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue) and not isinstance(error, InterpolationToMissingValueError):
        return UsageError(f"`{key}` has no value yet; pass `{key}=...`")
    if isinstance(error, InterpolationKeyError):
        name = text.split("'")[1] if "'" in text else text
        hint = did_you_mean(name, leaves(config))
        return UsageError(f"`{key}` refers to `{name}`, which does not exist{hint}")
    if isinstance(error, UnsupportedInterpolationType):
        name = text.rsplit(" ", 1)[-1]
        return UsageError(f"`{key}` uses the resolver `{name}`, which does not exist; use `oc.env` or a key")
    if "Environment variable" in text:
        name = text.split("Environment variable '")[1].split("'")[0]
        return UsageError(f"`{key}` needs the environment variable `{name}`, which is not set")
    return UsageError(f"`{key}` cannot be resolved: {text}")
