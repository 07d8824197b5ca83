"""What `export` refuses, and what it leaves behind: nothing under the final name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.verbs.exports import predicted, refused, stranger
from trainctl.compression.onnx_net import OnnxNet, to_onnx
from trainctl.errors import UsageError
from trainctl.exporting import onnx_file
from trainctl.exporting.subjects import subject
from trainctl.run.run import Run
from trainctl.verbs import export as verb
from trainctl.verbs import restore


def test_options_that_do_not_fit_are_refused_before_a_run_is_made(folder, classes: Run, tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_text("mine", encoding="utf-8")
    (tmp_path / "dir.onnx").mkdir()
    kinds = "exports are .onnx, .pt2 (torch_export) or .safetensors"
    weights = "`format=safetensors` holds weights alone, no preprocessing; leave out `preprocessing=true` or use "
    for words, sentence in (
        (["format=onx"], "`format` must be one of onnx, torch_export, safetensors, got 'onx'; did you mean `onnx`?"),
        (["opset=12"], "`opset` must be a whole number from 17 to 24 or auto, got 12"),
        (["format=safetensors", "preprocessing=true"], weights + "`format=onnx` or `format=torch_export`"),
        (["format=torch_export", "opset=18"], "`opset` is of ONNX; leave it out with `format=torch_export`"),
        (["-o", tmp_path / "there.onnx"], f"`{tmp_path}/there.onnx` exists; pass `--force` to replace it"),
        (["-o", tmp_path / "o.txt"], f"cannot write `{tmp_path}/o.txt`: {kinds}; e.g. `-o o.onnx`"),
        (["-o", tmp_path / "dir.onnx"], f"cannot write `{tmp_path}/dir.onnx`: it is a directory; name a file in it"),
        (["-o", tmp_path / "no/o.onnx"],
         f"cannot write `{tmp_path}/no/o.onnx`: there is no directory `{tmp_path}/no`"),
        (["-o", tmp_path / "o.pt2"], f"`{tmp_path}/o.pt2` does not fit `format=onnx`, which is .onnx; "
                                     "use `format=torch_export` or `-o o.onnx`"),
    ):  # fmt: skip
        assert refused(folder("export", classes.path, *words)) == (2, sentence)
    assert not list((folder.path / "runs").glob("export/*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.onnx", "there.onnx"]


@pytest.mark.slow
def test_a_file_that_gives_other_values_never_gets_its_name(folder, classes: Run, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    out.write_text("the one before", encoding="utf-8")
    code, sentence = refused(folder("export", classes.path, "tolerance=1e-12", "-o", out, "--force"))
    assert code == 8
    assert sentence.startswith("the written file gives other values than the run on 90 rows of val: the largest ")
    assert sentence.endswith("nothing was kept; pass a larger `tolerance=` if that will do")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"] and out.read_text("utf-8") == "the one before"
    failed = folder.latest("export")
    assert failed.status == "failed" and not list(failed.path.glob("*.onnx"))
    folder.done("export", classes.path, "-o", out, "--force")
    assert onnxruntime.InferenceSession(out.read_bytes()).get_outputs()[0].name == "y"


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(forked, folder, classes: Run, tmp_path: Path) -> None:
    words = ("export", str(classes.path), "preprocessing=true", "-o", str(tmp_path / "net.onnx"))
    done = forked.run(*words, cwd=folder.path, limits={"RLIMIT_FSIZE": 12_000})
    said = "trainctl: error: the limit on file sizes (ulimit -f) is reached writing"
    assert done.code == 5 and done.err.splitlines()[-1].startswith(said)
    assert not list(tmp_path.iterdir())


def test_a_run_without_weights_is_refused(folder, classes: Run, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    run = Run.create(tmp_path / "half", "train", classes.config, [])
    run.fail(RuntimeError("it broke"), 1, "")
    assert refused(folder("export", run.path)) == (
        4,
        "`half` has no model.safetensors (status failed); finish it with `trainctl train --resume`",
    )


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", [False, True])
def test_a_run_whose_model_is_an_onnx_file_ships_that_graph(
    folder, classes: Run, preprocessing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    torch.set_num_threads(1)
    data, task = restore.restore(classes, classes.config)
    content = to_onnx(task.net, torch.zeros(2, 5))
    task.net = OnnxNet(content)
    chosen = subject(task, data, 50, preprocessing, texts=True)
    made = onnx_file.write(chosen, None, {"trainctl": "0"})
    if preprocessing:
        new = folder.path / "new.csv"
        assert np.abs(stranger(made, new) - predicted(folder, classes, new)).max() < 1e-6
    else:
        given = onnxruntime.InferenceSession(made).run(None, chosen.sample.feed)[0]
        assert np.array_equal(given, chosen.sample.expected)
    with pytest.raises(UsageError) as caught:
        onnx_file.write(chosen, 18, {"trainctl": "0"})
    assert str(caught.value) == (
        "the run's model is an ONNX file in opset 20 already, which is shipped as it is; leave out `opset=18`"
    )
    options = verb.Options("torch_export", preprocessing, None, 50, 1e-4)
    with pytest.raises(UsageError) as caught:
        verb.refuse(options, task)
    assert str(caught.value) == (
        "the run's model is `model.onnx`, which `format=torch_export` cannot hold; use `format=onnx`"
    )


