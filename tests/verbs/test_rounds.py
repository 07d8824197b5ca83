"""Rounds of fine-tuning: which of them a resumed compression takes for done, and which it begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from trainctl.run.run import Run
from trainctl.verbs.rounds import FOLDER, Rounds


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of two rounds: the first has ended, of the second there is a checkpoint."""
    (tmp_path / "run").mkdir()
    made = Run.create(tmp_path / "run", "prune", {}, [], facts={})
    rounds = Rounds(made)
    first = rounds.next(net(0))
    first.begin()
    first.end(net(1), 3.0)
    rounds.next(net(1)).begin()
    (made.path / "checkpoints").mkdir()
    (made.path / "checkpoints" / "last.ckpt").write_bytes(b"of the second round")
    return made


def net(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_a_round_that_ended_gives_its_weights_and_the_next_goes_on(run: Run) -> None:
    rounds, given = Rounds(run), net(0)
    first = rounds.next(given)
    assert first.begun and first.load(given) and first.seconds == 3.0
    assert torch.equal(given.weight, net(1).weight)
    second = rounds.next(given)
    assert second.begun and not second.load(given)
    assert (run.path / "checkpoints" / "last.ckpt").exists()
    rounds.forget()
    assert not (run.path / FOLDER).exists()


@pytest.mark.parametrize("damaged", [True, False])
def test_a_round_that_is_damaged_or_of_other_weights_voids_what_came_after(
    run: Run, damaged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if damaged:
        (run.path / FOLDER / "0.safetensors").write_bytes(b"half")
    rounds, given = Rounds(run), net(0 if damaged else 7)
    first = rounds.next(given)
    before = given.weight.clone()
    assert not first.load(given) and not first.begun and torch.equal(given.weight, before)
    said = "is damaged; fine-tuning again" if damaged else "it was begun with other weights than this machine makes"
    assert said in caplog.text
    first.begin()
    assert not (run.path / "checkpoints").exists()
    assert not rounds.next(net(1)).begun
