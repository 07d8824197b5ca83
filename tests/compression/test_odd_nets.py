"""Channels of nets that are hard to follow: what cannot be followed is found out and left; nothing fails midway."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.compression import odd_nets as odd
from tests.compression.test_channels import TABLE, built, context
from trainctl.compression.channels import Channels
from trainctl.compression.cost import macs
from trainctl.errors import UsageError

ONE_BY_ONE = "what follows it does not take its channels one by one"
UNKNOWN = "what follows it cannot be followed"
IN_TRAINING = "what is computed in training alone does not take fewer of its channels"


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (odd.Gated, {"gate": ONE_BY_ONE}),
        (odd.Unfolded, {"first": ONE_BY_ONE}),
        (odd.Cell, {"first": UNKNOWN}),
        (odd.Weighed, {"first": UNKNOWN, "gives": UNKNOWN}),
        (odd.Taught, {"first": IN_TRAINING}),
        (odd.BareRootNorm, {"first": ONE_BY_ONE}),
        (odd.Crossed, {"query": UNKNOWN, "key": UNKNOWN}),
    ],
)
def test_what_cannot_be_followed_stays_and_the_rest_goes(
    make: Callable[[], nn.Module], left: dict[str, str]
) -> None:
    net, c = built(make), context(TABLE)
    whole, goes = copy.deepcopy(net), make in (odd.Gated, odd.Unfolded, odd.Crossed)
    if goes:
        pruned = Channels().compress(net, c)
        assert macs(pruned, c.example[:1]) < 0.9 * macs(whole, c.example[:1])
        pruned.train()(c.calibration).sum().backward()
    else:
        with pytest.raises(UsageError, match="^no channels of this net can be pruned; use compressor=magnitude$"):
            Channels().compress(net, c)
    assert {note.split("`")[1]: note.partition(": ")[2] for note in c.notes} == left
    for name, parameter in whole.named_parameters():
        assert net.get_parameter(name).shape == parameter.shape or name.split(".")[0] not in left or goes


def test_a_norm_with_nothing_to_take_a_mean_of_is_refused() -> None:
    given = context(TABLE)
    said = r"^the net does not run without the channels that were chosen \(Expected more than 1 value per channel"
    with pytest.raises(UsageError, match=said):
        Channels(0.7).compress(built(odd.Grouped), given)
    assert macs(Channels(0.5).compress(built(odd.Grouped), given), given.example[:1]) > 0


def test_multiply_adds_of_a_net_that_begins_with_a_parameter_are_counted() -> None:
    net, x = odd.LearnedState(), torch.zeros(1, 12, dtype=torch.long)
    assert macs(net, x) == 12 * 3 * 24 * (16 + 24) + 24 * 5
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_weights_that_a_layer_computes_are_no_hindrance(lab: Any) -> None:
    conf = lab.folder / "conf" / "model"
    conf.mkdir(parents=True)
    (conf / "normed.yaml").write_text("_target_: normed.Net\n")
    (lab.folder / "normed.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, spec):\n"
        "        first = nn.utils.weight_norm(nn.Linear(64, 16))\n"
        "        last = nn.Linear(16, spec.num_outputs)\n"
        "        super().__init__(nn.Flatten(), first, nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), last)\n"
    )
    quick = ("trainer.max_epochs=1", "trainer.threads=1")
    trained = lab.run("train", "data=digits", "model=normed", "--config-dir", "conf", *quick)
    words = ("trainer.max_epochs=1", "measure.calls=5", "measure.bootstrap=0", "--trust", "normed")
    zeros = lab.run("prune", str(trained.path), "compressor=magnitude", *words)
    assert zeros.metrics["test/accuracy"] is not None
    fewer = lab("prune", str(trained.path), "compressor=channels", *words)
    assert fewer.code == 0 and "`1` stays as it is: its weights are computed from other tensors" in fewer.err, fewer.err
