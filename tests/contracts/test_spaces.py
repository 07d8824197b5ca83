"""What every space in conf/space must do: be read, hold values that its models take, and give points that train."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainctl import build
from trainctl.config.compose import compose, plain
from trainctl.config.location import conf_dir
from trainctl.tuning.space import Dimension, Point, Space, Value, parse

SPACES = sorted(path.stem for path in (conf_dir() / "space").glob("*.yaml"))
IMAGES = ("data=synthetic_images", "data.image_shape=[1,8,8]", "data.rows=200", "data.classes=2")
DATA = {"cnn_nas": IMAGES}
TABLE = ("data=synthetic", "data.rows=200", "data.numeric=3", "data.categorical=1")


def words_for(name: str) -> tuple[str, ...]:
    return (*DATA.get(name, TABLE), "trainer.threads=1")


def space_of(name: str) -> Space:
    node = plain(compose("tune", [f"space={name}"]))["space"]
    return parse("train", words_for(name), None, node)


def drawn(one: Dimension, source: random.Random) -> Value:
    """Any value of a dimension."""
    values = one.values()
    if values is not None:
        return source.choice(values)
    low, high = (math.log(one.low), math.log(one.high)) if one.log else (one.low, one.high)
    value = source.uniform(low, high)
    return min(max(math.exp(value) if one.log else value, one.low), one.high)


def point_with(space: Space, one: Dimension, value: Value, source: random.Random) -> Point:
    """A random point that has `value`: drawn again until the dimension's key exists."""
    while True:
        point = space.point(lambda other: value if other is one else drawn(other, source))
        if one.name in point:
            return point


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_every_choice_and_bound_builds_a_net_an_optimizer_and_a_schedule(name: str) -> None:
    space, source = space_of(name), random.Random(0)
    data = build.data(plain(compose("train", words_for(name))))
    data.setup()
    x = data.split("train").x[:8]
    for one in space.dimensions:
        for value in one.ends():
            config = plain(compose("train", space.words(point_with(space, one, value, source))))
            task = build.task(config, data.spec, data, fit=True)
            output = task.net(x.float())
            assert output.shape == (8, data.spec.num_outputs) and output.isfinite().all(), (one.name, value)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SPACES)
def test_random_points_train(name: str, seed: int, fit: Callable[..., Any]) -> None:
    space, source = space_of(name), random.Random(seed)
    done = fit(*space.words(space.point(lambda one: drawn(one, source))))
    changed = [not torch.equal(done.before[key], weight) for key, weight in done.after.items()]
    assert sum(changed) > len(changed) / 2
    assert all(weight.isfinite().all() for weight in done.after.values())
    assert math.isfinite(done.trainer.callback_metrics["val/loss"])


@pytest.mark.parametrize("name", SPACES)
def test_every_dimension_is_there_for_some_option(name: str) -> None:
    space, source = space_of(name), random.Random(0)
    points = [space.point(lambda one: drawn(one, source)) for _ in range(50)]
    assert {key for point in points for key in point} == {one.name for one in space.dimensions}


def test_depth_and_block_are_dimensions_of_their_own() -> None:
    kinds = {one.name: one.kind for one in space_of("cnn_nas").dimensions}
    assert kinds["model.num_blocks"] == "int" and kinds["model.block"] == "choice"
    layers = {one.name: one.ends() for one in space_of("mlp_nas").dimensions}
    assert layers["model.num_layers"] == [1, 4] and layers["model"] == ["mlp", "resmlp"]
