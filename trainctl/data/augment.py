"""Augmentation of whole batches of images, on the device they are on, from torch's global random state.

The task seeds that state for each step, which makes a resumed run draw the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainctl.errors import UsageError, did_you_mean

DEFAULTS: dict[str, Any] = {"flip": False, "crop": 0, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0}


class Augment:
    """flip (half of the images, left to right) -> crop (pad by `crop` pixels, cut at random) -> erase (a random
    rectangle, in a share `erase` of the images) -> mixup or cutmix (blend with, or paste from, another image).

    x [B, C, H, W] uint8 or float keeps its dtype. y [B] integer becomes soft targets [B, num_classes] float under mixup
    and cutmix, whose value is the parameter of a Beta distribution (0 = off; both on = one of them per batch);
    y [B] float is blended. Padded and erased parts become 0, the mean colour once a task has normalised x.
    """

    def __init__(
        self,
        num_classes: int,
        flip: bool = False,
        crop: int = 0,
        erase: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        self.num_classes, self.flip, self.crop, self.erase = num_classes, flip, crop, erase
        self.mixup, self.cutmix = mixup, cutmix

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.flip:
            x = random_flip(x)
        if self.crop:
            x = random_crop(x, self.crop)
        if self.erase:
            x = random_erase(x, self.erase)
        mix = self.mixup > 0 and (self.cutmix == 0 or float(torch.rand(())) < 0.5)
        if mix:
            return mixup(x, y, self.num_classes, self.mixup)
        if self.cutmix:
            return cutmix(x, y, self.num_classes, self.cutmix)
        return x, y


def build_augment(config: dict[str, Any] | None, num_classes: int, size: tuple[int, int]) -> Augment | None:
    """The Augment of a config node, or None when all of it is off; UsageError for a wrong key or value."""
    given = {**DEFAULTS, **(config or {})}
    for key in given:
        if key not in DEFAULTS:
            raise UsageError(f"no key `data.augment.{key}`; choose {', '.join(DEFAULTS)}{did_you_mean(key, DEFAULTS)}")
    if not isinstance(given["flip"], bool):
        raise UsageError(f"`data.augment.flip` is {given['flip']!r}; it must be true or false")
    if type(given["crop"]) is not int or not 0 <= given["crop"] <= min(size):
        raise UsageError(
            f"`data.augment.crop` is {given['crop']!r}; it must be a number of pixels from 0 to {min(size)}"
        )
    for key, limit in (("erase", 1.0), ("mixup", math.inf), ("cutmix", math.inf)):
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
            bounds = "from 0 to 1" if limit == 1.0 else "of 0 or more"
            raise UsageError(f"`data.augment.{key}` is {value!r}; it must be a number {bounds}")
    return Augment(num_classes, **given) if any(given.values()) else None


def random_flip(x: Tensor) -> Tensor:
    """Mirror half of the images left to right."""
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(3), x)


def random_crop(x: Tensor, pad: int) -> Tensor:
    """Add `pad` pixels of 0 on each side and cut the old size out of it, elsewhere in each image."""
    batch, channels, height, width = x.shape
    padded = F.pad(x, (pad, pad, pad, pad))
    top, left = torch.randint(0, 2 * pad + 1, (2, batch, 1), device=x.device)
    rows = top + torch.arange(height, device=x.device)
    columns = left + torch.arange(width, device=x.device)
    index = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    flat = index.view(batch, 1, -1).expand(-1, channels, -1)
    return torch.gather(padded.flatten(2), 2, flat).view(x.shape)


def random_erase(x: Tensor, share: float) -> Tensor:
    """Paint a rectangle of 2 to 33 % of the area, of aspect 0.3 to 3.3, in that share of the images."""
    area, log_aspect, chance = torch.rand(3, len(x), device=x.device)
    area = 0.02 + 0.31 * area
    aspect = torch.exp((2 * log_aspect - 1) * math.log(3.3))
    inside = random_box(x, torch.sqrt(area * aspect), torch.sqrt(area / aspect)) & (chance < share).view(-1, 1, 1, 1)
    return x.masked_fill(inside, 0)


def mixup(x: Tensor, y: Tensor, num_classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """share * x + (1 - share) * another image of the batch, share ~ Beta(alpha, alpha), the targets alike."""
    share, other = draw_share(alpha), torch.randperm(len(x), device=x.device)
    mixed = x[other].float().lerp(x.float(), share)
    return (mixed.round() if x.dtype == torch.uint8 else mixed).to(x.dtype), blend(y, other, num_classes, share)


def cutmix(x: Tensor, y: Tensor, num_classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of 1 - share of the area from another image; targets by the pixels that stayed."""
    side, other = math.sqrt(1 - draw_share(alpha)), torch.randperm(len(x), device=x.device)
    sides = torch.full((len(x),), side, device=x.device)
    inside = random_box(x, sides, sides)
    share = 1 - inside.float().mean(dim=(1, 2, 3))
    return torch.where(inside, x[other], x), blend(y, other, num_classes, share)


def random_box(x: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """True inside a rectangle per image [B, 1, H, W]; `tall` and `wide` [B] are shares of height and width."""
    height, width = x.shape[2:]
    tall, wide = (tall.clamp(max=1) * height).round(), (wide.clamp(max=1) * width).round()
    top, left = torch.rand(2, len(x), device=x.device)
    top, left = (top * (height - tall + 1)).floor(), (left * (width - wide + 1)).floor()
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    inside: Tensor = in_rows[:, :, None] & in_columns[:, None, :]
    return inside.unsqueeze(1)


def draw_share(alpha: float) -> float:
    """One number from Beta(alpha, alpha)."""
    return float(torch.distributions.Beta(alpha, alpha).sample())


def blend(y: Tensor, other: Tensor, num_classes: int, share: float | Tensor) -> Tensor:
    """share * y + (1 - share) * y[other]; class numbers become soft targets [B, num_classes] first."""
    if y.is_floating_point():
        soft = y
    else:
        soft = F.one_hot(y, num_classes).float()
    weight = share.view(-1, *[1] * (soft.dim() - 1)) if isinstance(share, Tensor) else torch.tensor(share)
    return soft[other].lerp(soft, weight.to(soft.device))
