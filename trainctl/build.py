"""Config -> data, net, task, callbacks, loggers, trainer: the only place that instantiates.

A component gets `spec`, `net`, `training`, ... when its signature asks for them, and else only its own keys;
so a class from anywhere works by `_target_` unchanged.
"""

from __future__ import annotations

import copy
import fnmatch
import functools
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn

from trainctl.callbacks.checkpoint import PlainCheckpointIO
from trainctl.data.base import Data
from trainctl.data.spec import DataSpec
from trainctl.errors import RunError, TrainctlError, UsageError
from trainctl.optimizers import parameter_groups
from trainctl.tasks.base import Task
from trainctl.tasks.training import Training

Config = dict[str, Any]

OWN = ("trainctl.", "torch.optim.")
PACKAGES = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow", "WandbLogger": "wandb"}  # extras


def component(node: Config, **available: Any) -> Any:
    """Instantiate a node; of `available`, what its signature names and the node does not set is passed on."""
    wanted = _parameters(node["_target_"])
    given = {k: v for k, v in available.items() if k in wanted and k not in node}
    try:
        # bound first, called by us: hydra would turn dataclass arguments into dicts
        make = _bound(node) or instantiate({**node, "_partial_": True}, _convert_="all")
        return partial(make, **given) if node.get("_partial_") else make(**given)
    except (TrainctlError, MemoryError):
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, TrainctlError):
            raise cause from error
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise UsageError(f"`{node['_target_']}` cannot be made from its config: {reason}") from error


def _bound(node: Config) -> Callable[..., Any] | None:
    """What hydra would bind, a millisecond sooner: a component of ours or an optimizer of torch with plain options."""
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    special = any(key.startswith("_") for key in options)
    if special or not node["_target_"].startswith(OWN) or not all(map(_is_plain, options.values())):
        return None
    return partial(get_object(node["_target_"]), **copy.deepcopy(options))


def _is_plain(value: Any) -> bool:
    """Nothing that hydra would instantiate or resolve."""
    if isinstance(value, dict):
        return not any(str(key).startswith("_") for key in value) and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return "${" not in value if isinstance(value, str) else isinstance(value, int | float | None)


def _parameters(target: str) -> frozenset[str]:
    try:
        return _names(get_object(target))
    except (ValueError, TypeError):
        return frozenset()
    except Exception as error:
        raise UsageError(f"`{target}` cannot be imported: {str(error).splitlines()[0]}") from error


@functools.lru_cache(maxsize=256)
def _names(found: Callable[..., Any]) -> frozenset[str]:
    """Of its parameters; a study asks for those of the same few components once for each trial."""
    return frozenset(inspect.signature(found).parameters)


def data(config: Config, preprocessing: Path | None = None) -> pl.LightningDataModule:
    """The data module, not yet set up; `preprocessing` is the folder of a run whose fitted state it must keep."""
    made = component(config["data"], seed=config.get("seed", 0), root=config.get("paths", {}).get("data", "data"))
    if not isinstance(made, pl.LightningDataModule):
        raise UsageError(f"`data._target_` must be a LightningDataModule, got {type(made).__name__}")
    if isinstance(made, Data):
        if preprocessing is not None:
            _restore(made, preprocessing)
        made.limit_batches = config["trainer"].get("limit_batches")
        made.reshuffle = config["trainer"].get("reshuffle", True)
    return made


def _restore(data: Data, folder: Path) -> None:
    """Give a data module what a run fitted; RunError when that is damaged."""
    try:
        data.restore(folder)
    except MemoryError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"preprocessing of the run is damaged ({reason}); train again") from error


def net(config: Config, spec: DataSpec) -> nn.Module:
    """The net, initialised from the seed alone: nothing drawn before changes it."""
    with _seeded(config, config["model"]):
        made = component(config["model"], spec=spec, make_node=partial(component, spec=spec))
    if not isinstance(made, nn.Module):
        raise UsageError(f"`model._target_` must be a torch.nn.Module, got {type(made).__name__}")
    return made


def task(config: Config, spec: DataSpec | None, data: Any = None, fit: bool = False) -> pl.LightningModule:
    """The task with its net; `fit` adds what training needs. A foreign LightningModule is taken as it is."""
    wanted = _parameters(config["task"]["_target_"])
    available: Config = {"seed": config.get("seed", 0)}
    if spec is not None:
        available["spec"] = spec
    if "net" in wanted:
        if spec is None:
            raise UsageError("this data has no spec; give it a `spec` attribute or name a task that builds its own net")
        available["net"] = net(config, spec)
        freeze(available["net"], config.get("freeze") or [])
        if config.get("compile"):
            available["net"].compile()
    if "training" in wanted and fit:
        available["training"] = training(config)
        available["class_counts"] = _class_counts(data, spec)
    with _seeded(config, config["task"]):  # a foreign module makes its net itself
        made: object = component(config["task"], **available)
    if not isinstance(made, pl.LightningModule):
        raise UsageError(f"`task._target_` must be a LightningModule, got {type(made).__name__}")
    if isinstance(made, Task) and fit:
        made.augment = getattr(data, "augment", None)
    return made


