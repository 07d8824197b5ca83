"""Image files: finding them, decoding them to uint8 in threads (Pillow frees the interpreter), streaming folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainctl.data.base import Chunk
from trainctl.data.spec import DataSpec
from trainctl.errors import DataError, UsageError, did_you_mean

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
STREAM_BYTES = 64 * 2**20  # of decoded images held at once by a stream


class ImageFiles:
    """Images in files as if they were a uint8 tensor [N, C, H, W]: decoded when rows are asked for.

    It has what a loader needs of a tensor (shape, dtype, device, index_select), and no more.
    """

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int]) -> None:
        self.paths, self.shape = list(paths), torch.Size((len(paths), *shape))
        self.dtype, self.device = torch.uint8, torch.device("cpu")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(32, cores)

    def __len__(self) -> int:
        return len(self.paths)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Decode the images with these numbers [n] to uint8 [n, C, H, W]; DataError names a broken file."""
        shape = (self.shape[1], self.shape[2], self.shape[3])
        rows = index.tolist()
        images = np.empty((len(rows), *shape), np.uint8)

        def fill(place: int) -> None:
            images[place] = decode(self.paths[rows[place]], shape)

        if self._workers == 1:
            for place in range(len(rows)):
                fill(place)
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                for _ in pool.map(fill, range(len(rows))):
                    pass
        return torch.from_numpy(images)

    def __getitem__(self, index: Any) -> Tensor:
        """Decode a slice, a mask or row numbers."""
        return self.index_select(0, torch.arange(len(self))[index])

    def all(self) -> Tensor:
        """Every image, decoded."""
        return self.index_select(0, torch.arange(len(self)))


def pillow() -> Any:
    """The PIL.Image module; UsageError with the command that installs it."""
    try:
        import PIL.Image
    except ImportError:
        raise UsageError("image files need Pillow; install it with `pip install 'trainctl[images]'`") from None
    return PIL.Image


def decode(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """One image as uint8 [C, H, W], turned upright, laid on white where transparent, and resized to `shape`."""
    image_module = pillow()
    channels, height, width = shape
    try:
        with image_module.open(path) as image:
            image.draft(None, (width, height))  # lets JPEG decode at a fraction of its size
            values = np.asarray(_flatten(image, "L" if channels == 1 else "RGB", (width, height)))
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, image_module.DecompressionBombError) as error:
        raise DataError(f"cannot decode `{path}` ({_reason(error)}); remove or replace this file") from None
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _flatten(image: Any, mode: str, size: tuple[int, int]) -> Any:
    import PIL.ImageOps

    image_module = pillow()
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16 bits of grey
        image = image_module.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
    image = image.convert(mode)
    return image if image.size == size else image.resize(size, image_module.Resampling.BILINEAR)


def _reason(error: Exception) -> str:
    text = str(error).split("\n")[0]
    return "not an image, or damaged" if "cannot identify" in text else text or type(error).__name__


def look(paths: Sequence[Path], sample: int = 64) -> tuple[int, tuple[int, int]]:
    """Channels (1 when all are grey, else 3) and median (height, width) of a sample; only headers are read."""
    image_module = pillow()
    grey, sizes = True, []
    for path in paths[:: max(1, len(paths) // sample)][:sample]:
        try:
            with image_module.open(path) as image:
                sizes.append((image.height, image.width))
                grey = grey and image.mode in ("1", "L", "LA", "I", "F") or grey and image.mode.startswith("I;16")
        except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
            raise DataError(f"cannot decode `{path}` ({_reason(error)}); remove or replace this file") from None
    height, width = (int(np.median([size[axis] for size in sizes])) for axis in (0, 1))
    return (1 if grey else 3), (height, width)


def image_paths(folder: Path) -> list[Path]:
    """Image files anywhere below `folder`, sorted by relative path; hidden files are left out."""
    found: list[Path] = []
    for directory, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(directory, n) for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """Direct, visible subfolders, sorted by name; DataError when `folder` cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read `{folder}`: {(error.strerror or 'unreadable').lower()}") from None


def _raise(error: OSError) -> None:
    raise DataError(f"cannot read `{error.filename}`: {(error.strerror or 'unreadable').lower()}")


def stream_images(path: Path, spec: DataSpec, rows: int, with_target: bool | None = None) -> Iterator[Chunk]:
    """New images in the spec's shape, at most `rows` and 64 MB at a time; y when they lie in folders named by class.

    `path` is one image or a folder; with_target: True demands y, False never gives it. DataError when there is no
    image, or, unless with_target is False, for a class folder that the run does not know.
    """
    if spec.image_shape is None:
        raise DataError(f"`{path}`: this run was trained on {spec.kind} data, not on images")
    if not path.exists():
        raise DataError(f"cannot read `{path}`: no such file or folder")
    paths = image_paths(path) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"`{path}` has no images ({', '.join(SUFFIXES)})")
    labels = None if with_target is False else _labels(path, paths, spec.classes)
    if with_target and labels is None:
        raise DataError(
            f"the images below `{path}` have no classes; put them into folders named like the run's classes, "
            f"such as `{path / spec.classes[0]}`"
        )
    channels, height, width = spec.image_shape
    size = max(1, min(rows, STREAM_BYTES // (channels * height * width)))
    files = ImageFiles(paths, spec.image_shape)
    root = path if path.is_dir() else path.parent
    for start in range(0, len(paths), size):
        index = torch.arange(start, min(start + size, len(paths)))
        names = tuple(str(paths[i].relative_to(root)) for i in index.tolist())
        y = None if labels is None else labels[index]
        yield Chunk(files.index_select(0, index), y, index.numpy(), names=names)


def _labels(root: Path, paths: list[Path], classes: tuple[str, ...]) -> Tensor | None:
    """Class numbers [N] from the folders right below `root`; None when no folder there bears a class's name."""
    below = [path.relative_to(root).parts for path in paths]
    tops = [parts[0] if len(parts) > 1 else "" for parts in below]
    if not set(tops) & set(classes):
        return None
    for name in sorted(set(tops) - set(classes)):
        place = f"class folder `{root / name}`" if name else f"an image directly in `{root}`"
        raise DataError(f"{place} is none of the run's {len(classes)} classes{did_you_mean(name, classes)}")
    return torch.tensor([classes.index(name) for name in tops])
