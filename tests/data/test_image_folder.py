"""Folders of image files: layouts, decoding, what does not fit in memory, streaming new folders, sentences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from trainctl.data.image_files import ImageFiles, decode
from trainctl.data.image_folder import ImageFolder
from trainctl.data.images import Digits
from trainctl.errors import DataError, TrainctlError, UsageError

SPLIT = {"kind": "auto", "val": 0.2, "test": 0.2}


def write_classes(
    root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 10), mode: str = "RGB", suffix: str = ".png"
) -> Path:
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).convert(mode).save(root / name / f"{i:03}{suffix}")
    return root


def sentence(call: Any) -> str:
    with pytest.raises(TrainctlError) as caught:
        call()
    return str(caught.value)


def batches(loader: Any) -> list[tuple[Tensor, Tensor]]:
    return [(x.clone(), y.clone()) for x, y in loader]


def test_class_folders_become_classes_sizes_and_splits(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "photos", {"cat": 20, "dog": 30})
    (root / "cat" / "notes.txt").write_text("not an image", encoding="utf-8")
    (root / ".hidden").mkdir()
    data = ImageFolder(path=str(root), split=SPLIT)
    data.setup()
    assert data.spec.classes == ("cat", "dog")
    assert data.spec.image_shape == (3, 10, 12)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [30, 10, 10]
    assert torch.bincount(data.split("test").y).tolist() == [4, 6]  # type: ignore[arg-type]
    row = int(data.split("test").rows[3])
    pixels = np.asarray(PIL.Image.open(data.paths[row])).transpose(2, 0, 1)
    assert torch.equal(data.split("test").x[3], torch.from_numpy(pixels.copy()))
    assert data.describe()["cached"] is True


@pytest.mark.parametrize(("names", "sizes"), [
    (("train", "valid", "test"), [12, 6, 4]),
    (("training", "testing"), [9, 3, 4]),
    (("train", "val"), [9, 6, 3]),
])  # fmt: skip
def test_given_folders_are_kept_and_missing_ones_come_from_train(
    tmp_path: Path, names: tuple[str, ...], sizes: list[int]
) -> None:
    for name in names:
        count = {"t": 6, "v": 3}[name[0]] if "test" not in name else 2
        write_classes(tmp_path / name, {"a": count, "b": count})
    data = ImageFolder(path=str(tmp_path), split={"kind": "auto", "val": 0.25, "test": 0.25})
    data.setup()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == sizes
    rows = np.concatenate([data.split(name).rows for name in ("train", "val", "test")])
    assert sorted(rows.tolist()) == list(range(sum(sizes)))
    given = {"v": "val", "t": "test"}
    for name in names[1:]:
        split = data.split(given[name[0]])
        assert all(data.paths[row].relative_to(tmp_path).parts[0] == name for row in split.rows)


def test_images_too_large_for_memory_are_decoded_in_the_same_order(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 20, "dog": 30})
    kept = ImageFolder(path=str(root), split=SPLIT, batch_size=4, seed=3)
    streamed = ImageFolder(path=str(root), split=SPLIT, batch_size=4, seed=3, memory_gb=0.0)
    streamed.setup()
    assert isinstance(streamed.split("train").x, ImageFiles) and streamed.describe()["cached"] is False
    assert torch.equal(streamed.split("val").x[2:4], kept.split("val").x[2:4])
    for data in (kept, streamed):
        data.chunk, data.chunked = 1, False
    for name in ("train_dataloader", "val_dataloader"):
        ours, theirs = getattr(kept, name)(), getattr(streamed, name)()
        for loader in (ours, theirs):
            loader.set_epoch(2)
            loader.set_position(1)
        for (x, y), (other_x, other_y) in zip(batches(ours), batches(theirs), strict=True):
            assert torch.equal(x, other_x) and torch.equal(y, other_y)
    assert streamed.spec == kept.spec
    assert streamed.content_hash("val") == streamed.content_hash("val") != streamed.content_hash("test")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_every_mode_becomes_grey_or_colour(tmp_path: Path, mode: str, channels: int) -> None:
    root = write_classes(tmp_path, {"a": 4, "b": 4}, mode=mode)
    data = ImageFolder(path=str(root), split={"val": 0.25, "test": 0.25}, size=[6, 7])
    data.setup()
    assert data.spec.image_shape == (channels, 6, 7)
    assert data.split("train").x.shape == (4, channels, 6, 7)


def test_what_is_transparent_lies_on_white_and_16_bits_become_8(tmp_path: Path) -> None:
    PIL.Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png", (3, 2, 2)).tolist() == [[[255, 255], [255, 255]]] * 3
    PIL.Image.fromarray(np.full((2, 2), 0x80FF, np.uint16)).save(tmp_path / "deep.png")
    assert decode(tmp_path / "deep.png", (1, 2, 2)).tolist() == [[[128, 128], [128, 128]]]


def test_a_camera_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(np.array([[0, 0, 255, 255]] * 2, np.uint8))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.png", exif=exif)
    assert decode(tmp_path / "x.png", (1, 4, 2)).tolist() == [[[0, 0], [0, 0], [255, 255], [255, 255]]]


def test_auto_size_is_the_median_at_most_224(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 6, "b": 6}, size=(448, 100), suffix=".jpg")
    data = ImageFolder(path=str(root), split={"val": 0.2, "test": 0.2})
    data.setup()
    assert data.spec.image_shape == (3, 50, 224)
    small = ImageFolder(path=str(root), size=32, channels=1, split={"val": 0.2, "test": 0.2})
    assert small.split("val").x.shape[1:] == (1, 32, 32)


def test_a_restored_run_keeps_its_shape_and_classes(tmp_path: Path) -> None:
    data = ImageFolder(path=str(write_classes(tmp_path / "old", {"a": 6, "b": 6})), split=SPLIT, size=8)
    data.setup()
    data.save(tmp_path / "run")
    new = ImageFolder(path=str(write_classes(tmp_path / "new", {"a": 5, "b": 5}, mode="L")), split=SPLIT)
    new.restore(tmp_path / "run")
    assert new.split("test").x.shape[1:] == (3, 8, 8)
    assert new.spec == data.spec
    other = ImageFolder(path=str(write_classes(tmp_path / "other", {"a": 5, "bb": 5})), split=SPLIT)
    other.restore(tmp_path / "run")
    assert sentence(other.setup) == (
        f"class folder `{tmp_path}/other/bb` is none of the run's 2 classes; did you mean `b`?"
    )


def test_new_folders_stream_in_pieces_with_or_without_classes(tmp_path: Path) -> None:
    data = Digits()
    data.setup()
    labelled = write_classes(tmp_path / "labelled", {"3": 5, "7": 4}, mode="L")
    chunks = list(data.stream(labelled, rows=4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]
    assert torch.cat([chunk.y for chunk in chunks]).tolist() == [3] * 5 + [7] * 4  # type: ignore[misc]
    assert chunks[0].x.shape == (4, 1, 8, 8) and chunks[0].x.dtype == torch.uint8
    assert chunks[1].names == ("3/004.png", "7/000.png", "7/001.png", "7/002.png")
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(9))
    loose = write_classes(tmp_path / "loose", {"holiday": 3}, mode="L")
    assert [chunk.y for chunk in data.stream(loose)] == [None]
    assert [chunk.y for chunk in data.stream(labelled, with_target=False)] == [None]
    with pytest.raises(DataError) as caught:
        list(data.stream(loose, with_target=True))
    assert str(caught.value) == (
        f"the images below `{loose}` have no classes; put them into folders named like the run's classes, "
        f"such as `{loose}/0`"
    )
    single = list(data.stream(loose / "holiday" / "001.png"))
    assert single[0].names == ("001.png",) and single[0].y is None


def test_images_that_train_and_test_share_are_counted(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):  # made from the same seed: the first images are the same
        write_classes(tmp_path / name, {"a": {"train": 6, "val": 3, "test": 1}[name]})
        write_classes(tmp_path / name, {"b": 4}, mode="L")
    data = ImageFolder(path=str(tmp_path), split=SPLIT)
    data.setup()
    data.setup()
    assert data.describe()["warnings"] == [
        "7 images of val are also in train",
        "5 images of test are also in train",
    ]
    assert data.describe()["classes"] == ["a", "b"]


def test_streams_refuse_what_they_cannot_read(tmp_path: Path) -> None:
    data = Digits()
    data.setup()
    assert sentence(lambda: list(data.stream(tmp_path / "no"))) == (
        f"cannot read `{tmp_path}/no`: no such file or folder"
    )
    assert sentence(lambda: list(data.stream(tmp_path))).startswith(f"`{tmp_path}` has no images (.png, .jpg, ")
    write_classes(tmp_path / "new", {"3": 1, "eleven": 1})
    assert sentence(lambda: list(data.stream(tmp_path / "new"))) == (
        f"class folder `{tmp_path}/new/eleven` is none of the run's 10 classes"
    )
    write_classes(tmp_path / "mixed", {"3": 1})
    (tmp_path / "new" / "3" / "000.png").rename(tmp_path / "mixed" / "x.png")
    assert sentence(lambda: list(data.stream(tmp_path / "mixed"))) == (
        f"an image directly in `{tmp_path}/mixed` is none of the run's 10 classes"
    )


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"a": 6, "b": 6})
    whole = (root / "b" / "004.png").read_bytes()
    for content, reason in ((b"no image", "not an image, or damaged"), (b"", "not an image, or damaged")):
        (root / "b" / "004.png").write_bytes(content)
        for size in ("auto", 8):
            assert sentence(ImageFolder(path=str(root), split=SPLIT, size=size).setup) == (
                f"cannot decode `{root}/b/004.png` ({reason}); remove or replace this file"
            )
    (root / "b" / "004.png").write_bytes(whole[:-60])
    assert sentence(ImageFolder(path=str(root), split=SPLIT, size=8).setup).startswith(
        f"cannot decode `{root}/b/004.png` ("
    )


def test_folders_that_are_of_no_use_get_a_sentence(tmp_path: Path) -> None:
    def setup(path: Path) -> str:
        return sentence(ImageFolder(path=str(path), split=SPLIT).setup)

    assert setup(tmp_path / "no") == (
        f"cannot read `{tmp_path}/no`: no such folder; set `data.path` to the folder of the images"
    )
    assert setup(tmp_path) == (
        f"`{tmp_path}` has no subfolders; put the images of each class into a folder named like the class"
    )
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert setup(tmp_path / "file") == (
        f"`{tmp_path}/file` is a file; set `data.path` to a folder with one subfolder of images per class"
    )
    write_classes(tmp_path / "single", {"cat": 9})
    assert setup(tmp_path / "single") == (
        f"`{tmp_path}/single` has one class folder (`cat`); a classifier needs two or more"
    )
    write_classes(tmp_path / "photos", {"cat": 9, "dog": 0})
    assert setup(tmp_path / "photos") == (
        f"class folder `{tmp_path}/photos/dog` has no images (.png, .jpg, .jpeg, .bmp, .gif, .webp, .tif, .tiff, "
        ".pgm, .ppm); add some or remove the folder"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "`data=image_folder` needs the folder of the images; add `data.path=FOLDER`"),
        ({"path": "x", "channels": 2}, "`data.channels` is 2; it must be 1, 3 or auto"),
        ({"path": "x", "size": 0}, "`data.size` is 0; it must be pixels such as 64, [height, width], or auto"),
        ({"path": "x", "size": "big"}, "`data.size` is 'big'; it must be pixels such as 64, [height, width], or auto"),
        ({"path": "x", "size": [8]}, "`data.size` is [8]; it must be pixels such as 64, [height, width], or auto"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImageFolder(**options)
    assert str(caught.value) == text


def test_without_pillow_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path, {"a": 6, "b": 6})
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert sentence(ImageFolder(path=str(root), split=SPLIT).setup) == (
        "image files need Pillow; install it with `pip install 'trainctl[images]'`"
    )


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError) as caught:
        ImageFolder(path=str(tmp_path)).setup()
    assert str(caught.value) == f"cannot read `{tmp_path}`: permission denied"
