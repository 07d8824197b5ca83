"""What is wrong with an override or a config file, in one sentence that names the key, the options and a near match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from trainctl.config.overrides import OverrideError
from trainctl.config.source import EXPERIMENT, FROM_RUN, is_file_name
from trainctl.errors import UsageError, did_you_mean

# Nodes of the top level that may be given entries of any name.
FREE_NODES = ("callbacks", "logger", "paths")
OWN_NAMES = ("data.columns.",)  # mappings whose keys are names in the user's data


@dataclass(frozen=True)
class Layers:
    """The folders and the composing function against which override words are judged."""

    verb: str
    folders: Sequence[Path]
    run_groups: frozenset[str]  # groups whose option `from_run` exists
    compose: Callable[[Sequence[str]], DictConfig]

    def options(self, group: str) -> list[str]:
        """Sorted option names of a group over all folders, empty when it is no group."""
        found = {file.stem for folder in self.folders for file in (folder / group).glob("*.yaml")}
        return sorted(found | ({FROM_RUN} if group in self.run_groups else set()))

    def is_group(self, key: str) -> bool:
        """Whether `key` names a config group."""
        return bool(key) and (key in self.run_groups or any((folder / key).is_dir() for folder in self.folders))

    def check_groups(self, parsed: Sequence[Override]) -> None:
        """OverrideError for an option that does not exist or shadows a built-in one, and for Hydra's own settings."""
        for override in parsed:
            group = override.key_or_group
            if group.startswith(("hydra.", "hydra/")):
                message = f"`{text(override)}` has no effect on a single run; Hydra's own settings are for `-m`"
                raise OverrideError(message, text(override))
            if override.is_delete() or not self.is_group(group):
                continue
            value = override.value()
            try:
                if isinstance(value, dict):
                    keys = ", ".join(f"`{group}.{key}=...`" for key in value)
                    raise UsageError(f"`{group}` takes the name of an option; set values one by one: {keys}")
                for option in value if isinstance(value, list) else [value]:
                    self.check_option(group, option)
            except UsageError as error:
                raise OverrideError(str(error), text(override)) from None

    def check_option(self, group: str, option: Any) -> None:
        """UsageError unless `option` is exactly one file (or the source run) of `group`."""
        name = "null" if option is None else str(option)
        if group == EXPERIMENT and is_file_name(option):
            if not Path(name).is_file():
                names = self.options(group)
                hint = did_you_mean(Path(name).stem, names)
                raise UsageError(f"no file `{name}`; `{group}=` takes a path, or one of: {', '.join(names)}{hint}")
            return
        holders = [folder / group / f"{name}.yaml" for folder in self.folders]
        holders = [file for file in holders if file.is_file()]
        if len(holders) > 1:
            raise UsageError(f"`{holders[-1]}` has the name of a built-in `{group}` option; rename it to use it")
        if holders or (name == FROM_RUN and group in self.run_groups):
            return
        options = self.options(group)
        if option is None:
            raise UsageError(f"`{group}=null` names no option; have: {', '.join(options)}")
        have = ", ".join(options) or "none"
        raise UsageError(f"no `{group}` option `{name}`; have: {have}{did_you_mean(name, options)}")

    def check_additions(self, parsed: Sequence[Override]) -> None:
        """UsageError for a `+key` that nothing would read.

        Keys below a `_target_` are left to `trainctl.check`, which knows the signature.
        """
        added = [o for o in parsed if (o.is_add() or o.is_force_add()) and self.is_value(o)]
        base = self.base(parsed) if added else None
        for override in added:
            assert base is not None
            parts = override.key_or_group.split(".")
            present, node, below_target = walk(base, parts)
            if len(present) == len(parts) or below_target or (present and present[0] in FREE_NODES):
                continue
            if not present:
                raise OverrideError(str(unknown_key(base, parts, present, node)), text(override))
            has = _list(node) if isinstance(node, DictConfig) else "a single value"
            parent = ".".join(present)
            message = f"`{parent}` has no parameter `{parts[len(present)]}`; it has: {has}"
            raise OverrideError(message, text(override))

    def is_value(self, override: Override) -> bool:
        """Whether the override sets a key, not the option of a group."""
        return not self.is_group(override.key_or_group)

    def base(self, parsed: Sequence[Override]) -> DictConfig:
        """The config with the chosen options only, before any key is set."""
        return self.compose([text(o) for o in parsed if self.is_group(o.key_or_group)])

    def explain(self, error: Exception, parsed: Sequence[Override]) -> UsageError:
        """The sentence for whatever Hydra raised."""
        if isinstance(error, yaml.YAMLError):
            return bad_yaml(error)
        if isinstance(error, MissingConfigException):
            return self.missing_option(error)
        try:
            base = self.base(parsed)
        except Exception:  # a mistake in a file, not in a key: found by trying the words one by one
            return self.culprit(error, parsed)
        for override in filter(self.is_value, parsed):
            parts = override.key_or_group.split(".")
            present, node, _ = walk(base, parts)
            if len(present) < len(parts) and not override.is_add() and not override.is_force_add():
                return OverrideError(str(unknown_key(base, parts, present, node)), text(override))
            if override.is_add() and len(present) == len(parts):
                message = f"`{override.key_or_group}` exists already; set it without the `+`"
                return OverrideError(message, text(override))
        parts = str(getattr(error.__cause__, "full_key", None) or "").split(".")
        present, node, _ = walk(base, parts)
        if present and len(present) < len(parts):  # inside a mapping, as in `data.split={vall:0.1}`
            word = next((text(o) for o in parsed if ".".join(parts).startswith(o.key_or_group + ".")), "")
            return OverrideError(str(unknown_key(base, parts, present, node)), word)
        return self.culprit(error, parsed)

    def missing_option(self, error: MissingConfigException) -> UsageError:
        """A defaults list names an option that is not there."""
        found = re.match(r"In '([^']+)': Could not (?:find|load) '([^']+)'", str(error))
        if found is None:
            return UsageError(_first_line(error))
        asker, wanted = found.groups()
        group, _, name = wanted.rpartition("/")
        options = self.options(group)
        have = f"; `{group}` has: {', '.join(options)}{did_you_mean(name, options)}" if options else ""
        return UsageError(f"`{asker}.yaml` asks for `{wanted}`, which does not exist{have}")

    def culprit(self, error: Exception, parsed: Sequence[Override]) -> UsageError:
        """Names the first override with which composing fails."""
        for count in range(len(parsed) + 1):
            try:
                self.compose([text(o) for o in parsed[:count]])
            except Exception as first:
                if count == 0:
                    return UsageError(f"the configuration of `{self.verb}` is broken: {_first_line(first)}")
                word = text(parsed[count - 1])
                return OverrideError(f"cannot apply `{word}`: {_first_line(first)}", word)
        return UsageError(_first_line(error))