@contextmanager
def _seeded(config: Config, node: Config) -> Iterator[None]:
    """torch's generator seeded for what `node` draws, and put back afterwards."""
    seed = config.get("seed", 0)
    # ours draw on the CPU alone; torch.manual_seed takes a traceback each time for GPUs that may be used later
    seeding = torch.default_generator.manual_seed if node["_target_"].startswith(OWN) else torch.manual_seed
    with torch.random.fork_rng(devices=[]):
        seeding(seed)
        yield


def _class_counts(data: Any, spec: DataSpec | None) -> list[int] | None:
    if spec is None or spec.target != "class" or not isinstance(data, Data):
        return None
    return cast(list[int], torch.bincount(data.split("train").y, minlength=len(spec.classes)).tolist())  # type: ignore[arg-type]


def freeze(net: nn.Module, patterns: Sequence[str]) -> None:
    """Keep the parameters whose names match a pattern as they are; UsageError when a pattern matches none."""
    names = dict(net.named_parameters())
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = [n for n in names if fnmatch.fnmatchcase(n, pattern) or n.startswith(pattern.rstrip(".*") + ".")]
        if not matched:
            raise UsageError(f"`freeze` pattern '{pattern}' matches no parameter; there are: {', '.join(names)}")
        for name in matched:
            names[name].requires_grad_(False)
    if names and not any(p.requires_grad for p in names.values()):
        raise UsageError("`freeze` leaves nothing to train; free at least one parameter")
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(norm: nn.Module, inputs: Any) -> None:
    """A frozen batch norm neither uses nor learns the statistics of the batch."""
    norm.eval()


def training(config: Config) -> Training:
    """How the task is optimised, from optimizer, scheduler, trainer, ema and seed."""
    trainer_config = config["trainer"]
    scheduler = config.get("scheduler") or {}
    return Training(
        optimizer=partial(optimizer, config["optimizer"]),
        scheduler=_schedule(scheduler) if scheduler.get("_target_") else None,
        gradient_clip_val=trainer_config.get("gradient_clip_val"),
        accumulate_grad_batches=trainer_config.get("accumulate_grad_batches", 1),
        ema=config.get("ema"),
        seed=config.get("seed", 0),
    )


def _schedule(node: Config) -> Callable[..., Any]:
    """A factory of schedulers that is told the run's length only where its signature asks for it."""
    make, wanted = component(node), _parameters(node["_target_"])
    return lambda optimizer, **length: make(optimizer, **{k: v for k, v in length.items() if k in wanted})


def optimizer(node: Config, net: nn.Module, lr: float | None = None) -> torch.optim.Optimizer:
    """The optimizer over `net`'s trainable parameters, biases and norms free of weight decay."""
    node = dict(node) if lr is None else {**node, "lr": lr}
    groups = parameter_groups(net, float(node.get("weight_decay") or 0.0))
    make: Callable[..., Any] = component(node)
    made = make(groups)
    if not isinstance(made, torch.optim.Optimizer):
        raise UsageError(f"`optimizer._target_` must be a torch optimizer, got {type(made).__name__}")
    return made


def callbacks(config: Config, monitor: str, mode: str) -> list[pl.Callback]:
    """The callbacks of the config; they watch the run's monitor unless they name their own."""
    nodes = [n for n in (config.get("callbacks") or {}).values() if isinstance(n, dict) and n.get("_target_")]
    return [component(node, monitor=monitor, mode=mode) for node in nodes]


def loggers(config: Config, folder: Path) -> list[Any]:
    """The loggers of the config, writing below the run."""
    nodes = config.get("logger") or {}
    nodes = (
        [nodes] if nodes.get("_target_") else [n for n in nodes.values() if isinstance(n, dict) and n.get("_target_")]
    )
    for node in nodes:
        package = PACKAGES.get(node["_target_"].rpartition(".")[2])
        if package is not None and importlib.util.find_spec(package) is None:
            raise UsageError(f"logger={package} needs {package}; install it with `pip install 'trainctl[{package}]'`")
    return [component(node, save_dir=str(folder)) for node in nodes]


def trainer(
    config: Config, folder: Path, callbacks: Sequence[pl.Callback] = (), loggers: Sequence[Any] = ()
) -> pl.Trainer:
    """A Lightning Trainer that shows, saves and logs nothing by itself; our callbacks do."""
    options = config["trainer"]
    limit = options.get("limit_batches")
    made = pl.Trainer(
        accelerator=options["accelerator"],
        devices=options["devices"],
        strategy=options["strategy"],
        precision=options["precision"],
        max_epochs=options.get("max_epochs"),
        deterministic=options.get("deterministic", False),
        profiler=_profiler(options.get("profiler"), folder),
        limit_train_batches=limit,
        limit_val_batches=limit,
        limit_test_batches=limit,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        # ranks come from our supervisor, also inside a Slurm job
        plugins=[PlainCheckpointIO(), LightningEnvironment()],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        use_distributed_sampler=True,
    )
    # Its SIGTERM handler broadcasts between ranks from wherever the signal came; ours are in place.
    made._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return made


def _profiler(name: str | None, folder: Path) -> Any:
    """Lightning's simple or advanced profiler, which writes `fit-profile.txt` into the run."""
    kinds = {"simple": pl.profilers.SimpleProfiler, "advanced": pl.profilers.AdvancedProfiler}
    return kinds[name](dirpath=folder, filename="profile") if name else None
