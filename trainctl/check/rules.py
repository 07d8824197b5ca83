"""What each value of our own config vocabulary must be, as one table; a rule returns what is wrong, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from trainctl.errors import did_you_mean

Rule = Callable[[Any], str | None]


def shown(value: Any) -> str:
    """A value as a sentence names it: texts quoted and said to be texts, the rest as YAML writes it."""
    if isinstance(value, str):
        return f"the text '{value}'"
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if _is_word(value) else str(value)


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    words: Sequence[str | None] = (),
) -> Rule:
    """A finite number within bounds, or one of `words`."""
    bounds = []
    if low > -math.inf:
        bounds.append(f"{'>' if open_low else '≥'} {low:g}")
    if high < math.inf:
        bounds.append(f"{'<' if open_high else '≤'} {high:g}")

    def rule(value: Any) -> str | None:
        if _in_words(value, words):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            got = f"'{value}'" if isinstance(value, str) else shown(value)
            return f"must be a finite number{_or(words)}, got {got}"
        low_ok = value > low if open_low else value >= low
        high_ok = value < high if open_high else value <= high
        return None if low_ok and high_ok else f"must be {' and '.join(bounds)}{_or(words)}, got {value}"

    return rule


def whole(low: int, high: int | None = None, *, words: Sequence[str | None] = ()) -> Rule:
    """A whole number of at least `low`, or one of `words`."""

    def rule(value: Any) -> str | None:
        if _in_words(value, words):
            return None
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= low
        if fits and (high is None or value <= high):
            return None
        limit = f"≥ {low}" if high is None else f"from {low} to {high}"
        return f"must be a whole number {limit}{_or(words)}, got {shown(value)}"

    return rule


def truth(value: Any) -> str | None:
    """true or false, unquoted."""
    return None if isinstance(value, bool) else f"must be true or false (unquoted), got {shown(value)}"


def one_of(*words: str | int | None) -> Rule:
    """One of a few words; a typo is answered with the nearest."""

    def rule(value: Any) -> str | None:
        if _in_words(value, words):
            return None
        names = [str(word) for word in words if word is not None]
        got = f"'{value}'" if isinstance(value, str) else shown(value)
        null = " (or null)" if None in words else ""
        return f"must be one of {', '.join(names)}{null}, got {got}{did_you_mean(str(value), names)}"

    return rule


def duration(value: Any) -> str | None:
    """null, seconds, `90s`, `10m`, `1h30m`, `2d`, or `DD:HH:MM:SS`."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
        return None
    spelled = isinstance(value, str) and re.fullmatch(
        r"(?=.)(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s?)?|\d+(:\d+){1,3}", value.replace(" ", "")
    )
    return None if spelled else f"must be a duration such as 10m, 1h30m or 00:01:30:00, got {shown(value)}"


def text(value: Any) -> str | None:
    """A text that is not empty."""
    return None if isinstance(value, str) and value else f"must be a text, got {shown(value)}"


def text_or_null(value: Any) -> str | None:
    """A text, or null."""
    return None if value is None else text(value)


def each(rule: Rule) -> Rule:
    """The rule for a single value, or for every item of a list."""
    return lambda value: next(filter(None, map(rule, value if isinstance(value, list) else [value])), None)


