"""export: a run's net as one file for other programs, kept only when it gives what the run gives.

The file is written under a temporary name, loaded again by the engine that it is for, and compared on rows of val.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import trainctl
from trainctl import build
from trainctl.compression.base import Artifact
from trainctl.data.base import Data
from trainctl.errors import GateError, UsageError
from trainctl.exporting import onnx_file, parity, torch_file
from trainctl.exporting.ports import Runner
from trainctl.exporting.subjects import Subject, subject
from trainctl.run import files
from trainctl.run.run import Run
from trainctl.tasks.base import Task
from trainctl.verbs import export_file, restore
from trainctl.verbs.evaluate import num_threads
from trainctl.verbs.job import Job, Outcome

log = logging.getLogger("trainctl")


@dataclass(frozen=True)
class Options:
    """The verb's own values, which are checked; opset None: the format's own choice."""

    format: str
    preprocessing: bool
    opset: int | None
    rows: int
    tolerance: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Options:
        """From the config."""
        opset = config["opset"]
        return cls(
            config["format"],
            config["preprocessing"],
            None if opset == "auto" else opset,
            config["rows"],
            config["tolerance"],
        )


def export(job: Job) -> Outcome:
    """Write the source run's net to `arguments["out"]` (by default into the run) and compare it.

    UsageError for what the format or the net cannot, GateError when the file gives other values than the run.
    """
    if job.rank > 0:
        return Outcome({})
    started = time.perf_counter()
    assert job.source is not None
    source, options = job.source, Options.of(job.run.config)
    name = f"model{export_file.SUFFIXES[options.format]}"
    path = Path(job.arguments["out"]) if job.arguments.get("out") else job.run.path / name
    export_file.check_suffix(path, options.format)
    torch.set_num_threads(num_threads(job.run, source))
    data, task = restore.restore(source, job.run.config)
    if not isinstance(task, Task):
        raise UsageError(f"{type(task).__name__} is not of trainctl; `export` needs a built-in task")
    refuse(options, task)
    task.cpu().eval()
    chosen = subject(task, data, options.rows, options.preprocessing, texts=options.format == "onnx")
    job.clock("setup", started)
    started = time.perf_counter()
    content = written(chosen, options, facts(source, task, chosen, options, job.run.config))
    job.clock("export", started)
    started = time.perf_counter()
    with export_file.judged(path, content) as temporary:
        found = parity.compare(loaded(temporary, options, task, job.run.config), chosen.sample, is_class(task))
        found.check(options.tolerance)
    job.clock("compare", started)
    if isinstance(data, Data):
        job.run.update(warnings=list(data.warnings))
    return told(path, content, chosen, options, found)


def is_class(task: Task) -> bool:
    """Whether outputs are figures of classes, not numbers."""
    return task.spec.target == "class"


def refuse(options: Options, task: Task) -> None:
    """UsageError for what a format cannot hold."""
    if isinstance(task.net, Artifact) and options.format != "onnx":
        raise UsageError(
            f"the run's model is `{task.net.file}`, which `format={options.format}` cannot hold; use `format=onnx`"
        )
    if options.format == "safetensors" and options.preprocessing:
        raise UsageError(
            "`format=safetensors` holds weights alone, no preprocessing; leave out `preprocessing=true` or use "
            "`format=onnx` or `format=torch_export`"
        )
    if options.format != "onnx" and options.opset is not None:
        raise UsageError(f"`opset` is of ONNX; leave it out with `format={options.format}`")


def written(chosen: Subject, options: Options, about: Mapping[str, Any]) -> bytes:
    """The file's content."""
    if options.format == "onnx":
        return onnx_file.write(chosen, options.opset, about)
    if options.format == "torch_export":
        return torch_file.write_program(chosen, about)
    return torch_file.write_weights(chosen.net, about)


def loaded(path: Path, options: Options, task: Task, config: dict[str, Any]) -> Runner:
    """The written file, run by what it is for; GateError when that refuses it."""
    try:
        if options.format == "onnx":
            return onnx_file.load(path)
        if options.format == "torch_export":
            return torch_file.load_program(path)
        return torch_file.load_weights(path, lambda: build.net(config, task.spec))
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GateError(f"the written file cannot be loaded again, so nothing was kept: {said}") from error


def facts(source: Run, task: Task, chosen: Subject, options: Options, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says about itself, JSON: no path and no row of the data is in it."""
    found: dict[str, Any] = {
        "trainctl": trainctl.__version__,
        "run": f"{source.verb}/{source.name}",
        "target": task.spec.target_name,
        "inputs": [port.to_dict() for port in chosen.inputs],
        "outputs": [chosen.output.to_dict()],
    }
    if task.spec.classes:
        found["classes"] = list(task.spec.classes)
    if options.format == "safetensors":
        found |= {"model": config["model"], "spec": task.spec.to_dict()}
    return found | chosen.facts


def told(path: Path, content: bytes, chosen: Subject, options: Options, found: parity.Parity) -> Outcome:
    """Lines for the user, and the outcome."""
    size = files.megabytes(len(content))
    about: dict[str, Any] = {
        "format": options.format,
        "preprocessing": options.preprocessing,
        "inputs": [port.to_dict() for port in chosen.inputs],
        "gives": [chosen.output.to_dict()],
        "rows": found.rows,
        "split": found.split,
    }
    opset = ""
    if options.format == "onnx":
        import onnx

        about["opset"] = onnx_file.opset_of(onnx.load_from_string(content))
        opset = f", opset {about['opset']}"
    log.info("in: %s", "; ".join(map(str, chosen.inputs)))
    log.info("out: %s", chosen.output)
    compared = f"compared with the run on {found.rows} rows of {found.split}"
    log.info("%s: %s%s; %s", files.shown(path), size, opset, compared)
    figures: dict[str, float | None] = {"export/max_abs_difference": found.difference}
    if found.agreement is not None:
        figures["export/agreement"] = found.agreement
    figures |= {"export/max_relative_difference": found.relative, "export/bytes": float(len(content))}
    return Outcome(figures, {}, {"export": str(path.absolute())}, {"export": about})
