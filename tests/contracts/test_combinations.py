"""Model x task x data combine freely: every model trains on every kind of data and target that it supports."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from trainctl.cli import app
from trainctl.models.inputs import MODELS_FOR

MODELS = sorted({name for names in MODELS_FOR.values() for name in names})
KINDS = sorted(MODELS_FOR)
SMALL = ("data=synthetic", "debug=fast", "data.rows=60", "data.batch_size=8", "data.image_shape=[1,8,8]",
         "data.sequence_length=6", "data.num_tokens=20", "trainer.accelerator=cpu", "--json")
SMALLER = {
    "cnn": ("model.channels=[4,8]", "model.hidden_dim=8"),
    "resnet": ("model.channels=[4,8]",),
    "transformer": ("model.dim=8", "model.num_heads=2", "model.num_layers=1"),
    "mlp": ("model.hidden_dims=[8]",),
    "resmlp": ("model.width=8",),
    "lstm": ("model.hidden_dim=4",),
    "forest": ("model.num_trees=3",),
}


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run(list(words))
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("target", ["class", "number"])
@pytest.mark.parametrize(("model", "kind"), [(m, k) for m in MODELS for k in KINDS if m in MODELS_FOR[k]])
def test_it_trains(model, kind, target, tmp_path):
    code, out, err = run(tmp_path, "train", *SMALL, f"model={model}", *SMALLER.get(model, ()), f"data.kind={kind}",
                         f"data.target={target}")
    assert code == 0, err
    assert ("test/accuracy" if target == "class" else "test/rmse") in out
    assert '"status": "completed"' in out


@pytest.mark.parametrize("target", ["class", "number"])
@pytest.mark.parametrize(("model", "kind"), [(m, k) for m in MODELS for k in KINDS if m not in MODELS_FOR[k]])
def test_it_is_refused_with_what_would_fit(model, kind, target, tmp_path):
    code, out, err = run(tmp_path, "train", *SMALL, f"model={model}", f"data.kind={kind}", f"data.target={target}")
    fitting = [f"model={name}" for name in MODELS_FOR[kind]]
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"trainctl: error: model={model} needs ")
    assert last.endswith(f"; use {', '.join(fitting[:-1])} or {fitting[-1]}")
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(("task", "target", "message"), [
    ("classification", "number",
     "`task=classification` needs a class to predict, but the target is a number; use `task=regression` or "
     "`task=auto`, or set `data.target_kind=class`"),
    ("regression", "class",
     "`task=regression` needs a number to predict, but the target is a class; use `task=classification` or "
     "`task=auto`, or set `data.target_kind=number`"),
])
def test_a_task_for_the_other_target_is_refused(task, target, message, tmp_path):
    code, _, err = run(tmp_path, "train", *SMALL, f"task={task}", f"data.target={target}")
    assert (code, err.splitlines()[-1]) == (2, f"trainctl: error: {message}")
