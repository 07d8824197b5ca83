"""trainer=fsdp: weights, gradients and optimizer state sharded over ranks; checkpoints stay whole files.

Lightning would wrap the whole task and expects the backward pass after `training_step`, in which a task trains
already: so the net alone is wrapped. It would also unpickle checkpoints; here they come through the checkpoint plugin.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import FSDPStrategy, StrategyRegistry
from torch import nn

from trainctl.errors import UsageError

UNIT_PARAMETERS = 1_000_000  # a submodule of so many parameters is gathered and freed by itself


class Sharded(FSDPStrategy):
    """FSDP for tasks, with whole checkpoints of tensors and built-ins."""

    def _setup_model(self, model: nn.Module) -> nn.Module:
        if hasattr(model, "training_options"):  # a task of ours
            with self.model_sharded_context():
                model.net = sharded(model, self.root_device)
        return super()._setup_model(model)

    def on_validation_start(self) -> None:
        """All ranks evaluate with the buffers (batch-norm statistics) that rank 0 will save."""
        assert self.model is not None
        for buffer in self.model.buffers():
            dist.broadcast(buffer, src=0)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Put net and optimizer state into the shards; returns the rest."""
        from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
        from torch.distributed.fsdp import OptimStateKeyType, StateDictType
        from torch.distributed.fsdp.api import FullOptimStateDictConfig, FullStateDictConfig

        assert self.model is not None
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        whole = FullStateDictConfig(rank0_only=False), FullOptimStateDictConfig(rank0_only=False)
        with FSDP.state_dict_type(self.model, StateDictType.FULL_STATE_DICT, *whole):
            self.model.load_state_dict(checkpoint.pop("state_dict"))
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=False):
                named = FSDP.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
                optimizer.load_state_dict(FSDP.optim_state_dict_to_load(self.model, optimizer, named))
        return checkpoint


# `Trainer(strategy="fsdp")` means ours
StrategyRegistry.register("fsdp", Sharded, description="FSDP for tasks", override=True)


def sharded(task: Any, device: torch.device) -> nn.Module:
    """The task's net in shards, once; UsageError for what needs whole weights."""
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy, wrap

    net: nn.Module = task.net
    if isinstance(net, FSDP):
        return net
    options = task.training_options
    for key, wanted in (("ema", options is not None and options.ema is not None), ("task.l1", task.l1)):
        if wanted:
            raise UsageError(f"`{key}` needs whole weights, which `trainer.strategy=fsdp` cuts in shards; leave it out")
    for parameter in net.parameters():
        parameter.whole_ndim = parameter.ndim  # type: ignore[attr-defined]  # a shard is a vector
    policy = partial(size_based_auto_wrap_policy, min_num_params=UNIT_PARAMETERS)
    made: nn.Module = wrap(net, auto_wrap_policy=policy, device_id=device)
    return made


def clip_gradients(net: Any, parameters: list[nn.Parameter], limit: float) -> None:
    """Scale the gradients down to the norm `limit`; over all shards when the net is sharded."""
    if hasattr(net, "clip_grad_norm_"):
        net.clip_grad_norm_(limit)
    else:
        nn.utils.clip_grad_norm_(parameters, limit)
