"""compressor=nm: N of every M input weights stay, along the axis that sparse tensor cores read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainctl.compression.nm import NM, PATTERNS, semi_structured_speed, unfit
from trainctl.errors import UsageError


def largest_group(weight: Tensor, group: int) -> int:
    """The most weights that are left in a group of consecutive inputs (axis 1)."""
    return int((weight.movedim(1, -1).reshape(-1, group) != 0).sum(1).max())


SMALL = {
    "lstm": ("data.rows=800", "data.sequence_length=8"),
    "transformer": ("data.rows=800", "data.sequence_length=8"),
}


@pytest.mark.parametrize(
    ("model", "pattern"), [("mlp", "2:4"), ("mlp", "4:8"), ("cnn", "2:4"), ("lstm", "4:8"), ("transformer", "2:4")]
)
def test_every_group_keeps_n_weights_and_the_net_predicts_as_before(
    bench: Callable[..., Any], model: str, pattern: str
) -> None:
    b = bench(model, *SMALL.get(model, ()))
    before = b.context.score(b.net)
    compressor = NM(pattern)
    assert compressor.refusal(b.net, b.context.spec) is None
    net = compressor.finish(b.train(compressor.compress(b.net, b.context), epochs=2), b.context)
    keep, group = PATTERNS[pattern]
    assert compressor.plan["layers"]
    for name in compressor.plan["layers"]:
        weight = net.get_parameter(name)
        assert largest_group(weight, group) == keep and int((weight == 0).sum()) == weight.numel() // 2
    assert b.context.score(net) >= before - 0.03 and not net._forward_pre_hooks


def test_the_largest_of_each_group_stay() -> None:
    net = nn.Linear(8, 1)
    net.weight.data = torch.tensor([[0.1, -4.0, 3.0, 0.2, 1.0, -1.0, 1.0, 1.0]])
    context = type("Nothing", (), {"leave": None})
    NM().compress(net, context)  # type: ignore[arg-type]
    assert net.weight.tolist() == [[0.0, -4.0, 3.0, 0.0, 0.0, 0.0, 1.0, 1.0]]


def test_layers_that_do_not_fit_are_named_or_refused(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    NM("4:8").compress(b.net, b.context)
    assert b.context.notes == ["`features.0.weight` stays as it is: its 1 input is no multiple of 8"]
    assert int((b.net.features[0].weight == 0).sum()) == 0
    b = bench("cnn")
    b.context.strict = True
    with pytest.raises(UsageError) as error:
        NM().compress(b.net, b.context)
    assert str(error.value) == (
        "`features.0.weight` cannot be compressed: its 1 input is no multiple of 4; "
        "leave out `strict=true` to keep it as it is"
    )
    assert NM().refusal(nn.Linear(10, 2), b.context.spec) == (
        "none of its layers has a multiple of 4 inputs, which 2:4 needs"
    )
    with pytest.raises(UsageError, match="^compressor.pattern=1:4 is not one of 2:4, 4:8$"):
        NM("1:4")


def test_candidates_go_from_gentle_to_hard(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    assert [NM(**c).pattern for c in NM(exclude=["5"]).candidates(b.net, b.context)] == ["4:8", "2:4"]


def test_restoring_needs_the_weights_only(bench: Callable[..., Any]) -> None:
    b, fresh = bench("mlp"), bench("mlp").net
    compressor = NM()
    net = compressor.finish(compressor.compress(b.net, b.context), b.context)
    again = NM(plan=compressor.plan).restore(fresh)
    again.load_state_dict(net.state_dict())
    assert torch.equal(b.outputs(again), b.outputs(net))


def test_a_transposed_convolution_is_grouped_along_its_inputs() -> None:
    net = nn.ConvTranspose2d(4, 2, 3)
    compressor = NM()
    compressor.finish(compressor.compress(net, None), None)  # type: ignore[arg-type]
    assert largest_group(net.weight.movedim(0, 1), 4) == 2


def test_what_sparse_tensor_cores_cannot_run_is_told() -> None:
    assert unfit(nn.Linear(10, 32)) == "32 outputs and 10 inputs are no multiples of 32 and 64"
    assert unfit(nn.Linear(64, 32)) == "its weights are not in the 2:4 pattern"
    layer = nn.Linear(64, 32)
    NM().compress(layer, None)  # type: ignore[arg-type]
    assert unfit(layer) is None


if torch.cuda.is_available():

    def test_the_speed_on_this_gpu_is_measured() -> None:
        net = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 10))
        NM().compress(net[0], None)  # type: ignore[arg-type]
        found = semi_structured_speed(net, rows=256, rounds=3)
        assert found["ratio"] is None or (found["layers"]["0"]["max_error"] < 0.1 and found["ratio"] > 0)
        assert list(found["skipped"]) == ["1"] or found["ratio"] is None

else:

    def test_the_speed_is_refused_without_a_gpu() -> None:
        with pytest.raises(UsageError, match="^the speed of 2:4 weights is measured on a GPU, and this machine has no"):
            semi_structured_speed(nn.Linear(64, 32))


class Odd(nn.Module):
    """A cell, and a matrix that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.matrix = nn.GRUCell(8, 8), nn.Parameter(torch.randn(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, x) @ self.matrix  # type: ignore[no-any-return]


def test_cells_take_the_pattern_and_a_bare_matrix_is_named(bench: Callable[..., Any]) -> None:
    net, context = Odd(), bench("mlp").context
    NM().compress(net, context)
    assert largest_group(net.cell.weight_hh, 4) == largest_group(net.cell.weight_ih, 4) == 2
    assert context.notes == ["`matrix` stays as it is: it is no weight of a layer that the pattern is known for"]
