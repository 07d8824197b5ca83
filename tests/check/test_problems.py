from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trainctl
from trainctl.check import check, check_words
from trainctl.check.machine import cores
from trainctl.config.compose import compose, plain

CONF = Path(trainctl.__file__).with_name("conf").resolve()


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentences on a machine with a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def problems(*words: str) -> list[str]:
    return check("train", plain(compose("train", words)))


def test_the_shipped_defaults_have_no_problem() -> None:
    assert problems() == []


CLASS = "val/accuracy, val/balanced_accuracy, val/precision, val/recall, val/f1, val/auroc, val/auprc, val/log_loss"
ERRORS = "val/error_q05, val/error_q25, val/error_q50, val/error_q75, val/error_q95"
NUMBER = f"val/mse, val/rmse, val/mae, val/r2, val/mape, {ERRORS}"
CORES = "1 core" if cores() == 1 else f"{cores()} cores"
SENTENCES = {
    "optimizer.lr=-1": "`optimizer.lr` must be > 0 or auto, got -1",
    "optimizer.lr=abc": "`optimizer.lr` must be a finite number or auto, got 'abc'",
    "optimizer.lr=nan": "`optimizer.lr` must be a finite number or auto, got nan",
    "optimizer.lr=inf": "`optimizer.lr` must be a finite number or auto, got inf",
    "data.batch_size=0": "`data.batch_size` must be a whole number ≥ 1, got 0",
    "data.batch_size=-1": "`data.batch_size` must be a whole number ≥ 1, got -1",
    "data.batch_size=8.0": "`data.batch_size` must be a whole number ≥ 1, got 8.0",
    'data.batch_size="8"': "`data.batch_size` must be a whole number ≥ 1, got the text '8'",
    'trainer.deterministic="yes"': "`trainer.deterministic` must be true or false (unquoted), got the text 'yes'",
    "trainer.max_epochs=0": "`trainer.max_epochs` must be a whole number ≥ 1, got 0",
    "trainer.max_epochs=-5": "`trainer.max_epochs` must be a whole number ≥ 1, got -5",
    "trainer.max_time=soon": (
        "`trainer.max_time` must be a duration such as 10m, 1h30m or 00:01:30:00, got the text 'soon'"
    ),
    "trainer.precision=bf16": (
        "`trainer.precision` must be one of 32-true, 16-mixed, bf16-mixed, 64-true, bf16-true, 16-true, 32, 64, "
        "got 'bf16'; did you mean `bf16-true`?"
    ),
    "trainer.devices=99": f"99 processes on {CORES}; pass `trainer.oversubscribe=true` to insist",
    "trainer.devices=0": "`trainer.devices` must be a whole number ≥ 1 or auto, got 0",
    "trainer.accelerator=gpu": (
        "no GPU is visible for `trainer.accelerator=gpu`; use `trainer.accelerator=cpu` or `auto`"
    ),
    "trainer=fsdp": "`trainer.strategy=fsdp` needs a GPU and none is visible; on the CPU use `trainer=ddp`",
    "trainer.strategy=fsdp": "`trainer.strategy=fsdp` needs a GPU; on the CPU use `trainer.strategy=ddp`",
    "train.monitor=val/los": (
        f"monitor `val/los` is not produced; have: val/loss, {CLASS}, val/brier, val/ece, {NUMBER}, train/loss; "
        "did you mean `val/loss`?"
    ),
    "train.folds=1": "`train.folds` must be a whole number ≥ 2, got 1",
    "train.mode=maximum": "`train.mode` must be one of auto, min, max, got 'maximum'; did you mean `max`?",
    "model.dropout=1": "`model.dropout` must be ≥ 0 and < 1, got 1",
    "model.hidden_dims=8": "`model.hidden_dims` must be a list of whole numbers ≥ 1 such as [128,128], got 8",
    "model.embedding_dim=x": "`model.embedding_dim` must be a whole number, got the text 'x'",
    "model.activation=rel": (
        "`model.activation` must be one of relu, gelu, silu, tanh, got 'rel'; did you mean `relu`?"
    ),
    "+model.typo=1": (
        "`model` has no parameter `typo`; it has: hidden_dims, dropout, activation, norm, embedding_dim, token_dim, "
        "num_layers"
    ),
    "+optimizer.amsgrd=true": "`optimizer` has no parameter `amsgrd`; did you mean `amsgrad`?",
    "ema=1": "`ema` must be > 0 and < 1, got 1",
    "freeze=[12,a]": "`freeze` must be a list of texts, got [12, 'a']; put numbers in quotes: \"['12','a']\"",
    "freeze=embed": "`freeze` must be a list such as [a,b], got the text 'embed'",
    "data.split.test=0.9": "`data.split` leaves nothing to train on: val 0.15 + test 0.9 must be < 1",
    "data.split={folds:3,fold:3}": "`data.split.fold` must be from 0 to 2, got 3",
    "task.loss=hubr": "`task.loss` must be one of auto, mse, mae, huber, got 'hubr'; did you mean `huber`?",
    "~model": "the config has no `model`; choose one with `model=...`",
    "~data": "the config has no `data`; choose one with `data=...`",
    "~optimizer": "the config has no `optimizer`; choose one with `optimizer=...`",
    "~trainer": "the config has no `trainer`; choose one with `trainer=...`",
    "~model._target_": "`model` has no `_target_`; name the class to make, as in `model._target_=my_pkg.MyClass`",
    "~data.batch_size": "",
    "optimizer.lr=auto": "",
    "trainer.max_time=1h30m": "",
    "trainer.devices=[0,1]": "",
    "trainer=ddp_sim": "",
}


