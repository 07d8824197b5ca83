"""compressor=magnitude: the share of zeros is exact, they hold while the net is trained, and what ships is plain."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.compression.magnitude import Magnitude, smallest
from trainctl.compression.masks import MaskHook, prunable
from trainctl.compression.onnx_net import OnnxNet
from trainctl.errors import UsageError
from trainctl.tasks.ema import WeightAverage


def zeros(net: nn.Module) -> tuple[int, int]:
    """(zeros, all of them) among the weights that a compressor with its own defaults prunes."""
    weights = prunable(net, embeddings=True).values()
    return sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)


SMALL = {
    "lstm": ("data.rows=800", "data.sequence_length=8"),
    "transformer": ("data.rows=800", "data.sequence_length=8"),
}


@pytest.mark.parametrize("model", ["mlp", "resmlp", "cnn", "resnet", "lstm", "transformer"])
@pytest.mark.parametrize("schedule", ["once", "gradual"])
def test_the_share_of_zeros_is_exact_and_the_net_still_predicts(
    bench: Callable[..., Any], model: str, schedule: Any
) -> None:
    b = bench(model, *SMALL.get(model, ()))
    before, keys = b.context.score(b.net), list(b.net.state_dict())
    b.context.steps = 2 * len(b.context.batches())
    compressor = Magnitude(amount=0.7, schedule=schedule)
    assert compressor.refusal(b.net, b.context.spec) is None
    net = b.train(compressor.compress(b.net, b.context), epochs=2)
    net = compressor.finish(net, b.context)
    gone, whole = zeros(net)
    assert gone == round(0.7 * whole) and compressor.plan == {"zeros": gone, "weights": whole}
    assert list(net.state_dict()) == keys and not net._forward_pre_hooks and not net._forward_hooks
    assert b.context.score(net) >= before - 0.08


def test_biases_and_norms_are_left_alone_and_embeddings_where_asked(bench: Callable[..., Any]) -> None:
    names = set(prunable(bench("transformer", *SMALL["transformer"]).net))
    assert "blocks.0.query_key_value.weight" in names and "head.1.weight" in names
    assert not any("bias" in name or "norm" in name or name.startswith("tokens.") for name in names)
    b = bench("transformer", *SMALL["transformer"])
    assert "tokens.embed.weight" in prunable(b.net, embeddings=True)
    table = b.net.get_parameter("tokens.embed.weight").detach().clone()
    compressor = Magnitude(schedule="once", embeddings=False)
    net = compressor.finish(compressor.compress(b.net, b.context), b.context)
    assert torch.equal(net.get_parameter("tokens.embed.weight"), table)


def test_the_projection_of_attention_and_recurrent_matrices_count() -> None:
    net = nn.ModuleDict({"attend": nn.MultiheadAttention(8, 2), "lstm": nn.LSTM(8, 8), "norm": nn.LayerNorm(8)})
    assert list(prunable(net)) == [
        "attend.in_proj_weight", "attend.out_proj.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"
    ]  # fmt: skip


def test_a_layer_scope_prunes_each_layer_alike(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    net = Magnitude(amount=0.5, scope="layer", schedule="once").compress(b.net, b.context)
    assert all(int((w == 0).sum()) == round(0.5 * w.numel()) for w in prunable(net).values())


def test_no_layer_runs_dry_with_lamp() -> None:
    net = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 4))
    with torch.no_grad():
        net[1].weight.mul_(1e-4)
    for scope, kept in (("global", 0), ("lamp", 4)):
        trial = copy.deepcopy(net)
        MaskHook(["0.weight", "1.weight"], Magnitude(0.95, scope).select()).attach(trial)  # type: ignore[arg-type]
        assert int((trial[1].weight != 0).sum()) >= kept and (scope == "lamp" or not trial[1].weight.any())


def test_what_is_excluded_keeps_its_weights(bench: Callable[..., Any]) -> None:
    b = bench("cnn")
    whole = b.net.head[4].weight.clone()
    net = Magnitude(amount=0.9, schedule="once", exclude=["head.4"]).compress(b.net, b.context)
    assert torch.equal(net.head[4].weight, whole) and "head.4.weight" not in prunable(net, ["head.4"])
    with pytest.raises(UsageError, match="^`compressor.exclude` pattern 'tail.\\*' matches no weight; there are: feat"):
        Magnitude(exclude=["tail.*"]).compress(b.net, b.context)


def test_masks_hold_in_every_forward_pass_whatever_changes_the_weights(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    net = Magnitude(amount=0.8, schedule="once").compress(b.net, b.context)
    expected = zeros(net)[0]
    average = WeightAverage(net, 0.9)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for x, y in b.context.batches()[:3]:
        b.context.loss(net.train()(x), y).backward()
        optimizer.step()
        average.update()
    assert zeros(net)[0] < expected  # the optimizer touched them
    average.swap_in()
    with torch.inference_mode():
        net.eval()(b.context.example)
    assert zeros(net)[0] == expected
    average.swap_out()
    net(b.context.example)
    assert zeros(net)[0] == expected


def test_two_forward_passes_before_one_backward_pass(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    b.context.steps = 100
    net = Magnitude(amount=0.8).compress(b.net, b.context).train()
    (x, y), (other, _) = b.context.batches()[:2]
    (b.context.loss(net(x), y) + net(other).square().mean()).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_schedule_is_cubic_and_counts_training_passes_only(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    b.context.steps = 40
    net = Magnitude(amount=0.8).compress(b.net, b.context)
    x = b.context.example
    shares = []
    for _ in range(40):
        net.eval()(x)
        net.train()(x)
        gone, whole = zeros(net)
        shares.append(gone / whole)
    assert shares == sorted(shares) and shares[29] == shares[-1] == pytest.approx(0.8, abs=1e-4)
    assert shares[9] == pytest.approx(0.8 * (1 - (2 / 3) ** 3), abs=1e-4)


def test_an_evaluation_before_the_schedule_ends_is_of_what_would_ship(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    b.context.steps = 1000
    compressor = Magnitude(amount=0.9)
    net = compressor.compress(b.net, b.context)
    whole = copy.deepcopy(net.state_dict())
    seen = b.outputs(net)
    assert all(torch.equal(value, whole[name]) for name, value in net.state_dict().items())
    with pytest.raises(RuntimeError):
        net(torch.zeros(2, 1))
    assert all(torch.equal(value, whole[name]) for name, value in net.state_dict().items())
    assert torch.equal(b.outputs(compressor.finish(net, b.context)), seen)


def test_a_copy_has_its_own_masks(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    b.context.steps = 10
    net, before = Magnitude(amount=0.8).compress(b.net, b.context), zeros(b.net)[0]
    copied = copy.deepcopy(net).train()
    for _ in range(8):
        copied(b.context.example)
    assert zeros(copied)[0] > before == zeros(net)[0]
    assert zeros(Magnitude(amount=0.8).finish(copied, b.context))[0] == round(0.8 * zeros(copied)[1])


def test_a_pruned_net_pruned_again_keeps_its_zeros(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    first = Magnitude(amount=0.8, schedule="once")
    net = first.finish(first.compress(b.net, b.context), b.context)
    gone = {name: weight == 0 for name, weight in prunable(net, embeddings=True).items()}
    second = Magnitude(amount=0.3, schedule="once")
    net = second.finish(b.train(second.compress(net, b.context)), b.context)
    assert all(torch.equal(weight == 0, gone[name]) for name, weight in prunable(net, embeddings=True).items())


def test_the_same_seed_gives_the_same_bits(bench: Callable[..., Any]) -> None:
    made = []
    for _ in range(2):
        b = bench("cnn")
        b.context.steps = len(b.context.batches())
        compressor = Magnitude()
        made.append(compressor.finish(b.train(compressor.compress(b.net, b.context)), b.context).state_dict())
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_zeros_are_restored_with_the_weights(bench: Callable[..., Any]) -> None:
    b, fresh = bench("mlp"), bench("mlp").net
    compressor = Magnitude(schedule="once")
    net = compressor.finish(compressor.compress(b.net, b.context), b.context)
    again = Magnitude(plan=compressor.plan).restore(fresh)
    again.load_state_dict(net.state_dict())
    assert torch.equal(b.outputs(again), b.outputs(net))
    bits = torch.cat([w.detach().flatten() for w in prunable(net, embeddings=True).values()]).view(torch.int32)
    assert int((bits == 0).sum()) == zeros(net)[0]  # +0.0, never -0.0


def test_a_layer_that_hardly_keeps_a_weight_is_named() -> None:
    net = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 4))
    with torch.no_grad():
        net[1].weight.mul_(1e-4)
    notes: list[str] = []
    context = type("Told", (), {"note": staticmethod(notes.append), "steps": 0})
    compressor = Magnitude(0.9, scope="global")
    compressor.finish(compressor.compress(net, context), context)  # type: ignore[arg-type]
    assert notes == ["`1.weight` keeps 0.00% of its weights; `compressor.scope=lamp` spares small layers"]


def test_bad_settings_and_nets_are_refused_in_a_sentence(bench: Callable[..., Any]) -> None:
    for amount in (0, 1, 1.0, -0.2, 80, True, "0.8", None):
        with pytest.raises(UsageError) as error:
            Magnitude(amount=amount)  # type: ignore[arg-type]
        assert str(error.value) == (
            f"compressor.amount={amount} must be above 0 and below 1, e.g. compressor.amount=0.8"
        )
    with pytest.raises(UsageError, match=r"^compressor.scope=laier is not one of global, layer, lamp.*`layer`"):
        Magnitude(scope="laier")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^compressor.schedule=now is not one of once, gradual"):
        Magnitude(schedule="now")  # type: ignore[arg-type]
    spec = bench("mlp").context.spec
    assert Magnitude().refusal(OnnxNet(), spec) == (
        "the weights are in `model.onnx` and cannot be trained any more; prune the run that it was made from"
    )
    assert Magnitude().refusal(nn.BatchNorm1d(3), spec) == "it has no weight matrix to prune"


def test_candidates_go_from_gentle_to_hard_and_keep_the_other_settings(bench: Callable[..., Any]) -> None:
    b = bench("mlp")
    found = Magnitude(scope="layer", exclude=["5"]).candidates(b.net, b.context)
    assert [c["amount"] for c in found] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    assert all(Magnitude(**c).scope == "layer" and c["exclude"] == ["5"] for c in found)


def test_ties_do_not_prune_more_than_asked() -> None:
    assert int(smallest(torch.ones(100), 0.37).sum()) == 37
