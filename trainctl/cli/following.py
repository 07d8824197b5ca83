"""What one would type after a run."""

from __future__ import annotations

from trainctl.check import untrusted_packages
from trainctl.cli import render
from trainctl.launch import MODEL_VERBS
from trainctl.run import directory
from trainctl.run.run import Run


def next_commands(run: Run) -> list[str]:
    """Whole commands; a run with classes of others needs `--trust`, and only our data modules and tasks can predict."""
    name = render.quoted(run.path)
    trust = "".join(f" --trust {package}" for package in untrusted_packages(run.config))
    if run.verb == "compress" and isinstance(run.record.get("best"), str):
        best = render.quoted(run.path / run.record["best"])
        return [f"trainctl evaluate {best}{trust}", f"trainctl export {best} format=onnx{trust}"]
    if run.status in ("stopped", "crashed") and run.verb in (*MODEL_VERBS, "compress"):
        return [f"trainctl {run.verb} --resume {name}{trust}"]
    if run.verb not in MODEL_VERBS:
        return [f"trainctl show {name}"]
    if run.status != "completed":
        return []
    child = [render.quoted(path) for path in directory.child_paths(run.path)[:1]]
    net = child[0] if child else name
    commands = [f"trainctl evaluate {net}{trust}"]
    if all(_is_ours(run, section) for section in ("data", "task")):
        commands.append(f"trainctl predict {net} FILE -o predictions.csv{trust}")
    if run.verb != "train":
        commands.append(f"trainctl export {net} format=onnx{trust}")
    return commands


def _is_ours(run: Run, section: str) -> bool:
    return str((run.config.get(section) or {}).get("_target_", "")).startswith("trainctl.")
