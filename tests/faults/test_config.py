"""Wrong configs (rows 1 to 17 of the list of faults): one sentence, exit code 2, nothing created."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainctl.check.machine import cores

KEYS = "unknown key `foo`; have: seed, compile, ema, freeze, train, paths, data, model, task, optimizer, scheduler, "
SENTENCES = {
    # 1, 2, 3: keys
    "model.hiden_dims=[8]": "unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?",
    "modl.lr=1": "unknown group `modl`; did you mean `model`?",
    "+model.typo=1": (
        "`model` has no parameter `typo`; it has: hidden_dims, dropout, activation, norm, embedding_dim, token_dim, "
        "num_layers"
    ),
    "+foo=1": f"{KEYS}trainer, callbacks, logger",
    "data.split={vall:0.1}": "unknown key `data.split.vall`; did you mean `data.split.val`?",
    "lr=1": "unknown key `lr`; did you mean `optimizer.lr`?",
    # 4, 5, 6, 7, 8: values
    "optimizer.lr=-1": "`optimizer.lr` must be > 0 or auto, got -1",
    "optimizer.lr=abc": "`optimizer.lr` must be a finite number or auto, got 'abc'",
    "optimizer.lr=nan": "`optimizer.lr` must be a finite number or auto, got nan",
    "optimizer.lr=inf": "`optimizer.lr` must be a finite number or auto, got inf",
    "optimizer.lr=": "`optimizer.lr` must be a finite number or auto, got ''",
    "data.batch_size=0": "`data.batch_size` must be a whole number ≥ 1, got 0",
    "data.batch_size=-1": "`data.batch_size` must be a whole number ≥ 1, got -1",
    "data.batch_size=8.0": "`data.batch_size` must be a whole number ≥ 1, got 8.0",
    'data.batch_size="8"': "`data.batch_size` must be a whole number ≥ 1, got the text '8'",
    'trainer.deterministic="yes"': "`trainer.deterministic` must be true or false (unquoted), got the text 'yes'",
    "trainer.max_epochs=0": "`trainer.max_epochs` must be a whole number ≥ 1, got 0",
    "trainer.max_epochs=-5": "`trainer.max_epochs` must be a whole number ≥ 1, got -5",
    "trainer.threads=0": "`trainer.threads` must be a whole number ≥ 1 or auto, got 0",
    "trainer.max_time=soon": (
        "`trainer.max_time` must be a duration such as 10m, 1h30m or 00:01:30:00, got the text 'soon'"
    ),
    "model.hidden_dims=[0]": "`model.hidden_dims` must be a list of whole numbers ≥ 1 such as [128,128], got [0]",
    # 9, 10: the grammar of overrides
    "ckpt=epoch=9-step=80.ckpt": (
        "cannot read override 6: the value contains `=`; quote it: 'ckpt=\"epoch=9-step=80.ckpt\"'"
    ),
    "data.path=a(b.csv": (
        "cannot read override 6 (`data.path=a(b.csv`) at column 18 (its end); quote it: 'data.path=\"a(b.csv\"'"
    ),
    "data.path=😀.csv": (
        "cannot read override 6 (`data.path=😀.csv`) at column 11 (`😀.csv`); quote it: 'data.path=\"😀.csv\"'"
    ),
    "data.path=[a": "cannot read override 6 (`data.path=[a`) at column 13 (its end); quote it: 'data.path=\"[a\"'",
    "data.path=a,b": (
        "`data.path=a,b` gives several values; add `-m` to run each, or write `data.path=[a,b]` for a list or "
        "'data.path=\"a,b\"' for a text"
    ),
    "": "override 6 (``) has no key; write it as `key=value`",
    "=3": "override 6 (`=3`) has no key; write it as `key=value`",
    "model": "`model` is not an override; write it as `model=VALUE`",
    # 11, 12: what does not exist
    "model.dropout=${nope}": "`model.dropout` refers to `nope`, which does not exist",
    "model.dropout=${oc.env:TRAINCTL_NOT_SET}": (
        "`model.dropout` needs the environment variable `TRAINCTL_NOT_SET`, which is not set"
    ),
    "model=mlp2": (
        "no `model` option `mlp2`; have: cnn, forest, linear, lstm, mlp, resmlp, "
        "resnet, transformer, tree; did you mean `mlp`?"
    ),
    "model=null": (
        "`model=null` names no option; have: cnn, forest, linear, lstm, mlp, resmlp, resnet, transformer, tree"
    ),
    "~model": "the config has no `model`; choose one with `model=...`",
    "~train": "the config has no `train`; leave out the override that removes it",
    "train=null": "the config has no `train`; leave out the override that removes it",
    "~trainer.devices": "the config has no `trainer.devices`; set it with `trainer.devices=...`",
    # 13: targets
    "model._target_=torch.nn.Liner": "`torch.nn.Liner` does not exist in torch.nn; did you mean `torch.nn.Linear`?",
    "model._target_=nope.Net": "`nope.Net` cannot be found: there is no module `nope`; is it installed?",
    "model._target_=os.system": (
        "`os.system` is refused as `model._target_`: it runs commands or code and makes no component"
    ),
    # 14, 15, 16: the machine
    "trainer.devices=9999": f"9999 processes on {cores()} cores; pass `trainer.oversubscribe=true` to insist",
    "trainer.accelerator=gpu": (
        "no GPU is visible for `trainer.accelerator=gpu`; use `trainer.accelerator=cpu` or `auto`"
    ),
    "trainer.strategy=fsdp": "`trainer.strategy=fsdp` needs a GPU; on the CPU use `trainer.strategy=ddp`",
    "trainer.strategy=dpp": (
        "`trainer.strategy` must be one of auto, ddp, ddp_find_unused_parameters_true, fsdp, got 'dpp'; "
        "did you mean `ddp`?"
    ),
    "trainer.precision=16-mixed": (
        "`trainer.precision=16-mixed` needs a GPU; on the CPU use `trainer.precision=bf16-mixed`"
    ),
    # 17: names of metrics
    "train.mode=maximum": "`train.mode` must be one of auto, min, max, got 'maximum'; did you mean `max`?",
    "hydra.run.dir=/tmp/x": (
        "`hydra.run.dir=/tmp/x` has no effect on a single run; Hydra's own settings are for `-m`"
    ),
}


# found when the data is known
LATE = {
    "freeze=[nothing*]": (
        "`freeze` pattern 'nothing*' matches no parameter; there are: 0.embed.weight, 1.weight, 1.bias, 3.weight, "
        "3.bias, 5.weight, 5.bias"
    ),
    "task=regression": (
        "`task=regression` needs a number to predict, but the target is a class; use `task=classification` or "
        "`task=auto`, or set `data.target_kind=number`"
    ),
    "model=cnn": (
        "model=cnn needs images, but the data are a table; use model=linear, model=mlp, model=resmlp, "
        "model=transformer, model=tree or model=forest"
    ),
    "data.rows=0": "`data.rows` is 0; it must be a whole number of 1 or more",
}


@pytest.mark.parametrize("word", SENTENCES)
def test_one_mistake_is_one_sentence(here, word):
    assert here.refused(2, *here.quick, word) == SENTENCES[word]


@pytest.mark.parametrize("word", LATE)
def test_what_does_not_go_together_leaves_nothing_either(shell, word):
    assert shell.refused(2, *shell.quick, word) == LATE[word]


def test_row_17_a_metric_that_is_not_produced(here):
    sentence = here.refused(2, *here.quick, "train.monitor=val/los")
    assert sentence.startswith("monitor `val/los` is not produced; have: val/loss, val/accuracy, ")
    assert sentence.endswith(", train/loss; did you mean `val/loss`?")
    assert here.refused(2, *here.quick, "train.monitor=val/rmse") == (
        "monitor `val/rmse` is not produced; have: train/loss, val/loss, val/accuracy, val/balanced_accuracy, "
        "val/precision, val/recall, val/f1, val/auroc, val/auprc, val/log_loss, val/brier, val/ece; "
        "did you mean `val/brier`?"
    )


def test_all_mistakes_are_told_at_once(here):
    words = ["optimizer.lr=-1", "trainer.max_epochs=0", "trainer.devices=9999"]
    assert here.refused(2, *here.quick, *words) == (
        f"3 problems in the config: {SENTENCES[words[0]]}; {SENTENCES[words[1]]}; {SENTENCES[words[2]]}"
    )


def test_mistakes_in_the_config_of_a_sweep_run_nothing(here):
    assert here.refused(2, *here.quick, "-m", "seed=1,2", "optimizer.lr=0.1,-1") == SENTENCES["optimizer.lr=-1"]
    assert here.refused(2, *here.quick, "-m", "model=mlp,mlq").startswith("no `model` option `mlq`; have: ")
    assert here.refused(2, *here.quick, "-m", "optimizer.lr=interval(0.1,1)") == (
        "`optimizer.lr=interval(0.1,1)` is a continuous range, which a grid cannot run through; "
        "list the values, as in `optimizer.lr=1,2,3` or `optimizer.lr=range(1,10)`"
    )


def test_mistakes_in_files(here):
    folder = here.folder / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("a: [1\n", encoding="utf-8")
    (folder / "mlp.yaml").write_text("_target_: my_pkg.Net\n", encoding="utf-8")
    assert here.refused(2, *here.quick, "model=broken").startswith(
        f"`{folder / 'broken.yaml'}` line 2, column 1 is not valid YAML: "
    )
    assert here.refused(2, *here.quick, "model=mlp") == (
        f"`{folder / 'mlp.yaml'}` has the name of a built-in `model` option; rename it to use it"
    )
    assert here.refused(2, *here.quick, "-C", "nowhere") == (
        "config folder `nowhere` does not exist; pass a folder with `--config-dir`"
    )


def test_a_config_mistake_does_not_import_torch(tmp_path):
    words = ["train", "model.hiden_dims=[8]"]
    code = "import sys; from trainctl.cli.app import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "False\n"
    assert done.stderr == "trainctl: error: unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?\n"