def unknown_key(base: DictConfig, parts: Sequence[str], present: Sequence[str], node: Any) -> UsageError:
    """The sentence for a key that `base` lacks: its parts, those of them that exist, and the node they lead to."""
    key, parent = ".".join(parts), ".".join(present)
    if not present:
        return _unknown_at_top(base, parts)
    if not isinstance(node, DictConfig):
        return UsageError(f"unknown key `{key}`; `{parent}` is a single value, set it with `{parent}=...`")
    hint = did_you_mean(parts[len(present)], [str(name) for name in node]).replace("mean `", f"mean `{parent}.")
    more = f"; another parameter of its `_target_` is passed with `+{key}=...`" if "_target_" in node else ""
    return UsageError(f"unknown key `{key}`{hint or f'; `{parent}` has: {_list(node)}{more}'}")


def _unknown_at_top(base: DictConfig, parts: Sequence[str]) -> UsageError:
    names, key = [str(name) for name in base], ".".join(parts)
    if len(parts) > 1:
        return UsageError(f"unknown group `{parts[0]}`{did_you_mean(parts[0], names) or f'; have: {_list(base)}'}")
    ends: dict[str, list[str]] = {}
    for name in leaves(base):
        ends.setdefault(name.rpartition(".")[2], []).append(f"`{name}`")
    if key in ends:
        return UsageError(f"unknown key `{key}`; did you mean {' or '.join(ends[key][:3])}?")
    near = did_you_mean(key, names)
    if not near:
        near = did_you_mean(key, ends)
        for end, found in ends.items():
            near = near.replace(f"`{end}`", found[0]) if near.endswith(f"`{end}`?") else near
    return UsageError(f"unknown key `{key}`{near or f'; have: {_list(base)}'}")


def leaves(config: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config, inner nodes included."""
    if isinstance(config, DictConfig):
        for name in config:
            key = f"{prefix}{name!s}"
            yield key
            yield from leaves(config._get_node(name), f"{key}.")


def bad_yaml(error: yaml.YAMLError) -> UsageError:
    """The sentence for a file that is not YAML: its path, line and column when they are known."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or _first_line(error)
    where = f"`{mark.name}` line {mark.line + 1}, column {mark.column + 1}" if mark else "a config file"
    return UsageError(f"{where} is not valid YAML: {problem}")


def text(override: Override) -> str:
    """The override as it was typed; below a mapping of the user's own names Hydra wants `++` in front."""
    typed = override.input_line or f"{override.get_key_element()}={override.get_value_element_as_str()}"
    own_names = f"{override.key_or_group}.".startswith(OWN_NAMES) and override.type == OverrideType.CHANGE
    return f"++{typed}" if own_names else typed


def walk(base: DictConfig, parts: Sequence[str]) -> tuple[list[str], Any, bool]:
    """The leading parts that exist, the node they lead to, and whether a `_target_` was passed on the way."""
    node: Any = base
    below_target = False
    for index, part in enumerate(parts):
        below_target = below_target or (isinstance(node, DictConfig) and "_target_" in node)
        if not isinstance(node, DictConfig) or part not in node:
            return list(parts[:index]), node, below_target
        node = node._get_node(part)
    return list(parts), node, below_target


def _list(node: DictConfig) -> str:
    return ", ".join(str(name) for name in node)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
