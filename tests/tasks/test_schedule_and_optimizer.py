"""The learning rate that each epoch really had, and what each option of an optimizer changes."""

from __future__ import annotations

import math

import pytest
import torch

EPOCHS, STEPS, LR = 6, 22, 0.01
CURVES = {
    "none": [1.0] * EPOCHS,
    "step": [1.0, 1.0, 0.1, 0.1, 0.01, 0.01],
}


def half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def rates(fit, *words: str) -> tuple[list[float], list[dict]]:
    from trainctl.callbacks import Record

    rows: list[dict] = []
    fit(f"trainer.max_epochs={EPOCHS}", f"optimizer.lr={LR}", *words, callbacks=(Record(rows.append),), chunk=8)
    return [row["lr"] / LR for row in rows], rows


@pytest.mark.parametrize("name", ["none", "step"])
def test_rates_by_the_epoch(fit, name):
    words = ("scheduler.every=2",) if name == "step" else ()
    assert rates(fit, f"scheduler={name}", *words)[0] == pytest.approx(CURVES[name])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_cosine_warms_up_and_falls_over_the_whole_run(fit, accumulate):
    steps = STEPS // accumulate
    words = ("scheduler=cosine", "scheduler.warmup=30", "scheduler.final=0.1")
    found, rows = rates(fit, *words, f"trainer.accumulate_grad_batches={accumulate}")
    last = [steps * (epoch + 1) - 1 for epoch in range(EPOCHS)]  # the step whose rate is recorded
    total = steps * EPOCHS
    expected = [(k + 1) / 31 if k < 30 else half_cosine(1, 0.1, (k - 30) / (total - 30)) for k in last]
    assert found == pytest.approx(expected)
    assert [row["step"] for row in rows] == [k + 1 for k in last]


def test_one_cycle_goes_up_and_down(fit):
    found, _ = rates(fit, "scheduler=one_cycle", "scheduler.initial=0.04", "scheduler.final=0")
    total = STEPS * EPOCHS
    warm = int(0.3 * total)
    last = [STEPS * (epoch + 1) - 1 for epoch in range(EPOCHS)]
    expected = [half_cosine(0.04, 1, k / warm) if k < warm else half_cosine(1, 0, (k - warm) / (total - 1 - warm))
                for k in last]
    assert found == pytest.approx(expected, abs=1e-9)
    assert found[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/accuracy", "max"), ("train/loss", "min")])
def test_plateau_watches_the_monitor_in_its_direction(fit, monitor, mode):
    words = ("scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "scheduler.min_delta=0.001")
    found, rows = rates(fit, *words, "data.noise=1.0", f"train.monitor={monitor}", "optimizer.lr=0.05")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.05 / LR)
    twin = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, 0.5, patience=0, threshold=0.001, threshold_mode="abs")
    expected = []
    for row in rows:
        expected.append(optimizer.param_groups[0]["lr"])
        twin.step(row[monitor])
    assert found == pytest.approx(expected)
    if monitor != "train/loss":
        assert len(set(found)) > 1


OPTIONS = {
    "adamw": {"lr": 0.02, "weight_decay": 0.3, "betas": [0.5, 0.9], "eps": 0.01},
    "adam": {"lr": 0.02, "weight_decay": 0.3, "betas": [0.5, 0.9], "eps": 0.01},
    "sgd": {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.3, "nesterov": False},
    "muon": {"lr": 0.02, "weight_decay": 0.3, "momentum": 0.5, "ns_steps": 2, "betas": [0.5, 0.9], "eps": 0.01,
             "min_size": 1000},
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in OPTIONS for option in OPTIONS[name]])
def test_every_option_of_an_optimizer_changes_the_weights(fit, name, option):
    value = str(OPTIONS[name][option]).replace(" ", "").lower()
    words = (f"optimizer={name}", "trainer.limit_batches=4")
    usual, changed = fit(*words), fit(*words, f"optimizer.{option}={value}")
    assert any(not torch.equal(usual.after[key], changed.after[key]) for key in usual.after)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_fused_is_only_faster(fit, name):
    words = (f"optimizer={name}", "trainer.limit_batches=4")
    usual, plain = fit(*words), fit(*words, "optimizer.fused=false")
    for key, value in usual.after.items():
        tolerance = 1e-6 if name != "muon" else 2e-3  # Muon's iterations are in bfloat16
        torch.testing.assert_close(value, plain.after[key], rtol=tolerance * 100, atol=tolerance)
