"""digits and fashion_mnist, read from small IDX files made here."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from trainctl.data.idx import read_idx
from trainctl.data.images import Digits, FashionMnist, channel_statistics
from trainctl.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder: Path, train: int = 200, test: int = 50, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for prefix, rows in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        labels = np.arange(rows, dtype=np.uint8) % 10
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            path = folder / f"{prefix}-{name}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))


def test_digits_are_1797_images_in_ten_classes() -> None:
    data = Digits()
    data.setup()
    assert data.spec.classes == tuple("0123456789")
    assert data.spec.image_shape == (1, 8, 8)
    parts = [data.split(name) for name in ("train", "val", "test")]
    assert sum(len(part) for part in parts) == 1797
    assert all(part.x.dtype == torch.uint8 and part.x.shape[1:] == (1, 8, 8) for part in parts)
    assert int(parts[0].x.max()) == 255
    assert data.augment is None


def test_statistics_come_from_train_alone_and_are_exact() -> None:
    data = Digits(seed=5)
    data.setup()
    scaled = data.split("train").x.double() / 255
    assert data.spec.mean == pytest.approx((float(scaled.mean()),), abs=1e-12)
    assert data.spec.std == pytest.approx((float(scaled.std(correction=0)),), abs=1e-12)
    assert Digits(seed=6).split("train").rows.tolist() != data.split("train").rows.tolist()
    assert channel_statistics(torch.full((3, 1, 2, 2), 255, dtype=torch.uint8)) == ((1.0,), (1.0,))


def test_restored_images_keep_the_statistics_of_the_run(tmp_path: Path) -> None:
    data = Digits(seed=1)
    data.setup()
    data.save(tmp_path)
    other = Digits(seed=2, augment={"flip": True})
    other.restore(tmp_path)
    other.setup()
    assert other.spec == data.spec
    assert other.augment is not None


@pytest.mark.parametrize("below", ["fashion_mnist", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_takes_val_from_train_and_the_official_test(tmp_path: Path, below: str, packed: bool) -> None:
    write_fashion(tmp_path / below, packed=packed)
    data = FashionMnist(root=str(tmp_path), split={"kind": "auto", "val": 0.15, "test": 0.15})
    data.setup()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [170, 30, 50]
    assert data.split("test").rows.tolist() == list(range(200, 250))
    assert data.split("test").y.tolist() == [i % 10 for i in range(50)]  # type: ignore[union-attr]
    assert data.spec.classes[9] == "Ankle boot"
    assert torch.bincount(data.split("val").y).tolist() == [3] * 10  # type: ignore[arg-type]


def test_folds_of_fashion_mnist_are_cut_from_train(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    tests = [FashionMnist(root=str(tmp_path), split={"folds": 4, "fold": fold}).split("test").rows for fold in range(4)]
    assert sorted(np.concatenate(tests).tolist()) == list(range(200))


def broken(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_idx(path)
    return str(caught.value).replace(str(path), "FILE")


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    whole = idx(np.zeros((5, 4, 4), np.uint8))
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(whole)[:-12])
    assert broken(path) == (
        "`FILE` is damaged (Compressed file ended before the end-of-stream marker was reached); fetch it again"
    )
    packed = bytearray(gzip.compress(whole))
    packed[-6] ^= 255
    path.write_bytes(packed)
    assert broken(path).startswith("`FILE` is damaged (")
    path.write_bytes(whole[:-7])
    assert broken(path) == "`FILE` holds 73 values and its header announces 80; fetch it again"
    path.write_bytes(whole[:6])
    assert broken(path) == "`FILE` ends within its header; it is damaged: fetch it again"
    for content in (b"", b"<html>not found</html>", b"\0\0\x0d\x03" + whole[4:]):
        path.write_bytes(content)
        assert broken(path) == "`FILE` is not an IDX file of unsigned bytes; fetch it again"
    path.unlink()
    path.mkdir()
    assert broken(path) == "cannot read `FILE`: Is a directory"


def test_missing_fashion_files_say_where_to_get_and_put_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        FashionMnist(root=str(tmp_path)).setup()
    assert str(caught.value) == (
        f"no `train-images-idx3-ubyte.gz` in `{tmp_path}/fashion_mnist`; fetch the four .gz files from "
        "https://github.com/zalandoresearch/fashion-mnist (data/fashion) and put them there, "
        "or set `paths.data` or TRAINCTL_DATA to the folder that has them"
    )


def test_images_and_labels_must_belong_together(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.zeros(7, np.uint8))))
    with pytest.raises(DataError) as caught:
        FashionMnist(root=str(tmp_path)).setup()
    assert str(caught.value) == (
        "`train-images-idx3-ubyte` has shape [200, 28, 28] and `train-labels-idx1-ubyte` [7]; they must be "
        "[N, height, width] and [N]: fetch both again from https://github.com/zalandoresearch/fashion-mnist"
    )
    labels.write_bytes(gzip.compress(idx(np.full(200, 10, np.uint8))))
    with pytest.raises(DataError) as caught:
        FashionMnist(root=str(tmp_path)).setup()
    assert str(caught.value) == "`train-labels-idx1-ubyte` has a label 10; labels must be 0 to 9"
