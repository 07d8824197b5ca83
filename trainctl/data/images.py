"""Images that come as arrays: `digits` and `fashion_mnist`, and what all image data share.

Images are kept as uint8 [N, C, H, W]; the task normalises them with the mean and std of the training split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainctl.data.augment import build_augment
from trainctl.data.base import SPLITS, Chunk, Data, Split
from trainctl.data.idx import read_idx
from trainctl.data.image_files import stream_images
from trainctl.data.spec import DataSpec
from trainctl.errors import DataError

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_SOURCE = "https://github.com/zalandoresearch/fashion-mnist"


class ImageData(Data):
    """What all image data share: a spec with the mean and std of train, augmentation, folders of new images."""

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        augment: dict[str, Any] | None = None,
        split: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, drop_last, split, seed)
        self.augment_config = augment

    def fit_spec(self, train: Tensor, classes: tuple[str, ...]) -> None:
        """Set spec (unless restored) and augmentation from the training images [N, C, H, W] uint8."""
        channels, height, width = train.shape[1:]
        if not self.restored:
            mean, std = channel_statistics(train)
            self.spec = DataSpec(
                kind="image",
                target="class",
                target_name="class",
                classes=classes,
                image_shape=(channels, height, width),
                mean=mean,
                std=std,
            )
        self.augment = build_augment(self.augment_config, len(classes), (height, width))

    def describe_source(self) -> dict[str, Any]:
        """Shape and classes."""
        return {"image_shape": list(self.spec.image_shape or ()), "classes": list(self.spec.classes)}

    def setup(self, stage: str | None = None) -> None:
        """As for all data; images of val or test that train also has are counted once, as a warning."""
        first = self._splits is None
        super().setup(stage)
        if first:
            self.warnings += shared_images({name: self.split(name) for name in SPLITS})

    def stream(self, path: Path | str, rows: int = 65536, with_target: bool | None = None) -> Iterator[Chunk]:
        """Images below a folder (or one file), in the spec's size and channels; y when they lie in class folders."""
        return stream_images(Path(path), self.spec, rows, with_target)


class Digits(ImageData):
    """1 797 handwritten digits, 8x8 grey; they come with scikit-learn."""

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits  # takes 0.8 s, so only when it is wanted

        source = load_digits()
        x = torch.from_numpy((source.images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
        classes = tuple(str(name) for name in source.target_names)
        rows = self.split_plain(len(x), source.target, classes)
        splits = take_splits(x, torch.from_numpy(source.target.astype(np.int64)), rows)
        self.fit_spec(splits["train"].x, classes)
        return splits


class FashionMnist(ImageData):
    """70 000 photos of clothes, 28x28 grey: val is taken from the 60 000 of train, test is the official one.

    Reads the four IDX files in `root`/fashion_mnist or `root`, as they are published (.gz) or unpacked. Rows count
    through train and then test. With `split.folds`, folds are cut from train and the official test stays out.
    """

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        augment: dict[str, Any] | None = None,
        split: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, drop_last, augment, split, seed)
        self.root = Path(root)

    def load(self) -> dict[str, Split]:
        x, y = self._read("train")
        rows = self.split_plain(len(x), y.numpy(), FASHION_CLASSES, given=frozenset({"test"}))
        splits = take_splits(x, y, rows)
        if "test" not in splits:
            test_x, test_y = self._read("t10k")
            splits["test"] = Split(test_x, test_y, np.arange(len(x), len(x) + len(test_x), dtype=np.int64))
        self.fit_spec(splits["train"].x, FASHION_CLASSES)
        return splits

    def _read(self, prefix: str) -> tuple[Tensor, Tensor]:
        images = read_idx(self._find(f"{prefix}-images-idx3-ubyte"))
        labels = read_idx(self._find(f"{prefix}-labels-idx1-ubyte"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"`{prefix}-images-idx3-ubyte` has shape {list(images.shape)} and `{prefix}-labels-idx1-ubyte` "
                f"{list(labels.shape)}; they must be [N, height, width] and [N]: fetch both again from {FASHION_SOURCE}"
            )
        if labels.max(initial=0) >= len(FASHION_CLASSES):
            raise DataError(f"`{prefix}-labels-idx1-ubyte` has a label {labels.max()}; labels must be 0 to 9")
        return torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))

    def _find(self, name: str) -> Path:
        for folder in (self.root / "fashion_mnist", self.root):
            for path in (folder / f"{name}.gz", folder / name):
                if path.is_file():
                    return path
        raise DataError(
            f"no `{name}.gz` in `{self.root / 'fashion_mnist'}`; fetch the four .gz files from {FASHION_SOURCE} "
            "(data/fashion) and put them there, or set `paths.data` or TRAINCTL_DATA to the folder that has them"
        )


def take_splits(x: Tensor, y: Tensor, rows: dict[str, np.ndarray]) -> dict[str, Split]:
    """The splits whose row numbers are given."""
    return {name: Split(x[index], y[index], index) for name, index in rows.items()}


def shared_images(splits: dict[str, Split]) -> list[str]:
    """A sentence for val and for test when some of their images are in train, pixel by pixel; decoded images only."""
    if not all(isinstance(split.x, Tensor) for split in splits.values()):
        return []
    hashes = {name: [hash(image.tobytes()) for image in split.x.numpy()] for name, split in splits.items()}
    train = set(hashes["train"])
    counts = {name: sum(image in train for image in hashes[name]) for name in ("val", "test")}
    return [
        f"{count} image{'s' * (count != 1)} of {name} {'is' if count == 1 else 'are'} also in train"
        for name, count in counts.items()
        if count
    ]


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of uint8 images [N, C, H, W] on the scale 0..1; a constant channel gets std 1."""
    total, squares = torch.zeros(2, x.shape[1], dtype=torch.int64)
    for part in torch.split(x, 2048):  # whole numbers: exact, and the same in any order
        values = part.int()
        total += values.sum(dim=(0, 2, 3))
        squares += (values * values).sum(dim=(0, 2, 3))
    count = x.shape[0] * x.shape[2] * x.shape[3]
    mean = total.double() / count
    std = torch.sqrt(torch.clamp(squares.double() / count - mean**2, min=0))
    std = torch.where(std < 1e-3, 255.0, std)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
