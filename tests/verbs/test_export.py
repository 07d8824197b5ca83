"""`export` through the real command: what the files give to whoever knows nothing of trainctl, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from safetensors import safe_open

from tests.verbs.exports import messy, predicted, refused, stranger
from trainctl.run.run import Run


def test_raw_rows_give_what_predict_gives_by_onnx_runtime_alone(folder, tmp_path: Path) -> None:
    table, new = messy(tmp_path / "table.csv", 600, 0), messy(tmp_path / "new.csv", 300, 1)
    words = ("data=tabular", f"data.path={table}", "data.target=rich", "trainer.threads=1", "trainer.max_epochs=8")
    words += ("model=mlp", "model.hidden_dims=[32]", "optimizer.lr=0.01", "+data.columns.few=categorical")
    run = folder.done("train", *words)
    made = folder.done("export", run.path, "preprocessing=true", "rows=50")
    expected = predicted(folder, run, new)
    assert np.abs(stranger(made.path / "model.onnx", new) - expected).max() < 1e-6
    assert expected.std(0).min() > 0.1
    assert [(port["name"], port["dtype"]) for port in made.record["export"]["inputs"]] == [
        ("wage", "float64"), ("few", "string"), ("flag", "float64"), ("seen", "string"), ("when", "float64"),
        ("city", "string"),
    ]  # fmt: skip
    about = made.record["export"]
    assert (about["rows"], about["split"], about["opset"]) == (50, "val", 20)
    assert made.metrics["export/agreement"] == 1.0 and made.metrics["export/max_abs_difference"] < 1e-6
    assert made.metrics["export/bytes"] == (made.path / "model.onnx").stat().st_size
    assert (made.parent, run.test_looks()) == (run.path, 1)  # test was looked at by `train` alone


@pytest.mark.slow
def test_a_number_comes_out_in_its_own_unit(folder, numbers: Run) -> None:
    made = folder.done("export", numbers.path, "preprocessing=true")
    expected = predicted(folder, numbers, folder.path / "new.csv")
    given = stranger(made.path / "model.onnx", folder.path / "new.csv")
    assert given.shape == expected.shape == (90,) and np.abs(given / expected - 1).max() < 1e-5
    assert made.record["export"]["gives"][0]["name"] == "value" and "export/agreement" not in made.metrics
    assert made.metrics["export/max_relative_difference"] < 1e-6


def test_the_net_alone_says_in_its_metadata_what_its_input_means(folder, classes: Run, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    code, said, err = folder("export", classes.path, "opset=18", "-o", out, "--json")
    assert code == 0, err
    answer = json.loads(said)
    assert (answer["verb"], answer["artifacts"]["export"]) == ("export", str(out))
    assert err.splitlines()[-3:-1] == ["in: x float32 [batch, 5]", "out: y float32 [batch, 2]"]
    model = onnx.load(out)
    assert [entry.version for entry in model.opset_import] == [18]
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["run"] == f"train/{classes.name}" and json.loads(about["classes"]) == ["no", "yes"]
    assert json.loads(about["columns"]) == ["age", "wage", "age (linear)", "wage (linear)", "sex"]
    assert json.loads(about["vocabulary"]) == {"sex": ["f", "m"]}
    assert b".py" not in out.read_bytes() and str(folder.path).encode() not in out.read_bytes()


def test_a_torch_program_takes_numbers_and_codes(folder, classes: Run) -> None:
    made = folder.done("export", classes.path, "format=torch_export", "preprocessing=true")
    content = (made.path / "model.pt2").read_bytes()
    about = {"trainctl.json": ""}
    program = torch.export.load(io.BytesIO(content), extra_files=about).module()
    known = json.loads(about["trainctl.json"])["vocabulary"]["sex"]
    frame = pl.read_csv(folder.path / "new.csv")
    numbers = torch.from_numpy(frame.select("age", "wage").cast(pl.Float64).to_numpy())
    codes = torch.tensor([[known.index(value) + 1] for value in frame["sex"]])
    expected = predicted(folder, classes, folder.path / "new.csv")
    assert np.abs(program(numbers, codes).detach().numpy() - expected).max() < 1e-6
    assert program(numbers[:1], codes[:1]).shape == (1, 2)
    assert b".py" not in content


def test_weights_alone_say_which_net_they_are_of(folder, classes: Run) -> None:
    made = folder.done("export", classes.path, "format=safetensors")
    with safe_open(made.path / "model.safetensors", "pt") as file, safe_open(
        classes.path / "model.safetensors", "pt"
    ) as own:
        about = json.loads(file.metadata()["trainctl"])
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {  # noqa: SIM118
            name: own.get_tensor(name).tolist() for name in own.keys()  # noqa: SIM118
        }
    assert about["model"] == classes.config["model"] and about["spec"]["classes"] == ["no", "yes"]
    assert made.metrics["export/max_abs_difference"] == 0.0


@pytest.mark.slow
def test_images_go_in_as_bytes_or_normalised(folder) -> None:
    run = folder.done("train", "data=digits", "model=linear", "trainer.max_epochs=1", "trainer.threads=1")
    image = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8).numpy()
    raw, net = (folder.done("export", run.path, *words).path / "model.onnx" for words in (["preprocessing=true"], []))
    given = onnxruntime.InferenceSession(raw.read_bytes()).run(None, {"image": image})[0]
    about = {entry.key: entry.value for entry in onnx.load(net).metadata_props}
    mean, std = (np.array(json.loads(about[name]), np.float32) for name in ("mean", "std"))
    y = onnxruntime.InferenceSession(net.read_bytes()).run(None, {"x": (image / np.float32(255) - mean) / std})[0]
    shares = np.exp(y - y.max(1, keepdims=True))
    assert np.abs(given - shares / shares.sum(1, keepdims=True)).max() < 1e-5


def test_sequences_are_token_ids_and_synthetic_rows_have_no_raw_columns(folder) -> None:
    quick = ("trainer.max_epochs=1", "trainer.threads=1", "data.rows=300", "model=linear")
    run = folder.done("train", "data=synthetic_sequences", *quick)
    assert folder.done("export", run.path).record["export"]["inputs"][0]["dtype"] == "int64"
    assert refused(folder("export", run.path, "preprocessing=true")) == (
        2,
        "the run's data are token ids, which the net takes as they are: there is no preprocessing of text to include; "
        "leave out `preprocessing=true`",
    )
    run = folder.done("train", "data=synthetic", *quick)
    assert refused(folder("export", run.path, "preprocessing=true")) == (
        2,
        "Synthetic has no raw columns whose preprocessing could be included; leave out `preprocessing=true`",
    )
