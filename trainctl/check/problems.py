"""Every problem of a config at once, as sentences: targets, arguments, values, the machine, metric names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainctl.check import rules
from trainctl.check.kinds import shown
from trainctl.check.machine import machine_problems
from trainctl.check.monitors import monitor_problems
from trainctl.check.signatures import Parameter, Signature, locate, signature
from trainctl.check.values import misfit
from trainctl.config.compose import compose, plain
from trainctl.config.listing import shipped_keys
from trainctl.config.overrides import OverrideError
from trainctl.errors import UsageError, did_you_mean

# What `build` passes to whoever has a parameter of that name; the second kind is also set in configs.
OBJECTS = frozenset(
    {"spec", "net", "params", "optimizer", "training", "class_counts", "total_steps", "steps_per_epoch", "make_node"}
)
INJECTED = OBJECTS | {"save_dir", "seed", "root", "monitor", "mode"}
# Sections whose rules describe our own components only; a foreign one may use the same names for other things.
_OURS_ONLY = ("data", "model", "task", "scheduler", "callbacks", "compressor")
_MOST = 256  # sections whose problems are remembered
_SPECIAL = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def check(
    verb: str, config: Mapping[str, Any], config_dir: Path | None = None, kept: dict[str, list[str]] | None = None
) -> list[str]:
    """Sentences on all that is wrong with a resolved config, without importing what it names; [] when nothing is.

    `_target_`s are looked up on sys.path, in the current folder and beside `config_dir`. `kept`: what was found of
    single sections before, and is added to; the many configs of a study have most of them in common.
    """
    kept, trainer = {} if kept is None else kept, config.get("trainer") or {}
    extra = tuple(str(folder) for folder in (Path.cwd(), config_dir and config_dir.absolute().parent) if folder)
    found: list[str] = []
    for problems in (
        _missing_sections(verb, config),
        _unread_keys(verb, config),
        _value_problems(config),
        *(_once(kept, f"{k}: {v!r}", partial(_target_problems, {k: v}, extra)) for k, v in config.items()),
        _once(kept, f"machine: {trainer!r}", partial(machine_problems, trainer)),
        monitor_problems(config),
    ):
        found += [problem for problem in problems if problem not in found]
    return found


def _once(kept: dict[str, list[str]], about: str, find: Callable[[], Iterable[str]]) -> list[str]:
    """What `find` says, asked for once."""
    if about not in kept:
        if len(kept) >= _MOST:
            kept.clear()
        kept[about] = list(find())
    return kept[about]


def check_words(
    verb: str, words: Sequence[str], config_dir: Path | None = None, source: Mapping[str, Any] | None = None
) -> list[str]:
    """Everything wrong with a command's override words and with the config they give: what `config check` shows.

    A word that cannot be used is left out, with what it was to choose, so that the rest is still judged.
    """
    left, found = list(words), []
    while True:
        try:
            config = plain(compose(verb, left, config_dir, source))
        except OverrideError as error:
            found.append(str(error))
            section = error.word.partition("=")[0] + "."
            left = [word for word in left if word != error.word and not word.lstrip("+~").startswith(section)]
        except UsageError as error:
            return [*found, str(error)]
        else:
            return [*found, *(problem for problem in check(verb, config, config_dir) if problem not in found)]


def _missing_sections(verb: str, config: Mapping[str, Any]) -> Iterator[str]:
    """What `~model` and the like leave out; a foreign task needs neither our model nor our optimizer."""
    task = config.get("task")
    ours = isinstance(task, Mapping) and str(task.get("_target_")).startswith("trainctl.")
    needed = ["data", "task"] + (["model"] if ours else []) + (["optimizer"] if ours and verb == "train" else [])
    for section in needed:
        node = config.get(section)
        if not isinstance(node, Mapping):
            yield f"the config has no `{section}`; choose one with `{section}=...`"
        elif node.get("_target_") is None:
            yield f"`{section}` has no `_target_`; name the class to make, as in `{section}._target_=my_pkg.MyClass`"
    if not isinstance(config.get("trainer"), Mapping):
        yield "the config has no `trainer`; choose one with `trainer=...`"
    if verb == "train" and not isinstance(config.get("train"), Mapping):
        yield "the config has no `train`; leave out the override that removes it"
    for name in ("accelerator", "devices", "strategy", "precision"):
        if name not in (config.get("trainer") or {name: None}):
            yield f"the config has no `trainer.{name}`; set it with `trainer.{name}=...`"


def _unread_keys(verb: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Keys of sections without a `_target_` that nothing reads: a typo in a file is as silent as it is wrong."""
    for section in ("train", "trainer", "evaluate", "tune", "calibration", "measure", "compress"):
        node = config.get(section)
        known = shipped_keys(verb, section) if isinstance(node, Mapping) else []
        for name in node or () if known else ():
            if name not in known:
                yield f"`{section}` has no parameter `{name}`{_instead(name, known)}"


