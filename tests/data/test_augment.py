"""Each augmentation does what it says, keeps dtype and shape, and follows torch's global random state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainctl.data.augment import Augment, build_augment, cutmix, mixup, random_crop, random_erase, random_flip
from trainctl.errors import UsageError


def images(count: int = 64, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Every pixel of every image is another number as far as uint8 goes."""
    x = torch.randint(1, 256, (count, 3, 8, 10), generator=torch.Generator().manual_seed(0))
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("options", [{"flip": True}, {"crop": 2}, {"erase": 1.0}, {"mixup": 0.4}, {"cutmix": 1.0}])
def test_each_changes_x_alone_and_repeats_with_the_seed(options: dict[str, Any], dtype: torch.dtype) -> None:
    augment = build_augment(options, num_classes=5, size=(8, 10))
    assert augment is not None
    x, y = images(dtype=dtype), torch.arange(64) % 5
    kept = x.clone()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augment(x, y))
    assert torch.equal(x, kept)
    assert results[0][0].shape == x.shape and results[0][0].dtype == dtype
    assert not torch.equal(results[0][0], x)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


def test_flip_mirrors_about_half_of_the_images() -> None:
    torch.manual_seed(0)
    x = images(1000)
    out = random_flip(x)
    flipped = (out == x.flip(3)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) ^ flipped).all()
    assert 440 < int(flipped.sum()) < 560


def test_crop_shifts_each_image_by_its_own_offset() -> None:
    torch.manual_seed(0)
    x = images(200)
    out = random_crop(x, 2)
    shifts = set()
    for before, after in zip(x, out, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(padded[:, top : top + 8, left : left + 10], after)
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 25


def test_erase_blanks_one_rectangle_in_the_share_asked_for() -> None:
    torch.manual_seed(0)
    x = images(1000)
    out = random_erase(x, 0.3)
    blank = (out == 0).all(1)
    assert torch.equal(out.where(~blank.unsqueeze(1), x), x)  # the rest is untouched
    touched = blank.flatten(1).any(1)
    assert 230 < int(touched.sum()) < 350
    areas = blank[touched].float().mean(dim=(1, 2))
    assert 0.0 < float(areas.min()) and float(areas.max()) < 0.45
    for mask in blank[touched][:50]:  # one full rectangle
        rows, columns = mask.any(1), mask.any(0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())


def test_mixup_blends_images_and_targets_with_the_same_share() -> None:
    torch.manual_seed(0)
    x = torch.zeros(4, 1, 2, 2)
    x[:] = torch.arange(4.0).view(4, 1, 1, 1)
    mixed, target = mixup(x, torch.arange(4), 4, alpha=1.0)
    assert target.shape == (4, 4) and torch.allclose(target.sum(1), torch.ones(4))
    expected = (target * torch.arange(4.0)).sum(1)
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), expected)
    assert 0 < float(target.diagonal().max()) < 1 or torch.equal(target, torch.eye(4))


def test_cutmix_pastes_a_rectangle_and_counts_its_pixels() -> None:
    torch.manual_seed(1)
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous()
    mixed, target = cutmix(x, torch.arange(4), 4, alpha=1.0)
    assert torch.allclose((target * torch.arange(4.0)).sum(1), mixed.mean(dim=(1, 2, 3)), atol=1e-5)
    assert set(mixed.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert not torch.equal(mixed, x)


def test_mixed_numbers_are_blended() -> None:
    torch.manual_seed(0)
    x = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 16).contiguous()
    for change in (mixup, cutmix):
        mixed, target = change(x, torch.arange(8.0), 0, 1.0)
        assert target.shape == (8,)
        assert torch.allclose(target, mixed.mean(dim=(1, 2, 3)), atol=1e-4)


def test_mixup_and_cutmix_together_take_turns() -> None:
    augment = Augment(4, mixup=1.0, cutmix=1.0)
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous()
    kinds = set()
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, _ = augment(x, torch.arange(4))
        kinds.add("pasted" if set(mixed.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0} else "blended")
    assert kinds == {"pasted", "blended"}


def test_nothing_asked_for_is_nothing() -> None:
    assert build_augment(None, 2, (8, 8)) is None
    assert build_augment({"flip": False, "crop": 0, "mixup": 0.0}, 2, (8, 8)) is None


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"flp": True},
            "no key `data.augment.flp`; choose flip, crop, erase, mixup, cutmix; did you mean `flip`?",
        ),
        ({"flip": 0.5}, "`data.augment.flip` is 0.5; it must be true or false"),
        ({"crop": 9}, "`data.augment.crop` is 9; it must be a number of pixels from 0 to 8"),
        ({"crop": True}, "`data.augment.crop` is True; it must be a number of pixels from 0 to 8"),
        ({"erase": 1.5}, "`data.augment.erase` is 1.5; it must be a number from 0 to 1"),
        ({"mixup": -1}, "`data.augment.mixup` is -1; it must be a number of 0 or more"),
        ({"cutmix": "a"}, "`data.augment.cutmix` is 'a'; it must be a number of 0 or more"),
    ],
)
def test_wrong_values_are_refused(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_augment(config, 2, (8, 8))
    assert str(caught.value) == sentence
