from __future__ import annotations

from typing import Any

import pytest

from trainctl.check.machine import cores, gpus, machine_problems


@pytest.mark.parametrize("visible", ["", "-1"])
def test_no_gpu_is_visible_when_none_is_admitted(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == 0


def test_more_numbers_than_gpus_admit_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    there = gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(there + 5))))
    assert gpus() == there


def test_more_processes_than_cores_may_be_insisted_on() -> None:
    trainer: dict[str, Any] = {"accelerator": "cpu", "devices": cores() + 1}
    assert list(machine_problems({**trainer, "oversubscribe": True})) == []
    assert len(list(machine_problems(trainer))) == 1
    assert list(machine_problems({**trainer, "devices": "auto"})) == []
    assert list(machine_problems({**trainer, "devices": True})) == []


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainctl.check.machine.gpus", lambda: 1)
    assert list(machine_problems({"accelerator": "auto", "devices": 4})) == [
        "4 processes on 1 GPU; set `trainer.devices=1` or less"
    ]
    assert list(machine_problems({"accelerator": "gpu", "strategy": "fsdp", "devices": 1})) == []


def test_an_apple_machine_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert gpus() == 1