def _value_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key, rule in rules.RULES.items():
        present, value = _select(config, key)
        problem = rule(value) if present and _has_rule(config, key) else None
        if problem:
            yield f"`{key}` {problem}"
    folded = False
    for section in ("train", "tune"):
        node = config.get(section)
        if isinstance(node, Mapping) and node.get("folds"):
            folded = True
            if node.get("seeds"):
                yield f"`{section}.folds` and `{section}.seeds` are both set; choose one of them"
    data = config.get("data")
    split = data.get("split") if isinstance(data, Mapping) else None
    if isinstance(split, Mapping):
        yield from _split_problems(split, folded)


def _split_problems(split: Mapping[str, Any], folded: bool) -> Iterator[str]:
    if folded and split.get("kind") == "time":
        yield "`data.split.kind=time` cannot be folded; use random, stratified, group or hash"
    val, test, folds, fold = (split.get(name) for name in ("val", "test", "folds", "fold"))
    if isinstance(val, int | float) and isinstance(test, int | float) and val + test >= 1:
        yield f"`data.split` leaves nothing to train on: val {val:g} + test {test:g} must be < 1"
    if isinstance(folds, int) and isinstance(fold, int) and fold >= folds:
        yield f"`data.split.fold` must be from 0 to {folds - 1}, got {fold}"


def _target_problems(config: Mapping[str, Any], extra: tuple[str, ...]) -> Iterator[str]:
    for key, node in _targets(config):
        target = node["_target_"]
        if target is None:
            continue
        if not isinstance(target, str):
            yield f"`{key}._target_` must be a dotted path such as `torch.nn.Linear`, got {shown(target)}"
            continue
        if _runs_code(target):
            yield f"`{target}` is refused as `{key}._target_`: it runs commands or code and makes no component"
            continue
        found = locate(target, extra)
        if found.kind == "missing":
            yield found.problem
        elif found.kind == "module":
            yield f"`{target}` is a module; `{key}._target_` must name a class or function in it"
        readable = signature(found, extra)
        if readable is not None:
            yield from _argument_problems(config, key, node, readable)


def _runs_code(target: str) -> bool:
    """Whether Hydra's own list keeps configs from calling it."""
    try:
        from hydra._internal.target_policy import _is_blocklisted_target
    except ImportError:  # since 1.3.8
        return False
    return bool(_is_blocklisted_target(target))


def _argument_problems(config: Mapping[str, Any], key: str, node: Mapping[str, Any], takes: Signature) -> Iterator[str]:
    """What is wrong with the arguments of one `_target_` node."""
    known = {parameter.name: parameter for parameter in takes.parameters}
    given = [name for name in node if name not in _SPECIAL]
    names = [name for name in takes.names() if name not in OBJECTS]
    for name in given:
        if name not in known and not takes.open_ended:
            yield f"`{key}` has no parameter `{name}`{_instead(name, names)}"
        elif name in known and not _has_rule(config, f"{key}.{name}") and not _is_target(node[name]):
            problem = misfit(node[name], known[name].annotation)
            if problem:
                yield f"`{key}.{name}` {problem}"
    if not node.get("_partial_") and "_args_" not in node:
        for parameter in takes.parameters:
            if _is_needed(parameter) and parameter.name not in given:
                yield f"`{key}` needs `{parameter.name}`, which has no default; pass `+{key}.{parameter.name}=...`"


def _is_needed(parameter: Parameter) -> bool:
    return parameter.required and parameter.name not in INJECTED


def _instead(name: str, names: Iterable[str]) -> str:
    names = list(names)
    return did_you_mean(name, names) or f"; it has: {', '.join(names) or 'none'}"


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node with a `_target_`, at any depth, with its dotted key."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node
        for name, child in node.items():
            yield from _targets(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _targets(child, f"{key}[{index}]")


def _is_target(value: Any) -> bool:
    return bool(list(_targets(value)))


def _has_rule(config: Mapping[str, Any], key: str) -> bool:
    if key not in rules.RULES:
        return False
    section = key.partition(".")[0]
    if section not in _OURS_ONLY:
        return True
    node = config.get(section)
    if section == "callbacks":
        node = (node or {}).get(key.split(".")[1])
    return isinstance(node, Mapping) and str(node.get("_target_")).startswith("trainctl.")


def _select(config: Mapping[str, Any], key: str) -> tuple[bool, Any]:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False, None
        node = node[part]
    return True, node
