"""What a config that comes out of a run directory may name: our own components and well-known inert classes.

A run directory may be a stranger's. `_target_` there would call anything importable, so a list admits what is known to
build what a run needs; nothing that loads weights, runs commands or calls what it is given is on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainctl.errors import RunError

# Ours by module: what is configured lives in these; launching, run directories and files are out of reach.
OURS = (
    "trainctl.models.",
    "trainctl.tasks.",
    "trainctl.data.",
    "trainctl.compression.",
    "trainctl.callbacks.",
    "trainctl.optimizers.",
    "trainctl.schedulers.",
    "trainctl.metrics.",
)
LISTED = frozenset(
    f"{module}.{name}"
    for module, names in {
        "torch.nn": """AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveMaxPool1d AdaptiveMaxPool2d AvgPool1d AvgPool2d
            BCEWithLogitsLoss BatchNorm1d BatchNorm2d BatchNorm3d Bilinear CELU Conv1d Conv2d Conv3d ConvTranspose1d
            ConvTranspose2d ConvTranspose3d CrossEntropyLoss Dropout Dropout1d Dropout2d ELU Embedding EmbeddingBag
            Flatten GELU GRU GroupNorm Hardswish HuberLoss Identity InstanceNorm1d InstanceNorm2d L1Loss LSTM LayerNorm
            LeakyReLU Linear LogSoftmax MSELoss MaxPool1d MaxPool2d Mish ModuleDict ModuleList MultiheadAttention
            NLLLoss PReLU PixelShuffle RMSNorm RNN ReLU ReLU6 SELU Sequential SiLU Sigmoid SmoothL1Loss Softmax
            Softplus Tanh Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder
            TransformerEncoderLayer Unflatten Upsample""",
        "torch.optim": "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam RAdam RMSprop Rprop SGD",
        "torch.optim.lr_scheduler": """ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR
            LinearLR MultiStepLR OneCycleLR PolynomialLR ReduceLROnPlateau StepLR""",
        "torchmetrics": """AUROC Accuracy AveragePrecision CalibrationError CohenKappa ConfusionMatrix F1Score
            MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError Precision R2Score Recall Specificity""",
        "pytorch_lightning.callbacks": """EarlyStopping GradientAccumulationScheduler LearningRateMonitor ModelSummary
            StochasticWeightAveraging Timer""",
        "pytorch_lightning.loggers": "CSVLogger MLFlowLogger TensorBoardLogger WandbLogger",
    }.items()
    for name in names.split()
)


def refuse_untrusted(config: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """RunError unless every `_target_` of a run directory's config is on the list or below a package of `trust`."""
    for key, target in _targets(config):
        if target is None or _is_listed(target) or any(_is_below(target, package) for package in trust):
            continue
        if not isinstance(target, str):
            raise RunError(f"`{key}` of the run's config must be a dotted path, got {type(target).__name__}; refused")
        package = target.split(".")[0]
        raise RunError(
            f"the run's config names `{target}` (`{key}`), which is not on the list of trusted components; "
            f"pass `--trust {package}` if you trust that package and where the run comes from"
        )


def untrusted_packages(config: Mapping[str, Any]) -> list[str]:
    """The packages of others that a run's config needs `--trust` for."""
    targets = [target for _, target in _targets(config) if isinstance(target, str) and target not in LISTED]
    return sorted({target.split(".")[0] for target in targets} - {"trainctl"})


def _is_listed(target: Any) -> bool:
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        return False
    private = any(part.startswith("_") for part in target.split("."))
    return target in LISTED or (target.startswith(OURS) and not private and _is_component(target))


def _is_component(target: str) -> bool:
    """Whether a path below our packages leads to something defined there, not to what its module imports."""
    from trainctl.check.signatures import locate

    found = locate(target)
    return found.kind == "node" and found.module is not None and found.module.name.startswith("trainctl.")


def _is_below(target: Any, package: str) -> bool:
    return isinstance(target, str) and (target == package or target.startswith(f"{package}."))


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            path = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield path, child
            yield from _targets(child, path)
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _targets(child, f"{key}[{index}]")
