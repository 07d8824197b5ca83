"""prune and quantize through the command line: an ordinary run, an honest record, budgets, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from trainctl.run.run import Run

QUICK = ("measure.calls=10", "measure.seconds=0.05", "measure.bootstrap=20")
MLP = ("data.rows=900", "model.hidden_dims=[64,64]", "trainer.max_epochs=4")


@pytest.fixture(scope="module")
def trained(forked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained mlp: `runs/train/...` in it is what the tests read; none of them changes it."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("data=synthetic", "data.batch_size=64", "trainer.threads=1", *MLP)
    done = forked.run("train", *words, "--runs-dir", str(folder / "runs"), "--json", cwd=folder)
    assert done.code == 0, done.err
    return folder / json.loads(done.out)["run"]


@pytest.fixture
def made(lab: Any, trained: Path) -> Callable[..., tuple[Run, dict[str, Any]]]:
    """The run that a verb makes of the trained one, and its compression.json."""

    def make(verb: str, *words: str, source: Path = trained) -> tuple[Run, dict[str, Any]]:
        run = lab.run(verb, str(source), *QUICK, *words)
        return run, json.loads((run.path / "compression.json").read_text())

    return make


def evaluated(lab: Any, run: Run) -> dict[str, Any]:
    """The figures of `evaluate`, in a process of its own."""
    done = lab("evaluate", str(run.path), "evaluate.bootstrap=20", "--json")
    assert done.code == 0, done.err
    return dict(done.json["metrics"])


WAYS = [
    ("prune", "compressor=channels", "trainer.max_epochs=1"),
    ("prune", "compressor=magnitude", "trainer.max_epochs=1"),
    ("quantize", "compressor=int8_static"),
    ("quantize", "compressor=int8_dynamic"),
    ("quantize", "compressor=bf16", "backend=torch"),
]


@pytest.mark.slow
@pytest.mark.parametrize("words", WAYS, ids=lambda words: words[1])
def test_a_fresh_process_measures_exactly_what_was_printed(lab: Any, made: Any, words: tuple[str, ...]) -> None:
    run, _ = made(*words)
    again = evaluated(lab, run)
    assert {name: again[name] for name in run.metrics if name.startswith("test/")} == {
        name: value for name, value in run.metrics.items() if name.startswith("test/")
    }


def test_evaluating_a_compressed_run_compares_it_with_its_parent(lab: Any, made: Any) -> None:
    run, content = made("prune", "compressor.amount=0.5", "finetune=false")
    done = lab("evaluate", str(run.path), "evaluate.bootstrap=20", "--json")
    found = Run.open(lab.folder / done.json["run"]).record["versus_parent"]
    assert found["agreement"] == content["after"]["agreement"]["test"] == done.json["metrics"]["test/agreement"]
    assert found["difference"]["accuracy"]["value"] == content["after"]["difference"]["test"]["value"]
    low, high = found["difference"]["accuracy"]["interval"]
    assert low <= found["difference"]["accuracy"]["value"] <= high
    assert "beside its parent: " in done.err


def test_a_figure_has_one_interval_wherever_it_is_read(lab: Any, made: Any, trained: Path) -> None:
    run, content = made("prune", "compressor.amount=0.5", "finetune=false")
    for owner, figures in ((run.path, content["after"]), (trained, content["before"])):
        for split in ("val", "test"):
            name = f"{split}/{figures['objective']}"
            told = lab.run("evaluate", str(owner), "evaluate.bootstrap=20", f"split={split}").record["intervals"]
            assert told[name] == figures["scores"][split]["interval"]
    assert run.record["intervals"][name] == content["after"]["scores"]["test"]["interval"]


def test_channels_really_go_and_the_record_says_by_how_much(made: Any, trained: Path) -> None:
    run, content = made("prune", "compressor.amount=0.5", "trainer.max_epochs=1")
    shapes = {name: list(tensor.shape) for name, tensor in load_file(run.path / "model.safetensors").items()}
    assert shapes["1.weight"][0] == 32 and shapes["3.weight"] == [32, 32]
    before, after, ratio = content["before"], content["after"], content["ratio"]
    assert after["bytes"] == (run.path / "model.safetensors").stat().st_size
    assert before["bytes"] == (trained / "model.safetensors").stat().st_size
    for name in ("parameters", "non_zeros", "macs", "bytes", "zstd_bytes"):
        assert ratio[name] == before[name] / after[name] > 1.5
    assert set(before["latency"]) == set(after["latency"]) == {"torch", "onnxruntime"}
    assert set(before["latency"]["torch"]) == {"1", "64"}
    assert not content["masked"] and content["gate"] is None


def test_masks_are_called_masks_and_hold_through_fine_tuning(lab: Any, trained: Path) -> None:
    done = lab("prune", str(trained), "compressor=magnitude", "compressor.amount=0.75", "trainer.max_epochs=2", *QUICK)
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("masked: "))
    assert "non-zeros fall" in line and line.endswith("latency do not; `compressor=channels` shrinks them")
    run = next((lab.folder / "runs" / "prune").iterdir())
    weights = [t for t in load_file(run / "model.safetensors").values() if t.ndim == 2]
    zeros = sum(int((t == 0).sum()) for t in weights) / sum(t.numel() for t in weights)
    assert zeros == pytest.approx(0.75, abs=0.01)


@pytest.mark.slow
def test_packed_zeros_take_fewer_bytes_and_give_the_same_figures(lab: Any, made: Any) -> None:
    words = ("compressor=magnitude", "compressor.amount=0.9", "trainer.max_epochs=1")
    dense, content = made("prune", *words)
    packed, _ = made("prune", *words, "sparse=true")
    sizes = [(run.path / "model.safetensors").stat().st_size for run in (dense, packed)]
    assert sizes[0] > 3 * sizes[1] and content["sparse"]["sparse_bytes"] == sizes[1]
    assert content["sparse"]["decode_ms"] > 0
    assert dense.metrics == packed.metrics
    assert evaluated(lab, packed)["test/accuracy"] == packed.metrics["test/accuracy"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(made: Any) -> None:
    words = ("prune", "compressor.amount=0.5", "trainer.max_epochs=1", "distill=true")
    one, other = (made(*words)[0] for _ in range(2))
    assert (one.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()
    assert one.metrics == other.metrics


@pytest.mark.slow
def test_steps_stack_and_a_quantized_run_is_the_end(lab: Any, made: Any) -> None:
    pruned, _ = made("prune", "compressor.amount=0.5", "trainer.max_epochs=1")
    twice, content = made("prune", "compressor.amount=0.25", "finetune=false", source=pruned.path)
    quantized, _ = made("quantize", "compressor=int8_static", source=twice.path)
    assert [step["_target_"].split(".")[-2] for step in quantized.config["model"]["steps"]] == [
        "channels", "channels", "int8_static",
    ]  # fmt: skip
    assert content["before"]["parameters"] > content["after"]["parameters"]
    assert evaluated(lab, quantized)["test/accuracy"] == quantized.metrics["test/accuracy"]
    name = quantized.path.relative_to(lab.folder)
    parent = twice.path.relative_to(lab.folder)
    assert lab.sentence(4, "prune", str(name)) == (
        f"`{name}` is quantized already, and integer weights cannot be changed further; "
        f"prune `{parent}`, then quantize the result"
    )
    assert lab.sentence(4, "quantize", str(name)) == (
        f"`{name}` is quantized already, and integer weights cannot be changed further; "
        f"quantize `{parent}` in another way"
    )
    assert "is quantized and cannot be trained further" in lab.sentence(4, "train", "--from", str(name))


@pytest.mark.slow
def test_a_pruned_run_can_be_trained_on_and_predicts(lab: Any, made: Any) -> None:
    pruned, _ = made("prune", "compressor.amount=0.5", "finetune=false")
    further = lab.run("train", "--from", str(pruned.path), "trainer.max_epochs=1")
    assert load_file(further.path / "model.safetensors")["3.weight"].shape == (32, 32)


@pytest.mark.slow
def test_a_damaged_artifact_is_refused(lab: Any, made: Any) -> None:
    run, _ = made("quantize", "compressor=int8_static")
    path = run.path / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert lab.sentence(4, "evaluate", str(run.path)) == "`model.onnx` fails its checksum"


def test_zeros_that_are_not_held_and_data_that_has_changed_are_said(lab: Any) -> None:
    table = lab.folder / "table.csv"
    rows = [f"{i % 7},{i % 5},{'xy'[i % 2]}" for i in range(300)]
    table.write_text("\n".join(["a,b,y", *rows]))
    words = ("data=tabular", f"data.path={table}", "data.target=y", "trainer.threads=1", "trainer.max_epochs=1")
    trained = lab.run("train", *words)
    masked = lab.run("prune", str(trained.path), *QUICK, "compressor=magnitude")
    table.write_text("\n".join(["a,b,y", *rows[::-1]]))
    done = lab("prune", str(masked.path), *QUICK, "compressor=channels", "compressor.amount=0.2", "--json")
    assert done.code == 0, done.err
    note = "the zeros of the run that is compressed are not held: its weights are trained on"
    assert note in done.json["compression"]["notes"] and note in done.err
    assert f"warning: the data has changed since `{masked.name}` was made (train, val, test), so rows" in done.err


THEIRS = """import torch
class Noisy(torch.nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.inner = torch.nn.Linear(spec.num_features, spec.num_outputs)
    def forward(self, x):
        return self.inner(torch.nn.functional.dropout(x))
"""


def test_a_net_that_draws_random_numbers_is_not_quantized(lab: Any) -> None:
    (lab.folder / "their.py").write_text(THEIRS, encoding="utf-8")
    (lab.folder / "conf" / "model").mkdir(parents=True)
    (lab.folder / "conf" / "model" / "noisy.yaml").write_text("_target_: their.Noisy\n", encoding="utf-8")
    run = lab.train("model=noisy", "data.categorical=0", "trainer.max_epochs=1")
    assert lab.sentence(2, "quantize", str(run.path), *QUICK, "compressor=int8_static", "--trust", "their") == (
        "the net (Noisy) gives other values for the same rows each time, so figures of it and of what it is quantized "
        "to would not hold; draw random numbers in its `forward` only `if self.training`"
    )
    assert not list((lab.folder / "runs").glob("quantize/*"))


def test_distilling_without_fine_tuning_is_refused(lab: Any, trained: Path) -> None:
    assert lab.sentence(2, "quantize", str(trained), "compressor=int8_static", "distill=true") == (
        "`distill=true` is for fine-tuning, and `compressor=int8_static` makes none; leave it out"
    )
