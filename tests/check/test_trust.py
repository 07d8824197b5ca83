from __future__ import annotations

from typing import Any

import pytest

from trainctl.check import refuse_untrusted
from trainctl.config.compose import compose, plain
from trainctl.errors import RunError


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=digits_linear", "logger=[csv,tensorboard,mlflow,wandb]"],
        ["optimizer=muon", "scheduler=one_cycle", "model=transformer", "data=image_folder"],
        ["optimizer=sgd", "scheduler=plateau", "model=resnet", "data=synthetic", "task=regression"],
    ],
)
def test_what_we_ship_is_trusted(words: list[str]) -> None:
    refuse_untrusted(plain(compose("train", words)))


def test_modules_of_torch_are_trusted_by_name() -> None:
    refuse_untrusted({"model": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Linear"}]}})


REFUSED = [
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.nn.modules.module.torch.load",
    "torch.nn.Linear.load_state_dict",
    "torch.utils.data.DataLoader",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.LightningModule.load_from_checkpoint",
    "hydra.utils.call",
    "functools.partial",
    "trainctl.launch.start",
    "trainctl.run.run.Run.create",
    "trainctl.verbs.train.train",
    "trainctl.models.mlp.nn.Linear",
    "trainctl.data.tabular.Path",
    "trainctl.data.base.json.loads",
    "trainctl.models._private.f",
    "trainctl.models.nope.Nope",
    "my_pkg.Net",
    "trainctlx.models.Net",
    "",
    "torch nn",
]


@pytest.mark.parametrize("target", REFUSED)
def test_anything_else_is_refused_by_name(target: str) -> None:
    with pytest.raises(RunError) as caught:
        refuse_untrusted({"a": [{"net": {"_target_": target}}]})
    assert str(caught.value) == (
        f"the run's config names `{target}` (`a[0].net._target_`), which is not on the list of trusted components; "
        f"pass `--trust {target.split('.')[0]}` if you trust that package and where the run comes from"
    )


def test_a_package_may_be_trusted() -> None:
    config = {"model": {"_target_": "my_pkg.nets.Net"}, "data": {"_target_": "other.Data"}}
    refuse_untrusted(config, ["my_pkg", "other.Data"])
    with pytest.raises(RunError):
        refuse_untrusted(config, ["my_pk", "other"][:1])


@pytest.mark.parametrize("target", [3, ["os.system"], {"a": 1}])
def test_a_target_that_is_no_text(target: Any) -> None:
    with pytest.raises(RunError) as caught:
        refuse_untrusted({"model": {"_target_": target}})
    assert str(caught.value) == (
        f"`model._target_` of the run's config must be a dotted path, got {type(target).__name__}; refused"
    )


def test_nothing_to_instantiate_is_fine() -> None:
    refuse_untrusted({"scheduler": {"_target_": None}, "logger": {}, "seed": 0})
