"""The spec of someone else's data module, read off its batches."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from trainctl.data.foreign import infer_spec
from trainctl.data.spec import DataSpec
from trainctl.errors import DataError


class Foreign(pl.LightningDataModule):
    """Serves the given tensors; knows nothing of trainctl."""

    def __init__(self, *tensors: Tensor, **attributes: Any) -> None:
        super().__init__()
        self.tensors, self.stages = tensors, []  # type: ignore[var-annotated]
        vars(self).update(attributes)

    def setup(self, stage: str) -> None:
        self.stages.append(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*self.tensors), batch_size=8)


CLASSES = torch.arange(20) % 3


def test_an_image_of_classes() -> None:
    module = Foreign(torch.rand(20, 3, 8, 9), CLASSES)
    assert infer_spec(module) == DataSpec("image", "class", classes=("0", "1", "2"), image_shape=(3, 8, 9))
    assert module.stages == ["fit"]


def test_a_table_of_numbers_with_their_scale() -> None:
    spec = infer_spec(Foreign(torch.rand(20, 2), torch.arange(20.0)))
    assert (spec.kind, spec.target, spec.numeric) == ("table", "number", ("x0", "x1"))
    assert spec.target_mean == pytest.approx(9.5)
    assert spec.target_std == pytest.approx(float(torch.arange(20.0).std(correction=0)))
    assert infer_spec(Foreign(torch.rand(20, 2), torch.ones(20))).target_std == 1.0


def test_a_sequence_counts_its_tokens_or_is_told() -> None:
    x = torch.arange(100).view(20, 5)
    assert infer_spec(Foreign(x, CLASSES)) == DataSpec(
        "sequence", "class", classes=("0", "1", "2"), sequence_length=5, num_tokens=100
    )
    assert infer_spec(Foreign(x, CLASSES, num_tokens=500)).num_tokens == 500


def test_attributes_and_an_own_spec_win() -> None:
    assert len(infer_spec(Foreign(torch.rand(20, 2), CLASSES, num_classes=7)).classes) == 7
    own = DataSpec("table", "class", classes=("a", "b"), numeric=("u", "v"))
    assert infer_spec(Foreign(torch.rand(20, 2), CLASSES, spec=own)) is own
    assert infer_spec(Foreign(torch.rand(20, 2), torch.zeros(20, dtype=torch.int64))).classes == ("0", "1")


def test_a_trainer_is_attached_for_modules_that_ask_it() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module = Foreign(torch.rand(20, 2), CLASSES)
    infer_spec(module, trainer)
    assert module.trainer is trainer


class Dicts(Foreign):
    def train_dataloader(self) -> Any:
        return [{"x": self.tensors[0], "y": self.tensors[1]}]


class Odd(Foreign):
    def train_dataloader(self) -> Any:
        return self.batches


def test_a_dictionary_of_two_is_a_pair() -> None:
    assert infer_spec(Dicts(torch.rand(20, 2), CLASSES)).numeric == ("x0", "x1")


HINT = "give the data module a `spec` attribute (trainctl.data.spec.DataSpec), or name your own task"


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (Odd(batches=[]), "the training loader of Odd gives no batch; it must give pairs (x, y)"),
        (
            Odd(batches=[torch.rand(3, 2)]),
            f"a training batch of Odd is one tensor [3, 2], not a pair of tensors (x, y); {HINT}",
        ),
        (
            Odd(batches=[(torch.rand(3, 2),) * 3]),
            f"a training batch of Odd is 3 parts, not a pair of tensors (x, y); {HINT}",
        ),
        (Odd(batches=["text"]), f"a training batch of Odd is str, not a pair of tensors (x, y); {HINT}"),
        (
            Foreign(torch.rand(20, 2, 3), CLASSES),
            "x of Foreign has shape [8, 2, 3] and type torch.float32; it must be an image [B, C, H, W], "
            f"a float table [B, N] or a sequence of whole numbers [B, L]; {HINT}",
        ),
        (
            Foreign(torch.rand(20, 2), torch.rand(20, 1)),
            f"y of Foreign has shape [8, 1]; it must be [B]; {HINT}",
        ),
        (
            Foreign(torch.rand(20, 2), CLASSES, num_classes=2),
            "y of Foreign goes from 0 to 2; classes must be 0 to 1",
        ),
        (Foreign(torch.rand(20, 2), CLASSES - 1), "y of Foreign goes from -1 to 1; classes must be 0 to 1"),
    ],
)
def test_what_cannot_be_described_gets_a_sentence(module: pl.LightningDataModule, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        infer_spec(module)
    assert str(caught.value) == sentence
