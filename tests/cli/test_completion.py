from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainctl.cli.completion import complete

MODELS = ["cnn", "forest", "linear", "lstm", "mlp", "resmlp", "resnet", "transformer", "tree"]
CNN = [
    f"model.{key}="
    for key in ("activation", "block", "channels", "dropout", "hidden_dim", "kernel", "norm", "num_blocks")
]
CASES: list[tuple[str, list[str], list[str]]] = [
    ("model=", [], [f"model={name}" for name in MODELS]),
    ("model=m", ["train"], ["model=mlp"]),
    ("model=mlp,li", [], ["model=mlp,linear"]),
    ("+model=mlp,li", [], ["+model=mlp,linear"]),
    ("model.hid", [], ["model.hidden_dims="]),
    ("model.", ["model=cnn"], CNN),
    ("model.", ["experiment=fashion_cnn"], CNN),
    ("~model.dr", ["model=cnn"], ["~model.dropout="]),
    ("optim", [], ["optimizer.", "optimizer="]),
    ("exp", [], ["experiment="]),
    ("see", [], ["seed="]),
    ("trainer.det", ["trainer=cpu"], ["trainer.deterministic="]),
    ("trainer.deterministic=", [], ["trainer.deterministic=false", "trainer.deterministic=true"]),
    ("trainer.deterministic=t", [], ["trainer.deterministic=true"]),
    ("optimizer.lr=", [], []),
    ("data.spl", [], ["data.split."]),
    ("data.split.k", [], ["data.split.kind="]),
    ("callbacks.", [], ["callbacks.early_stopping."]),
    ("evaluate.b", ["evaluate", "runs/x"], ["evaluate.bootstrap="]),
    ("data.batch", ["evaluate"], ["data.batch_size="]),
    ("nope.", [], []),
    ("seed.x", [], []),
    ("zzz", [], []),
]


@pytest.mark.parametrize(("incomplete", "words", "expected"), CASES)
def test_what_may_follow(incomplete: str, words: list[str], expected: list[str]) -> None:
    assert complete(incomplete, words) == expected


def test_a_users_options_are_offered(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: a.B\nwidth: 3\n", encoding="utf-8")
    assert complete("model=mi", [], tmp_path) == ["model=mine"]
    assert complete("model.", ["model=mine"], tmp_path) == ["model.width="]


def test_a_broken_folder_offers_nothing(tmp_path: Path) -> None:
    assert complete("model=", [], tmp_path / "nowhere") == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("a: [1", encoding="utf-8")
    assert complete("model.", ["model=mine"], tmp_path) == []


def test_completing_is_fast_and_imports_little() -> None:
    code = (
        "import json, sys, time\n"
        "from trainctl.cli.completion import complete\n"
        "found = complete('model=m')\n"
        "heavy = sorted({'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules))\n"
        "print(json.dumps([found, heavy, time.process_time()]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, heavy, cpu = json.loads(done.stdout)
    assert (found, heavy) == (["model=mlp"], [])
    assert cpu < 0.25
