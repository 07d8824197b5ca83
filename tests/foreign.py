"""Someone's package, written for plain Lightning; tests/test_foreign.py puts it beside its runs.

Nothing in here knows trainctl.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Blobs(pl.LightningDataModule):
    """Two classes around two points; loaders as in Lightning's tutorials."""

    def __init__(self, rows: int = 240, batch: int = 16) -> None:
        super().__init__()
        self.rows, self.batch = rows, batch

    def setup(self, stage: str | None = None) -> None:
        generator = torch.Generator().manual_seed(1)
        y = torch.arange(self.rows) % 2
        x = torch.randn(self.rows, 4, generator=generator) + 1.5 * y.unsqueeze(1)
        cut = self.rows // 2
        self.train, self.rest = TensorDataset(x[:cut], y[:cut]), TensorDataset(x[cut:], y[cut:])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=self.batch, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rest, batch_size=self.batch)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.rest, batch_size=self.batch)


class Classifier(pl.LightningModule):
    """Automatic optimisation, dropout, a scheduler, metrics under names of its own."""

    def __init__(self, width: int = 16, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        output = self(batch[0])
        self.log("val_loss", F.cross_entropy(output, batch[1]))
        self.log("val_acc", (output.argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


class Silent(Classifier):
    """Logs nothing in validation."""

    def validation_step(self, batch, batch_idx):
        pass


class Wide(nn.Module):
    """A net that knows nothing of specs."""

    def __init__(self, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))


class Lazy(Wide):
    """The same with layers that learn their width from the first rows."""

    def __init__(self, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__(inputs, outputs, width)
        self.first, self.last = nn.LazyLinear(width), nn.LazyLinear(outputs)


class Signed(torch.optim.Optimizer):
    """Steps of one size in the direction of the gradient's sign."""

    def __init__(self, params, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad.sign()


class Say(pl.Callback):
    """Writes what it sees to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{trainer.current_epoch}\n")


class Lines(pl.loggers.logger.Logger):
    """A logger that appends lines to a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    name, version = "lines", "0"

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        pass

    def log_metrics(self, metrics, step=None) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{step} {sorted(metrics)}\n")
