"""The trial that every system runs, and what trainctl is compared with.

    python work.py table FOLDER                 writes table.parquet: 10 000 train rows, 2 000 val, 100 test; 30 numbers
    python work.py SYSTEM FOLDER TRIALS [SEED]  runs so many trials; SYSTEM is one of the functions at the end

A trial: one hidden layer of 64, two classes, AdamW (fused), batch 256, 5 epochs, one thread, its own learning rate.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

COLUMNS, TRAIN, VAL, TEST = 30, 10_000, 2_000, 100
EPOCHS, BATCH = 5, 256
Parts = dict[str, tuple[Tensor, Tensor]]


def table(folder: Path) -> None:
    """The same rows for everybody."""
    import polars as pl

    random = np.random.default_rng(0)
    rows = TRAIN + VAL + TEST
    x = random.normal(size=(rows, COLUMNS)).astype(np.float32)
    score = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * x[:, 3:8].sum(1) + 0.6 * random.logistic(size=rows)
    columns = {f"x{i:02}": x[:, i] for i in range(COLUMNS)}
    part = np.repeat(["train", "val", "test"], [TRAIN, VAL, TEST])
    frame = pl.DataFrame({**columns, "y": np.where(score > 0, "yes", "no"), "part": part})
    frame.write_parquet(folder / "table.parquet")


def read(folder: Path) -> Parts:
    """Train and val as tensors in memory: x [N, 30] float32, y [N] of 0 and 1."""
    import polars as pl

    frame, parts = pl.read_parquet(folder / "table.parquet"), {}
    for name in ("train", "val"):
        part = frame.filter(pl.col("part") == name)
        x = part.select([f"x{i:02}" for i in range(COLUMNS)]).to_numpy().astype(np.float32)
        parts[name] = torch.tensor(x), torch.tensor((part["y"] == "yes").to_numpy().astype(np.int64))
    return parts


def rate(number: int) -> float:
    """The learning rate of a trial: 1e-4 to 1e-1 in 32 steps."""
    return float(10 ** (-4 + 3 * (number % 32) / 31))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 2))


def loop(parts: Parts, lr: float, seed: int = 0, validate: bool = False, fused: bool = True) -> float:
    """One trial by hand: no logging, nothing written. Validation loss of the last epoch, or nan without validation."""
    torch.manual_seed(seed)
    model, value = net(), float("nan")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=fused or None)
    x, y = parts["train"]
    for _epoch in range(EPOCHS):
        order = torch.randperm(len(x))
        for begin in range(0, len(x), BATCH):
            rows = order[begin : begin + BATCH]
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if validate:
            with torch.no_grad():
                value = F.cross_entropy(model(parts["val"][0]), parts["val"][1]).item()
    return value


def lightning(parts: Parts, lr: float, seed: int, folder: str, bare: bool = False) -> float:
    """One trial with Lightning as it is mostly written: DataLoader, `self.log`, validation, CSV log, best checkpoint.

    bare: Lightning and a DataLoader with nothing logged, validated or saved.
    """
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger
    from torch.utils.data import DataLoader, TensorDataset
    from torchmetrics.classification import MulticlassAccuracy

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.accuracy = net(), MulticlassAccuracy(2, average="micro")

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            if not bare:
                self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            output = self.net(batch[0])
            self.accuracy(output, batch[1])
            self.log("val/loss", F.cross_entropy(output, batch[1]))
            self.log("val/accuracy", self.accuracy)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=lr, fused=True)

    pl.seed_everything(seed)
    loaders = [DataLoader(TensorDataset(*parts["train"]), BATCH, shuffle=True)]
    if not bare:
        loaders.append(DataLoader(TensorDataset(*parts["val"]), BATCH))
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False if bare else CSVLogger(folder),
        callbacks=[] if bare else [ModelCheckpoint(folder, monitor="val/loss")],
        enable_checkpointing=not bare,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), *loaders)
    return float(trainer.callback_metrics.get("val/loss", float("nan")))


def quiet() -> None:
    """One thread, and no remarks of Lightning's."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


# The systems: each runs `trials` trials, printing nothing


def plain(parts: Parts, trials: int, seed: int) -> None:
    for number in range(trials):
        loop(parts, rate(number), seed)


def plain_default(parts: Parts, trials: int, seed: int) -> None:
    """With the optimizer that one gets without saying fused=True."""
    for number in range(trials):
        loop(parts, rate(number), seed, fused=False)


def plain_validated(parts: Parts, trials: int, seed: int) -> None:
    for number in range(trials):
        loop(parts, rate(number), seed, validate=True)


def lightning_loop(parts: Parts, trials: int, seed: int) -> None:
    for number in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            lightning(parts, rate(number), seed, folder)


def optuna(parts: Parts, trials: int, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    study.optimize(lambda t: loop(parts, t.suggest_float("lr", 1e-4, 1e-1, log=True), seed, validate=True), trials)


def ray(parts: Parts, trials: int, seed: int, reuse: bool = True) -> None:
    """Ray Tune, two workers of one core that it keeps, around the loop with validation; data in its object store."""
    import ray
    from ray import tune

    def trial(config: dict[str, float], parts: Parts) -> dict[str, float]:
        torch.set_num_threads(1)
        return {"loss": loop(parts, config["lr"], seed, validate=True)}

    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        run = tune.RunConfig(storage_path=folder, verbose=0)
        sampling = tune.TuneConfig(num_samples=trials, max_concurrent_trials=2, reuse_actors=reuse)
        space = {"lr": tune.loguniform(1e-4, 1e-1)}
        tuner = tune.Tuner(
            tune.with_parameters(trial, parts=parts), param_space=space, tune_config=sampling, run_config=run
        )
        assert not tuner.fit().errors
    ray.shutdown()


def ray_processes(parts: Parts, trials: int, seed: int) -> None:
    """Ray Tune as it is without `reuse_actors`."""
    ray(parts, trials, seed, reuse=False)


_ALL = (plain, plain_default, plain_validated, lightning_loop, optuna, ray, ray_processes)
SYSTEMS = {f.__name__: f for f in _ALL}

if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "table":
        table(where)
    else:
        quiet()
        SYSTEMS[what](read(where), int(sys.argv[3]), int((sys.argv[4:] or ["0"])[0]))