@pytest.mark.parametrize("word", SENTENCES)
def test_one_problem_is_one_sentence(word: str) -> None:
    assert problems(word) == ([SENTENCES[word]] if SENTENCES[word] else [])


def test_all_problems_are_found_at_once() -> None:
    assert problems("optimizer.lr=-1", "trainer.max_epochs=0", "trainer.devices=99", "+model.typo=1") == [
        SENTENCES["optimizer.lr=-1"],
        SENTENCES["trainer.max_epochs=0"],
        SENTENCES["+model.typo=1"],
        SENTENCES["trainer.devices=99"],
    ]


def with_model(tmp_path: Path, **node: Any) -> list[str]:
    config = plain(compose("train"))
    return check("train", {**config, "model": node}, tmp_path / "conf")


TARGETS: list[tuple[dict[str, Any], list[str]]] = [
    ({"_target_": "torch.nn.Liner"}, ["`torch.nn.Liner` does not exist in torch.nn; did you mean `torch.nn.Linear`?"]),
    ({"_target_": 3}, ["`model._target_` must be a dotted path such as `torch.nn.Linear`, got 3"]),
    ({"_target_": "torch.nn"}, ["`torch.nn` is a module; `model._target_` must name a class or function in it"]),
    (
        {"_target_": "torch.nn.Linear", "in_feature": 3, "out_features": 2, "bias": "yes"},
        [
            "`model` has no parameter `in_feature`; did you mean `in_features`?",
            "`model.bias` must be true or false (unquoted), got the text 'yes'",
            "`model` needs `in_features`, which has no default; pass `+model.in_features=...`",
        ],
    ),
    ({"_target_": "torch.nn.Linear", "_args_": [3, 2]}, []),
    ({"_target_": "torch.nn.Linear", "_partial_": True}, []),
    (
        {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.ReLU", "inplac": True}]},
        ["`model._args_[0]` has no parameter `inplac`; did you mean `inplace`?"],
    ),
    ({"_target_": "theirs.Net", "spec": None, "dropout": 7, "inner": {"_target_": "torch.nn.ReLU"}}, []),
    ({"_target_": "theirs.Net"}, ["`model` needs `inner`, which has no default; pass `+model.inner=...`"]),
    ({"_target_": "theirs.Closed", "a": 1}, ["`model` has no parameter `a`; it has: none"]),
]


@pytest.mark.parametrize(("node", "sentences"), TARGETS)
def test_targets_and_their_arguments(node: dict[str, Any], sentences: list[str], tmp_path: Path) -> None:
    text = "class Net:\n    def __init__(self, spec, inner: int, dropout=None): ...\nclass Closed: ...\n"
    (tmp_path / "theirs.py").write_text(text, encoding="utf-8")
    assert with_model(tmp_path, **node) == sentences


def test_a_typo_in_a_file_is_found_in_sections_without_a_target() -> None:
    config = plain(compose("train"))
    config["train"]["monitr"] = "val/loss"
    config["trainer"]["xyz"] = 1
    assert check("train", config)[0] == "`train` has no parameter `monitr`; did you mean `monitor`?"
    assert check("train", config)[1].startswith("`trainer` has no parameter `xyz`; it has: accelerator, devices, ")


def test_a_monitor_is_judged_by_the_task() -> None:
    assert problems("task=regression", "train.monitor=val/accuracy") == [
        f"monitor `val/accuracy` is not produced; have: val/loss, {NUMBER}, train/loss"
    ]
    assert problems("+callbacks.early_stopping.monitor=val/auroc", "task=classification") == []
    config = plain(compose("train", ["train.monitor=anything"]))
    config["task"] = {"_target_": "torch.nn.Identity"}
    assert check("train", config) == []


def test_a_source_run_is_checked_too() -> None:
    config = plain(compose("train"))
    assert check_words("evaluate", ["evaluate.bootstrap=-1"], source=config) == [
        "`evaluate.bootstrap` must be a whole number ≥ 0, got -1"
    ]


def test_every_mistake_of_a_command_is_reported() -> None:
    words = ["model=cnnn", "model.channels=[3]", "optimizer.lrr=3", "data.path=(", "seed=-1", "+train.x=1"]
    assert check_words("train", words) == [
        "cannot read override 4 (`data.path=(`) at column 11 (`(`); quote it: 'data.path=\"(\"'",
        "no `model` option `cnnn`; have: cnn, forest, linear, lstm, mlp, resmlp, "
        "resnet, transformer, tree; did you mean `cnn`?",
        "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?",
        "`train` has no parameter `x`; it has: monitor, mode, folds, seeds, test, bootstrap",
        "`seed` must be a whole number from 0 to 4294967295, got -1",
    ]
    verbs = "compress, evaluate, export, predict, prune, quantize, train, tune"
    assert check_words("trian", []) == [f"no verb `trian`; have: {verbs}; did you mean `train`?"]


def test_checking_is_fast_and_leaves_torch_alone(tmp_path: Path) -> None:
    """Beside one composition by Hydra alone, since machines differ: 2.6 times as long, with three compositions."""
    alone = (
        "import json, time\n"
        "from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(CONF)!r}, version_base='1.3'):\n"
        "    compose('train')\n"
        "print(json.dumps({'cpu': time.process_time()}))\n"
    )
    code = (
        "import json, sys, time\n"
        "from trainctl.check import check_words\n"
        "found = check_words('train', ['logger=[csv,tensorboard,wandb]', 'model.hiden_dims=[8]'])\n"
        "heavy = sorted({'torch', 'pytorch_lightning', 'sklearn', 'polars', 'numpy'} & set(sys.modules))\n"
        "print(json.dumps({'found': found, 'heavy': heavy, 'cpu': time.process_time()}))\n"
    )

    def told(program: str) -> dict[str, Any]:
        command = [sys.executable, "-c", program]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path) for _ in range(2)]
        return dict(min((json.loads(run.stdout) for run in runs), key=lambda said: said["cpu"]))

    said = told(code)
    assert said["found"] == ["unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?"]
    assert said["heavy"] == []
    assert said["cpu"] < 5 * told(alone)["cpu"]
