"""A folder of images, one subfolder per class, or train, val and test folders that hold such subfolders.

Images are decoded once and kept as uint8 when they fit in `memory_gb`; otherwise they are decoded each time they are
asked for, in threads and ahead of training, in the same order as in memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from trainctl.data.base import Split
from trainctl.data.image_files import SUFFIXES, ImageFiles, image_paths, look, subfolders
from trainctl.data.images import ImageData
from trainctl.errors import DataError, UsageError, did_you_mean

GIVEN = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
AUTO_LIMIT = 224  # the longer side that `size: auto` gives at most
STATISTICS_IMAGES = 4096  # images whose mean and std stand for all when not all fit in memory


class ImageFolder(ImageData):
    """Images in class folders below `path`; row numbers count the files sorted by path, in the order train, val, test.

    size: pixels (height and width), [height, width], or auto: the median of the folder, at most 224. channels: 1, 3,
    or auto: 1 when every image looked at is grey. Images are resized to that size, whatever their proportions.
    """

    def __init__(
        self,
        path: str | None = None,
        size: int | list[int] | str = "auto",
        channels: int | str = "auto",
        memory_gb: float = 4.0,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        augment: dict[str, Any] | None = None,
        split: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, drop_last, augment, split, seed)
        if path is None:
            raise UsageError("`data=image_folder` needs the folder of the images; add `data.path=FOLDER`")
        if channels not in (1, 3, "auto"):
            raise UsageError(f"`data.channels` is {channels!r}; it must be 1, 3 or auto")
        self.path, self.size, self.channels = Path(path), check_size(size), channels
        self.memory_gb = memory_gb
        self.cached = True
        self.paths: list[Path] = []

    def load(self) -> dict[str, Split]:
        given = find_given(self.path)
        known = self.spec.classes if self.restored and not self.fine_tuned else None
        found = {name: find_classes(folder, known) for name, folder in given.items()}
        labels_found = tuple(sorted({label for pairs in found.values() for _, label in pairs}))
        classes = self.classes_for(labels_found, str(self.path))
        if len(classes) < 2:
            raise DataError(f"`{given['train']}` has one class folder (`{classes[0]}`); a classifier needs two or more")
        names = sorted(found, key=("train", "val", "test").index)
        pairs = [pair for name in names for pair in found[name]]
        self.paths = [path for path, _ in pairs]
        labels = np.array([classes.index(label) for _, label in pairs], dtype=np.int64)
        ends = np.cumsum([len(found[name]) for name in names])
        rows = {
            name: np.arange(end - len(found[name]), end, dtype=np.int64) for name, end in zip(names, ends, strict=True)
        }
        train = len(rows["train"])
        others = frozenset(names) - {"train"}
        rows |= self.split_plain(train, labels[:train], classes, given=others)
        shape = self._shape(rows["train"])
        self.cached = len(pairs) * int(np.prod(shape)) <= self.memory_gb * 2**30
        splits = {name: self._take(index, labels, shape) for name, index in rows.items()}
        self.fit_spec(self._sample(splits["train"]), classes)
        return splits

    def describe_source(self) -> dict[str, Any]:
        """Shape, classes, and whether the images are held in memory."""
        return {**super().describe_source(), "cached": self.cached}

    def content_hash(self, name: str) -> str:
        """sha256 of a split; of file names, sizes and labels when the images are not held in memory."""
        split = self.split(name)
        if self.cached:
            return super().content_hash(name)
        digest = hashlib.sha256()
        labels = split.y.tolist() if split.y is not None else []
        for row, label in zip(split.rows.tolist(), labels, strict=True):
            path = self.paths[row]
            digest.update(f"{path.relative_to(self.path)}\0{path.stat().st_size}\0{label}\n".encode())
        return digest.hexdigest()

    def _shape(self, train: np.ndarray) -> tuple[int, int, int]:
        if self.restored and self.spec.image_shape is not None:
            return self.spec.image_shape
        channels, (height, width) = look([self.paths[row] for row in train])
        if self.size is None:
            scale = min(1.0, AUTO_LIMIT / max(height, width))
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
        else:
            height, width = self.size
        return (channels if self.channels == "auto" else int(self.channels), height, width)

    def _take(self, rows: np.ndarray, labels: np.ndarray, shape: tuple[int, int, int]) -> Split:
        files = ImageFiles([self.paths[row] for row in rows], shape)
        x = files.all() if self.cached else cast(Tensor, files)
        return Split(x, torch.from_numpy(labels[rows]), rows)

    def _sample(self, train: Split) -> Tensor:
        if self.cached or self.restored:
            return train.x
        step = max(1, len(train) // STATISTICS_IMAGES)
        return train.x.index_select(0, torch.arange(0, len(train), step)[:STATISTICS_IMAGES])


def check_size(size: int | list[int] | str) -> tuple[int, int] | None:
    """(height, width), or None for auto; UsageError for anything else."""
    sides = [size, size] if isinstance(size, int) else size
    if size == "auto":
        return None
    if isinstance(sides, str) or len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise UsageError(f"`data.size` is {size!r}; it must be pixels such as 64, [height, width], or auto")
    return sides[0], sides[1]


def find_given(path: Path) -> dict[str, Path]:
    """The folder of each split that has one; {"train": path} when classes lie directly in `path`."""
    if not path.exists():
        raise DataError(f"cannot read `{path}`: no such folder; set `data.path` to the folder of the images")
    if not path.is_dir():
        raise DataError(f"`{path}` is a file; set `data.path` to a folder with one subfolder of images per class")
    by_name = {folder.name.lower(): folder for folder in subfolders(path)}
    given = {split: by_name[name] for split, names in GIVEN.items() for name in names if name in by_name}
    return given if "train" in given and len(given) > 1 else {"train": path}


def find_classes(folder: Path, known: tuple[str, ...] | None) -> list[tuple[Path, str]]:
    """(file, class) of each image below the class folders of `folder`, sorted; DataError when a folder is of no use."""
    classes = subfolders(folder)
    if not classes:
        raise DataError(
            f"`{folder}` has no subfolders; put the images of each class into a folder named like the class"
        )
    pairs = []
    for class_folder in classes:
        if known is not None and class_folder.name not in known:
            near = did_you_mean(class_folder.name, known)
            raise DataError(f"class folder `{class_folder}` is none of the run's {len(known)} classes{near}")
        files = image_paths(class_folder)
        if not files:
            raise DataError(
                f"class folder `{class_folder}` has no images ({', '.join(SUFFIXES)}); add some or remove the folder"
            )
        pairs += [(file, class_folder.name) for file in files]
    return pairs
