"""Made-up tables, images and sequences of any size, with a signal that can be learned: for tests and benchmarks.

The content is a function of `data_seed`; `seed` only splits and shuffles, so runs over seeds see the same data.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainctl.data.augment import build_augment
from trainctl.data.base import Data, Split
from trainctl.data.images import channel_statistics, take_splits
from trainctl.data.spec import Category, DataSpec
from trainctl.errors import UsageError, did_you_mean

KINDS = ("table", "image", "sequence")
TARGETS = ("class", "number")
PIECE = 2**18  # rows generated at a time, to bound what intermediate results take


class Synthetic(Data):
    """`rows` rows of one kind whose target, a class or a number, depends on x and on noise.

    table: `numeric` normal columns and `categorical` columns of `categories` values. image: uint8 `image_shape`.
    sequence: up to `sequence_length` token ids below `num_tokens`, padded with 0. noise: 0 = fully predictable.
    """

    def __init__(
        self,
        kind: str = "table",
        rows: int = 10_000,
        target: str = "class",
        classes: int = 2,
        numeric: int = 10,
        categorical: int = 4,
        categories: int = 8,
        image_shape: list[int] | tuple[int, int, int] = (1, 28, 28),
        sequence_length: int = 32,
        num_tokens: int = 256,
        noise: float = 0.1,
        data_seed: int = 0,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        augment: dict[str, Any] | None = None,
        split: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, drop_last, split, seed)
        for key, value, options in (("kind", kind, KINDS), ("target", target, TARGETS)):
            if value not in options:
                near = did_you_mean(str(value), options)
                raise UsageError(f"`data.{key}` is {value!r}; choose {', '.join(options)}{near}")
        check_whole("rows", rows, 1)
        check_whole("classes", classes, 2)
        check_whole("categories", categories, 1)
        check_whole("num_tokens", num_tokens, 2)
        check_whole("sequence_length", sequence_length, 1)
        check_whole("numeric", numeric, 0)
        check_whole("categorical", categorical, 0)
        if numeric + categorical == 0:
            raise UsageError("`data.numeric` and `data.categorical` are both 0; a table needs at least one column")
        shape = tuple(image_shape)
        if len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
            raise UsageError(f"`data.image_shape` is {list(shape)}; it must be [channels, height, width]")
        self.kind, self.rows, self.target, self.num_classes = kind, rows, target, classes
        self.numeric, self.categorical, self.categories = numeric, categorical, categories
        self.image_shape = (shape[0], shape[1], shape[2])
        self.sequence_length, self.num_tokens = sequence_length, num_tokens
        self.noise, self.data_seed, self.augment_config = noise, data_seed, augment

    def load(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(self.data_seed)
        make = {"table": self._table, "image": self._images, "sequence": self._sequences}[self.kind]
        x, y = make(generator)
        classes = tuple(str(i) for i in range(self.num_classes)) if self.target == "class" else ()
        rows = self.split_plain(self.rows, y.numpy() if classes else None, classes)
        splits = take_splits(x, y, rows)
        if not self.restored or self.fine_tuned:  # nothing here is learned from a file
            self.spec = self._spec(splits["train"], classes)
        if self.kind == "image":
            self.augment = build_augment(self.augment_config, len(classes), self.image_shape[1:])
        return splits

    def _spec(self, train: Split, classes: tuple[str, ...]) -> DataSpec:
        fields: dict[str, Any] = {"classes": classes}
        if train.y is not None and not classes:
            std = float(train.y.double().std(correction=0))
            fields |= {"target_mean": float(train.y.double().mean()), "target_std": std or 1.0}
        if self.kind == "table":
            fields["numeric"] = tuple(f"number{i}" for i in range(self.numeric))
            fields["categories"] = tuple(Category(f"category{i}", self.categories + 1) for i in range(self.categorical))
        elif self.kind == "image":
            mean, std_channels = channel_statistics(train.x)
            fields |= {"image_shape": self.image_shape, "mean": mean, "std": std_channels}
        else:
            fields |= {"sequence_length": self.sequence_length, "num_tokens": self.num_tokens}
        return DataSpec(kind=self.kind, target=self.target, **fields)  # type: ignore[arg-type]  # checked in __init__

    def _table(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Columns go through a random two-layer net; the largest output is the class, the first one the number."""
        width = self.numeric + self.categorical
        x = torch.empty(self.rows, width)
        first, second = torch.randn(width, 32, generator=generator), torch.randn(32, self._outputs, generator=generator)
        effects = torch.randn(self.categorical, self.categories + 1, generator=generator)
        y = []
        for start in range(0, self.rows, PIECE):
            part = x[start : start + PIECE]
            part[:, : self.numeric].normal_(generator=generator)
            part[:, self.numeric :].random_(1, self.categories + 1, generator=generator)
            codes = part[:, self.numeric :].long()
            effect = effects.gather(1, codes.T).T if self.categorical else codes.float()
            hidden = torch.tanh(torch.cat([part[:, : self.numeric], effect], dim=1) @ first / width**0.5)
            y.append(self._decide(hidden @ second / 32**0.5, generator))
        return x, torch.cat(y)

    def _images(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each class is a smooth pattern; a number is the strength of one pattern."""
        channels, height, width = self.image_shape
        coarse = torch.randn(self._outputs, channels, min(4, height), min(4, width), generator=generator)
        patterns = F.interpolate(coarse, size=(height, width), mode="bilinear")
        x = torch.empty(self.rows, *self.image_shape, dtype=torch.uint8)
        y = self._draw_target(generator)
        step = max(1, PIECE * 32 // (channels * height * width))
        for start in range(0, self.rows, step):
            target = y[start : start + step]
            signal = patterns[target] if self.target == "class" else patterns[0] * target.view(-1, 1, 1, 1)
            grain = torch.randn(signal.shape, generator=generator)
            x[start : start + step] = (128 + 40 * signal + 400 * self.noise * grain).clamp(0, 255).to(torch.uint8)
        return x, y

    def _sequences(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each class prefers its own tokens; a number is the share of tokens in the upper half."""
        y = self._draw_target(generator)
        shape = (self.rows, self.sequence_length)
        x = torch.randint(1, self.num_tokens, shape, generator=generator)
        told = torch.rand(shape, generator=generator) > 0.5 + self.noise
        if self.target == "class":
            own = torch.arange(1, self.num_tokens)[y % (self.num_tokens - 1)].unsqueeze(1)
            x = torch.where(told & (torch.rand(shape, generator=generator) < 0.3), own, x)
        lengths = torch.randint(
            (self.sequence_length + 1) // 2, self.sequence_length + 1, (self.rows, 1), generator=generator
        )
        x = x.masked_fill(torch.arange(self.sequence_length) >= lengths, 0)
        if self.target == "number":
            upper = (x >= self.num_tokens // 2).sum(1) / lengths.squeeze(1)
            y = upper + self.noise * 0.1 * torch.randn(self.rows, generator=generator)
        return x, y

    @property
    def _outputs(self) -> int:
        return self.num_classes if self.target == "class" else 1

    def _draw_target(self, generator: torch.Generator) -> Tensor:
        if self.target == "class":
            return torch.randint(0, self.num_classes, (self.rows,), generator=generator)
        return torch.rand(self.rows, generator=generator) * 2 - 1

    def _decide(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        noisy = scores + self.noise * torch.randn(scores.shape, generator=generator)
        return noisy.argmax(1) if self.target == "class" else 10 * noisy[:, 0] + 50


def check_whole(key: str, value: int, smallest: int) -> None:
    """UsageError unless `value` is a whole number of `smallest` or more."""
    if type(value) is not int or value < smallest:
        raise UsageError(f"`data.{key}` is {value!r}; it must be a whole number of {smallest} or more")
