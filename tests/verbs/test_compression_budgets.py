"""Budgets: the setting that keeps to them is searched for; one that cannot be met is exit code 8 and a kept run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainctl.budgets import Budget, milliseconds
from trainctl.errors import UsageError
from trainctl.run.run import Run

QUICK = ("measure.calls=10", "measure.seconds=0.05", "measure.bootstrap=20", "trainer.max_epochs=1")


@pytest.fixture
def trained(lab: Any) -> Path:
    """A trained mlp of the test's own."""
    return Path(lab.train("model.hidden_dims=[64,64]").path)


def content_of(lab: Any, verb: str) -> tuple[Run, dict[str, Any]]:
    """The newest run of a verb and its compression.json."""
    run = Run.open(max((lab.folder / "runs" / verb).iterdir()))
    return run, json.loads((run.path / "compression.json").read_text())


def test_the_gentlest_setting_that_is_small_enough_is_taken(lab: Any, trained: Path) -> None:
    done = lab("prune", str(trained), *QUICK, "--target", "bytes=3x")
    assert done.code == 0, done.err
    _, content = content_of(lab, "prune")
    amounts = sorted(one["settings"]["amount"] for one in content["tried"])
    assert content["ratio"]["bytes"] >= 3 > min(one["bytes"] for one in content["tried"])
    assert content["settings"]["amount"] in amounts and content["gate"]["missed"] == []


def test_the_hardest_setting_within_the_drop_is_taken(lab: Any, trained: Path) -> None:
    done = lab("prune", str(trained), *QUICK, "--max-drop", "0.05")
    assert done.code == 0, done.err
    _, content = content_of(lab, "prune")
    assert content["objective"]["drop"] <= 0.05
    worse = [one for one in content["tried"] if one["settings"]["amount"] > content["settings"]["amount"]]
    assert all(one["drop"] > 0.05 for one in worse)


def test_bytes_are_those_of_the_file(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[8]", "trainer.max_epochs=1")  # so small that names and shapes weigh
    words = (*QUICK, "finetune=false", "compressor=magnitude", "sparse=true")
    done = lab("prune", str(trained.path), *words, "--target", "bytes=1.05x")
    assert done.code == 0, done.err
    run, content = content_of(lab, "prune")
    sizes = [(path / "model.safetensors").stat().st_size for path in (trained.path, run.path)]
    chosen = content["tried"][-1]
    assert chosen["bytes"] == content["ratio"]["bytes"] == sizes[0] / sizes[1] >= 1.05


def test_a_setting_that_is_too_hard_for_the_net_does_not_end_the_search(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[4,4]", "trainer.max_epochs=1")
    words = (*QUICK, "finetune=false")
    done = lab("prune", str(trained.path), *words, "--max-drop", "0.99")
    assert done.code == 0, done.err
    _, content = content_of(lab, "prune")
    assert content["settings"]["amount"] == 0.85
    assert "tried amount=0.9" in done.err and ": compressor.amount=0.9 would take all 4 channels of" in done.err
    done = lab("prune", str(trained.path), *words, "--target", "parameters=100x")
    assert done.code == 8, done.err


def test_quantizing_changes_no_counts(lab: Any) -> None:
    trained = lab.train("model.hidden_dims=[16]", "trainer.max_epochs=1")
    done = lab("quantize", str(trained.path), *QUICK[:3], "compressor=int8_dynamic", "--target", "macs=2x")
    assert done.code == 8 and "macs fell 1 times, `--target` is macs=2x" in done.err.splitlines()[-1]
    _, content = content_of(lab, "quantize")
    assert content["before"]["parameters"] == content["after"]["parameters"] >= content["after"]["non_zeros"]


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_keeps_the_closest_point_and_names_it(lab: Any, trained: Path) -> None:
    done = lab("prune", str(trained), *QUICK, "--target", "bytes=1000x", "--json")
    run, content = content_of(lab, "prune")
    shown = run.path.relative_to(lab.folder)
    fell = content["ratio"]["bytes"]
    assert done.code == 8 and run.status == "completed"
    assert done.err.splitlines()[-1].startswith("trainctl: error: the budget is not met: bytes fell ")
    assert done.err.splitlines()[-1].endswith(
        f" times, `--target` is bytes=1000x; the closest point is kept in `{shown}`"
    )
    assert fell == max(one["bytes"] for one in content["tried"]) or fell > 1
    assert lab("evaluate", str(run.path)).code == 0


@pytest.mark.slow
def test_a_setting_given_by_hand_is_judged_not_searched(lab: Any, trained: Path) -> None:
    done = lab("prune", str(trained), *QUICK, "compressor.amount=0.3", "--target", "macs=50x")
    _, content = content_of(lab, "prune")
    assert done.code == 8 and len(content["tried"]) == 1 and content["settings"]["amount"] == 0.3


@pytest.mark.slow
def test_a_latency_that_no_net_reaches_is_missed(lab: Any, trained: Path) -> None:
    done = lab("quantize", str(trained), *QUICK[:3], "--max-latency", "0.001us")
    assert done.code == 8 and "`--max-latency` is 1e-06ms" in done.err.splitlines()[-1]


@pytest.mark.parametrize("text, ms", [("1ms", 1.0), ("250us", 0.25), ("0.5s", 500.0)])
def test_times_are_read_with_their_unit(text: str, ms: float) -> None:
    assert milliseconds(text) == ms


@pytest.mark.parametrize(
    "options, sentence",
    [
        ((-0.1, [], None), "`--max-drop` must be a number ≥ 0 such as 0.005, got -0.1"),
        ((float("nan"), [], None), "`--max-drop` must be a number ≥ 0 such as 0.005, got nan"),
        ((None, ["byte=4x"], None), "`--target` must be one of bytes, latency, macs, parameters, got 'byte'; "
                                    "did you mean `bytes`?"),
        ((None, ["bytes=0.5x"], None), "`--target bytes=` must be how many times less, such as bytes=4x, got '0.5x'"),
        ((None, ["bytes"], None), "`--target bytes=` must be how many times less, such as bytes=4x, got ''"),
        ((None, [], "fast"), "`--max-latency` must be a time such as 1ms, 250us or 0.5s, got 'fast'"),
        ((None, [], "0ms"), "`--max-latency` must be a time such as 1ms, 250us or 0.5s, got '0ms'"),
    ],
)  # fmt: skip
def test_what_is_no_budget_is_said(options: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        Budget.parse(*options)
    assert str(error.value) == sentence


def test_an_undefined_drop_meets_no_budget() -> None:
    assert Budget(0.01).misses({}) == ["the drop is unknown, `--max-drop` is 0.01"]
    assert not Budget() and Budget(0.0)
