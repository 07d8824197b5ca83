"""What `prune` and `quantize` do: compress the parent's net, fine-tune it, measure both, write a run like any other.

Without a budget there is one `Attempt`, else as many as the search needs. The run is written from the best of them,
read back as `evaluate` would, and measured in that form.
"""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn

from trainctl.compression.base import node_of, parent_of
from trainctl.errors import UsageError
from trainctl.verbs import budget_search, compression_record, restore
from trainctl.verbs.attempt import Attempt, made
from trainctl.verbs.job import Job, Outcome
from trainctl.verbs.parent import Parent

ROWS = 64  # given to a net twice
SAME = 1e-4  # of the largest output: what threads may change in the last bits of one net's outputs


def compress(job: Job) -> Outcome:
    """The verb: see the module's first lines."""
    started = time.perf_counter()
    if job.resume:
        uncompressed(job)
    parent = Parent.restore(job)
    compressor = made(parent, {})  # refused before any work
    if job.run.verb == "quantize":
        refuse_random(parent.net, parent.calibration[:ROWS])
    job.clock("setup", started)
    started = time.perf_counter()
    found = budget_search.search(parent, compressor)
    job.clock("compress", started)
    keep(parent, found.attempt)
    outcome = compression_record.write(parent, found)
    parent.rounds.forget()
    return outcome


def refuse_random(net: nn.Module, x: Tensor) -> None:
    """UsageError when the net gives other values for the same rows x [N, ...] once more: no figure of it would hold."""
    with torch.inference_mode():
        one, other = net(x), net(x)
    if float((one - other).abs().max()) > SAME * float(one.abs().max()):
        raise UsageError(
            f"the net ({type(net).__name__}) gives other values for the same rows each time, so figures of it and of "
            "what it is quantized to would not hold; draw random numbers in its `forward` only `if self.training`"
        )


def uncompressed(job: Job) -> None:
    """The config that the verb began with: one interrupted after `keep` has the compressed net in it."""
    assert job.source is not None
    run, before = job.run, job.source.config["model"]
    model = run.config["model"]
    if len(model.get("steps", [])) > len(before.get("steps", [])):
        run.rewrite_config({**run.config, "model": parent_of(model)})


def keep(parent: Parent, chosen: Attempt) -> None:
    """Write the chosen net and the config that rebuilds it; from here on the directory can be evaluated."""
    run, config = parent.job.run, parent.job.run.config
    step = {**config["compressor"], **chosen.settings, "plan": chosen.compressor.plan}
    shell = copy.copy(parent.task)
    shell._modules = {**parent.task._modules, "net": chosen.net}
    restore.save_weights(shell, run.path / restore.WEIGHTS, packed=bool(config.get("sparse")))
    run.rewrite_config({**config, "model": node_of(config["model"], step)})
    run.seal()
