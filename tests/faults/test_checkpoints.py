"""Checkpoints that are missing, damaged, foreign or of another net (rows 37 to 43), and weights likewise."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from trainctl.errors import RunError
from trainctl.run import checkpoints
from trainctl.run.run import Run

EXTEND = ("train", "--resume", "latest", "trainer.max_epochs=5")


def replace(path: Path, content: bytes) -> None:
    """A new file under the name: last, prev and best may be one file."""
    path.unlink()
    path.write_bytes(content)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))


def untouched(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".log") and path.name != ".lock"
    }


def refused_and_kept(shell, *words: str) -> str:
    """The sentence of a resume that is refused with code 4; the run is as it was."""
    before = untouched(shell.run())
    sentence = shell.error(4, *words)
    assert untouched(shell.run()) == before
    return sentence


def plant(run: Path, content: Any, raw: bytes | None = None) -> None:
    """Make `content` the run's last checkpoint, with a digest that the manifest knows."""
    path = run / "checkpoints" / "last.ckpt"
    path.unlink()
    if raw is None:
        torch.save(content, path)
    else:
        path.write_bytes(raw)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["checkpoints"][digest] = {"size": path.stat().st_size, "epoch": 3, "step": 21}
    manifest["names"]["last"] = digest
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_row_37_no_checkpoint(spoiled):
    run = spoiled.run()
    shutil.rmtree(run / "checkpoints")
    name = f"runs/train/{run.name}"
    assert refused_and_kept(spoiled, *EXTEND) == (
        f"run `{name}` keeps no checkpoint; begin from its weights with `trainctl train --from {name}`"
    )


def test_row_37_only_the_best_is_left(spoiled):
    for name in ("last", "prev"):
        (spoiled.run() / "checkpoints" / f"{name}.ckpt").unlink()
    assert refused_and_kept(spoiled, *EXTEND) == (
        "no checkpoint `last`; the run has: best, and `prev` cannot be used either; `best` is still there: start a new "
        "run from it with `--from`"
    )


