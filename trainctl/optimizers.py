"""What an optimizer is built on: parameters grouped by whether weight decay applies, and optimizers torch lacks."""

from __future__ import annotations

from typing import Any

from torch import nn

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


def parameter_groups(net: nn.Module, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Optimizer groups of `net`'s trainable parameters: those that decay, then those that do not.

    Biases, norms, embeddings and every other parameter of fewer than two dimensions do not decay; frozen parameters
    (requires_grad False) are left out, a shared one counts once, and an empty group is dropped.
    """
    exempt = {
        parameter
        for module in net.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, *_NORMS))
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in net.parameters():
        if parameter.requires_grad:
            (spared if parameter.ndim < 2 or parameter in exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