def texts(value: Any) -> str | None:
    """A list of texts."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return None
    return f"must be a list such as [a,b], got {shown(value)}"


def positive_list(value: Any) -> str | None:
    """A list of whole numbers >= 1."""
    if isinstance(value, list) and value and all(whole(1)(item) is None for item in value):
        return None
    return f"must be a list of whole numbers ≥ 1 such as [128,128], got {shown(value)}"


def devices(value: Any) -> str | None:
    """A number of processes, `auto`, or a list of GPU numbers."""
    if isinstance(value, list) and value and all(whole(0)(item) is None for item in value):
        return None
    return whole(1, words=("auto",))(value)


def calibration_split(value: Any) -> str | None:
    """train: the other splits judge what was made."""
    if value == "train":
        return None
    why = "the test split would no longer be unseen" if value == "test" else "val and test judge the result"
    return f"must be train, since {why}, got {shown(value)}"


_POSITIVE = number(0, open_low=True)
_NOT_NEGATIVE = number(0)
_SHARE = number(0, 1, open_high=True)
_OPEN_SHARE = number(0, 1, open_low=True, open_high=True, words=(None,))
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true", "bf16-true", "16-true", 32, 64)

RULES: dict[str, Rule] = {
    "seed": whole(0, 2**32 - 1),
    "compile": truth,
    "ema": _OPEN_SHARE,
    "freeze": texts,
    "train.mode": one_of("auto", "min", "max"),
    "train.folds": whole(2, words=(None,)),
    "train.seeds": whole(2, words=(None,)),
    "train.test": truth,
    "train.bootstrap": whole(0),
    "tune.trials": whole(1, words=(None,)),
    "tune.timeout": duration,
    "tune.jobs": whole(1, words=("auto",)),
    "tune.objective": each(text),
    "tune.direction": each(one_of("auto", "min", "max")),
    "tune.folds": whole(2, words=(None,)),
    "tune.seeds": whole(2, words=(None,)),
    "tune.trial_timeout": duration,
    "tune.max_failure_rate": number(0, 1),
    "tune.executor": one_of("auto", "pool", "vectorized"),
    "tune.stack": whole(1),
    "tune.storage": text_or_null,
    "tune.study": text_or_null,
    "tune.heartbeat": number(1),
    "tune.refit": truth,
    "sampler.name": one_of("tpe", "random", "grid", "qmc", "gp", "cmaes", "nsga2"),
    "sampler.n_startup_trials": whole(0),
    "sampler.n_ei_candidates": whole(1),
    "sampler.multivariate": truth,
    "sampler.group": truth,
    "sampler.constant_liar": truth,
    "sampler.qmc_type": one_of("sobol", "halton"),
    "sampler.scramble": truth,
    "sampler.deterministic_objective": truth,
    "sampler.popsize": whole(2, words=(None,)),
    "sampler.use_separable_cma": truth,
    "sampler.with_margin": truth,
    "sampler.lr_adapt": truth,
    "sampler.consider_pruned_trials": truth,
    "sampler.population_size": whole(2),
    "sampler.mutation_prob": number(0, 1, words=(None,)),
    "sampler.crossover_prob": number(0, 1),
    "sampler.swapping_prob": number(0, 1),
    "stopper.name": one_of("none", "median", "asha", "hyperband"),
    "stopper.n_startup_trials": whole(0),
    "stopper.n_warmup_steps": whole(0),
    "stopper.interval_steps": whole(1),
    "stopper.n_min_trials": whole(1),
    "stopper.min_resource": whole(1, words=("auto",)),
    "stopper.max_resource": whole(1, words=("auto",)),
    "stopper.reduction_factor": whole(2),
    "stopper.min_early_stopping_rate": whole(0),
    "stopper.bootstrap_count": whole(0),
    "data.batch_size": whole(1),
    "data.eval_batch_size": whole(1, words=(None,)),
    "data.drop_last": truth,
    "data.target_kind": one_of("auto", "class", "number"),
    "data.missing": one_of("error", "impute"),
    "data.missing_target": one_of("error", "drop"),
    "data.scaling": one_of("both", "quantile", "standard", "none"),
    "data.max_categories": whole(1),
    "data.min_count": whole(1),
    "data.max_tokens": whole(1),
    "data.sequence_length": whole(1, words=("auto",)),
    "data.split.kind": one_of("auto", "random", "stratified", "group", "time", "hash", "column"),
    "data.split.val": _SHARE,
    "data.split.test": _SHARE,
    "data.split.folds": whole(2, words=(None,)),
    "data.split.fold": whole(0, words=(None,)),
    "data.split.fold_as": one_of("test", "val"),
    "model.hidden_dims": positive_list,
    "model.dropout": _SHARE,
    "model.activation": one_of("relu", "gelu", "silu", "tanh"),
    "model.norm": one_of("none", "batch", "layer"),
    "model.num_layers": whole(1, words=(None,)),
    "model.num_blocks": whole(1),
    "model.channels": positive_list,
    "model.block": one_of("plain", "residual", "separable"),
    "model.kernel": one_of(1, 3, 5, 7),
    "model.num_trees": whole(1),
    "model.max_depth": whole(1, words=(None,)),
    "model.min_samples_leaf": whole(1),
    "model.max_features": number(0, 1, open_low=True, words=("auto", "sqrt", "log2", None)),
    "task.label_smoothing": _SHARE,
    "task.l1": _NOT_NEGATIVE,
    "optimizer.lr": number(0, open_low=True, words=("auto",)),
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _SHARE,
    "optimizer.eps": _POSITIVE,
    "scheduler.warmup": _NOT_NEGATIVE,
    "scheduler.gamma": _POSITIVE,
    "scheduler.factor": number(0, 1, open_low=True, open_high=True),
    "scheduler.every": whole(1),
    "scheduler.patience": whole(0),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.devices": devices,
    "trainer.strategy": one_of("auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"),
    "trainer.precision": one_of(*PRECISIONS),
    "trainer.max_epochs": whole(1),
    "trainer.max_time": duration,
    "trainer.threads": whole(1, words=("auto",)),
    "trainer.gradient_clip_val": number(0, open_low=True, words=(None,)),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.deterministic": truth,
    "trainer.limit_batches": whole(1, words=(None,)),
    "trainer.reshuffle": truth,
    "trainer.profiler": one_of("simple", "advanced", None),
    "trainer.oversubscribe": truth,
    "callbacks.early_stopping.patience": whole(1),
    "callbacks.early_stopping.min_delta": _NOT_NEGATIVE,
    "split": one_of("test", "val", "train"),
    "evaluate.slices": texts,
    "evaluate.bootstrap": whole(0),
    "evaluate.threshold": number(
        0, 1, open_low=True, open_high=True, words=("auto", "f1", "balanced_accuracy", "youden", None)
    ),
    "evaluate.seed": whole(0, 2**32 - 1),
    "predict.threshold": number(0, 1, open_low=True, open_high=True, words=(None,)),
    "predict.keep": texts,
    "predict.rows": whole(1),
    "compressor.alpha": number(0, words=(None,)),
    "format": one_of("onnx", "torch_export", "safetensors"),
    "preprocessing": truth,
    "opset": whole(17, 24, words=("auto",)),
    "rows": whole(1),
    "tolerance": number(0, open_low=True),
    **dict.fromkeys(("finetune", "distill", "sparse", "strict"), truth),
    "backend": one_of("auto", "onnxruntime", "torch"),
    "objective": text,
    "calibration.rows": whole(2),
    "calibration.split": calibration_split,
    "measure.calls": whole(1),
    "measure.seconds": _POSITIVE,
    "measure.bootstrap": whole(0),
    "measure.batch": whole(1),
    "compressor.amount": number(0, 1, open_low=True, open_high=True),
    "compressor.scope": one_of("global", "layer", "lamp"),
    "compressor.schedule": one_of("once", "gradual"),
    "compressor.pattern": one_of("2:4", "4:8"),
    "compressor.embeddings": truth,
    "compressor.backend": one_of("auto", "onnxruntime", "torch"),
    "compressor.reduce_range": truth,
    "compressor.block_size": one_of(16, 32, 64, 128, 256),
    "compressor.exclude": texts,
    "compressor.target": one_of("channels", "macs"),
    "compressor.importance": one_of("magnitude", "taylor", "batchnorm"),
    "compressor.global_ranking": truth,
    "compressor.rounds": whole(1),
    "compressor.round_to": whole(1, words=(None,)),
    "measure.test": truth,
    "compress.epochs": whole(1, words=(None,)),
    "compress.max_time": duration,
    "compress.quantizers": texts,
}


def _or(words: Sequence[str | int | None]) -> str:
    named = [str(word) for word in words if word is not None]
    return f" or {' or '.join(named)}" if named else ""


def _in_words(value: Any, words: Sequence[str | int | None]) -> bool:
    return any(value == word and type(value) is type(word) for word in words)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)