def test_row_38_a_last_that_is_cut_off_gives_way_to_prev(spoiled):
    run = spoiled.run()
    last = run / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    replace(last, content[: len(content) // 2])
    done = spoiled(*EXTEND)
    assert done.code == 0, done.err
    half, whole = f"{len(content) // 2 / 1000:.3g}", f"{len(content) / 1000:.3g}"
    assert f"warning: `last` is damaged (size {half} of {whole} kB); using `prev` (epoch 2)\n" in done.err
    assert "resuming from `prev`: 2 epochs done, step 14\n" in done.err
    assert (run / "checkpoints" / "last.ckpt.damaged").read_bytes() == content[: len(content) // 2]
    assert len(Run.open(run).metrics_log()) == 5


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_row_39_what_is_no_checkpoint(spoiled, content):
    for name in ("last", "prev"):
        path = spoiled.run() / "checkpoints" / f"{name}.ckpt"
        path.unlink()
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
    assert refused_and_kept(spoiled, *EXTEND) == (
        "`last` is not a checkpoint, and `prev` cannot be used either; `best` is still there: start a new run from it "
        "with `--from`"
    )


def test_row_40_a_flipped_bit_in_a_checkpoint(spoiled):
    for name in ("last", "prev"):
        flip(spoiled.run() / "checkpoints" / f"{name}.ckpt")
    assert refused_and_kept(spoiled, *EXTEND) == (
        "`last` fails its checksum, and `prev` cannot be used either; `best` is still there: start a new run from it "
        "with `--from`"
    )


VERBS = [("evaluate", "latest"), ("predict", "latest", "rows.csv"), ("train", "--from", "latest", "seed=1")]


@pytest.mark.parametrize("words", VERBS)
def test_row_40_a_flipped_bit_in_the_weights(spoiled, words):
    (spoiled.folder / "rows.csv").write_text("a\n1\n", encoding="utf-8")
    flip(spoiled.run() / "model.safetensors")
    assert spoiled.refused(4, *words) == "`model.safetensors` fails its checksum"


def test_rows_37_to_39_for_the_weights(spoiled):
    weights = spoiled.run() / "model.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:100])
    assert spoiled.refused(4, "evaluate", "latest") == (
        f"`model.safetensors` is damaged (size 0.1 of {size / 1000:.3g} kB)"
    )
    weights.unlink()
    assert spoiled.refused(4, "evaluate", "latest") == (
        "`model.safetensors` is missing from its run; restore it or run again"
    )


def test_row_40_a_flipped_bit_in_the_preprocessing(spoiled):
    spec = spoiled.run() / "preprocessing" / "spec.json"
    spec.write_text(spec.read_text(encoding="utf-8").replace("class", "clasz", 1), encoding="utf-8")
    assert spoiled.refused(4, "evaluate", "latest") == "`preprocessing/spec.json` fails its checksum"
    spec.unlink()
    assert spoiled.refused(4, "evaluate", "latest") == (
        "`preprocessing/spec.json` is missing from its run; restore it or run again"
    )


def test_row_41_weights_of_another_net(spoiled):
    run = spoiled.run()
    assert spoiled.refused(4, "evaluate", "latest", "model.hidden_dims=[32]") == (
        f"weights of `{run.name}` do not fit: `1.weight` is [128, 42] in the run and [32, 42] in the config's net"
    )
    assert spoiled.refused(4, "train", "--from", "latest", "model=linear") == (
        f"no weight of `{run.name}` fits this net: `0.embed.weight` is [36, 8] in the run and [36, 2] in the config's "
        "net"
    )
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["hidden_dims"] = [32]
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert refused_and_kept(spoiled, *EXTEND) == (
        "the checkpoint is not of the net in the run's config: `net.1.weight` is [128, 42] there and [32, 42] here"
    )


class Payload:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_row_42_code_in_a_checkpoint_is_refused_and_does_not_run(spoiled):
    mark = spoiled.folder / "executed"
    for wrap in (lambda it: it, lambda it: {"state_dict": it}, lambda it: {"state_dict": {"net.1.weight": it}}):
        plant(spoiled.run(), wrap(Payload(mark)))
        assert refused_and_kept(spoiled, *EXTEND) == "`last.ckpt` contains code (posix.mkdir); refused"
    plant(spoiled.run(), None, raw=pickle.dumps(Payload(mark)))
    assert refused_and_kept(spoiled, *EXTEND) == "`last.ckpt` is not a checkpoint of tensors; refused"
    assert not mark.exists()


def test_row_42_a_checkpoint_that_is_not_ours(spoiled):
    for content in ({"hyper_parameters": {"_instantiator": "os.system"}}, [1, 2], torch.zeros(3)):
        plant(spoiled.run(), content)
        assert refused_and_kept(spoiled, *EXTEND) == "`last.ckpt` is not a checkpoint of a run: it lacks `state_dict`"
    plant(spoiled.run(), {"state_dict": {}})
    assert refused_and_kept(spoiled, *EXTEND) == "`last.ckpt` is not a checkpoint of a run: it lacks `place`"


def test_row_43_a_complete_run_says_so_and_is_left_alone(spoiled):
    before = untouched(spoiled.run())
    done = spoiled("train", "--resume", "latest")
    assert done.code == 0
    assert done.err == (
        "warning: run is already complete (epoch 3 of 3); use trainer.max_epochs= to extend\n"
    )
    assert untouched(spoiled.run()) == before


def test_a_run_resumes_to_no_less_than_it_has_done(spoiled):
    before = untouched(spoiled.run())
    assert spoiled.error(2, "train", "--resume", "latest", "trainer.max_epochs=2") == (
        "the run has done 3 epochs; `trainer.max_epochs` must be 3 or more, got 2"
    )
    assert spoiled.error(2, "train", "--resume", "latest", "trainer.max_epochs=0") == (
        "`trainer.max_epochs` must be a whole number ≥ 1, got 0"
    )
    assert spoiled.error(2, "train", "--resume", "latest", "optimizer.lr=1") == (
        "a resumed run keeps its config; only trainer.max_epochs, trainer.max_time, "
        "callbacks.early_stopping.patience, trainer.threads may change, got `optimizer.lr=1`; start a new run with "
        "`trainctl train --from RUN` instead"
    )
    assert untouched(spoiled.run()) == before


def test_every_one_of_many_flipped_bits_is_found(spoiled):
    """200 single flips, by the same road as `--resume`, without a process for each."""
    run, where = spoiled.run(), random.Random(0)
    path = run / "checkpoints" / "best.ckpt"
    content = path.read_bytes()
    for _ in range(200):
        bit = where.randrange(len(content) * 8)
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        replace(path, bytes(damaged))
        with pytest.raises(RunError):
            checkpoints.find(run, "best")
    replace(path, content)
    assert checkpoints.find(run, "best").epoch == 3
