"""What every net named in conf/model must do, on every kind of data it supports."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from trainctl.data.spec import Category, DataSpec
from trainctl.errors import UsageError
from trainctl.models.inputs import MODELS_FOR
from trainctl.tasks.estimator import is_estimator

CONF = Path(__file__).parents[2] / "conf" / "model"
CONFIGS = {path.relative_to(CONF).with_suffix("").as_posix(): path for path in sorted(CONF.rglob("*.yaml"))}
TEN = tuple("0123456789")
CATEGORIES = (Category("colour", 4), Category("city", 300))
SPECS = {
    "table": DataSpec("table", "class", classes=("no", "yes"), numeric=("age", "pay"), categories=CATEGORIES),
    "numeric table": DataSpec("table", "number", numeric=("age", "pay", "rent")),
    "categorical table": DataSpec("table", "number", categories=CATEGORIES),
    "grey 28x28": DataSpec("image", "class", classes=TEN, image_shape=(1, 28, 28)),
    "grey 8x8": DataSpec("image", "class", classes=TEN, image_shape=(1, 8, 8)),
    "colour 40x64": DataSpec("image", "number", image_shape=(3, 40, 64)),
    "sequence": DataSpec("sequence", "class", classes=("a", "b", "c"), sequence_length=12, num_tokens=50),
}
SUPPORTED = [(name, spec) for name in CONFIGS for spec in SPECS if name in MODELS_FOR[SPECS[spec].kind]]
REFUSED = [(name, spec) for name in CONFIGS for spec in SPECS if name not in MODELS_FOR[SPECS[spec].kind]]


def build(name: str, spec: DataSpec, seed: int = 0) -> nn.Module:
    given: dict[str, Any] = yaml.safe_load(CONFIGS[name].read_text(encoding="utf-8"))
    module, cls = given.pop("_target_").rsplit(".", 1)
    torch.manual_seed(seed)
    net = getattr(importlib.import_module(module), cls)(spec, **given)
    assert isinstance(net, nn.Module)
    if is_estimator(net):  # its weights come of a fit
        x = sample(spec, 200)
        y = torch.randint(0, len(spec.classes), (200,)) if spec.target == "class" else torch.randn(200)
        net.fit(x, y, seed)  # type: ignore[operator]
    return net


def sample(spec: DataSpec, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if spec.kind == "image":
        assert spec.image_shape is not None
        return torch.randn(batch, *spec.image_shape, generator=generator)
    if spec.kind == "sequence":
        x = torch.randint(1, spec.num_tokens, (batch, spec.sequence_length), generator=generator)
        x[0, 5:] = 0
        return x
    codes = [torch.randint(0, c.size, (batch, 1), generator=generator).float() for c in spec.categories]
    return torch.cat([torch.randn(batch, len(spec.numeric), generator=generator), *codes], 1)


supported = pytest.mark.parametrize(("name", "on"), SUPPORTED)


def test_every_config_is_known_for_some_kind_of_data() -> None:
    assert set(CONFIGS) == {name for names in MODELS_FOR.values() for name in names}


@supported
def test_output_and_gradients(name: str, on: str) -> None:
    net, spec = build(name, SPECS[on]), SPECS[on]
    output = net(sample(spec, 16))
    assert output.shape == (16, spec.num_outputs)
    assert output.dtype == torch.float32
    if is_estimator(net):  # nothing in it is reached by a gradient
        assert list(net.parameters()) == [] and not output.requires_grad
        return
    (output * torch.randn(16, spec.num_outputs)).sum().backward()
    idle = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@supported
def test_state_dict_rebuilds_the_net(name: str, on: str, tmp_path: Path) -> None:
    spec = SPECS[on]
    net = build(name, spec)
    net(sample(spec, 16))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    again = build(name, DataSpec.from_dict(spec.to_dict()), seed=1)
    again.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    x = sample(spec, 4)
    assert torch.equal(again.eval()(x), net.eval()(x))


@supported
def test_the_seed_decides_the_weights_and_the_training_output(name: str, on: str) -> None:
    spec = SPECS[on]
    first = build(name, spec)(sample(spec, 8))
    assert torch.equal(build(name, spec)(sample(spec, 8)), first)


@supported
def test_one_sample_at_a_time_gives_the_same_in_eval(name: str, on: str) -> None:
    net, x = build(name, SPECS[on]).eval(), sample(SPECS[on], 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([net(x[i : i + 1]) for i in range(3)]), net(x), rtol=1e-4, atol=1e-5)


@supported
def test_one_sample_can_be_trained_on(name: str, on: str) -> None:
    assert build(name, SPECS[on])(sample(SPECS[on], 1)).isfinite().all()


@pytest.mark.parametrize(("name", "on"), REFUSED)
def test_data_it_cannot_take_is_one_sentence(name: str, on: str) -> None:
    need = {"cnn": "images", "resnet": "images", "lstm": "sequences of tokens", "tree": "a table", "forest": "a table"}
    have = {"table": "a table", "image": "images", "sequence": "sequences of tokens"}[SPECS[on].kind]
    fit = {
        "table": "model=linear, model=mlp, model=resmlp, model=transformer, model=tree or model=forest",
        "image": "model=linear, model=mlp, model=resmlp, model=cnn, model=resnet or model=transformer",
        "sequence": "model=linear, model=mlp, model=resmlp, model=lstm or model=transformer",
    }[SPECS[on].kind]
    with pytest.raises(UsageError) as raised:
        build(name, SPECS[on])
    assert str(raised.value) == f"model={name} needs {need[name]}, but the data are {have}; use {fit}"
