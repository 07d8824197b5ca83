"""prune compressor=channels: what goes, that it is right, and that the net can be built again from the plan."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.compression import foreign_nets as foreign
from tests.compression import odd_nets as odd
from trainctl.compression.base import Context
from trainctl.compression.channels import Channels
from trainctl.compression.cost import macs
from trainctl.compression.onnx_net import OnnxNet
from trainctl.data.spec import Category, DataSpec
from trainctl.errors import RunError, UsageError
from trainctl.models.cnn import CNN
from trainctl.models.linear import Linear
from trainctl.models.lstm import LSTM
from trainctl.models.mlp import MLP
from trainctl.models.resmlp import ResMLP
from trainctl.models.resnet import ResNet
from trainctl.models.transformer import Transformer

CLASSES = tuple("abcde")
IMAGE = DataSpec("image", "class", classes=CLASSES, image_shape=(3, 16, 16))
SEQUENCE = DataSpec("sequence", "class", classes=CLASSES, sequence_length=foreign.LENGTH, num_tokens=foreign.NUM_TOKENS)
TABLE = DataSpec(
    "table", "class", classes=CLASSES, numeric=tuple("abcdef"), categories=(Category("x", 5), Category("y", 7))
)
# the net and how many times fewer multiply-adds half of the channels leave
NETS: dict[str, tuple[Callable[[], nn.Module], DataSpec, float]] = {
    **{
        f"cnn_{block}_{norm}": (
            lambda block=block, norm=norm: CNN(IMAGE, [16, 32], 32, num_blocks=2, block=block, norm=norm),
            IMAGE,
            2.9 if block == "separable" else 3.7,
        )
        for block, norm in [("plain", "batch"), ("residual", "layer"), ("separable", "batch"), ("separable", "none")]
    },
    "resnet": (lambda: ResNet(IMAGE, [16, 32], num_blocks=2), IMAGE, 3.9),
    "mlp_table": (lambda: MLP(TABLE, [32, 32], norm="layer"), TABLE, 2.7),
    "mlp_sequence": (lambda: MLP(SEQUENCE, [32, 32]), SEQUENCE, 3.8),
    "resmlp": (lambda: ResMLP(TABLE, 32, 64), TABLE, 3.6),
    "lstm": (lambda: LSTM(SEQUENCE, 16, 24, num_layers=2), SEQUENCE, 3.9),
    "transformer_table": (lambda: Transformer(TABLE, 32, 2, 4, 64), TABLE, 3.7),
    "transformer_image": (lambda: Transformer(IMAGE, 32, 2, 4, 64), IMAGE, 3.3),
    "transformer_sequence": (lambda: Transformer(SEQUENCE, 32, 2, 4, 64), SEQUENCE, 3.6),
    "vision": (foreign.VisionNet, IMAGE, 3.6),
    "branches": (foreign.Branches, IMAGE, 3.3),
    "torch_encoder": (foreign.TorchEncoder, SEQUENCE, 3.6),
    "own_attention": (foreign.OwnAttention, SEQUENCE, 3.4),
    "recurrent": (foreign.Recurrent, SEQUENCE, 3.9),
    "bare_norm": (odd.BareNorm, TABLE, 1.9),
    "root_norm": (odd.RootNorm, TABLE, 1.9),
    "dense": (odd.Dense, IMAGE, 2.9),
    "last_states": (odd.LastStates, SEQUENCE, 3.6),
    "last_states_lstm": (lambda: odd.LastStates(nn.LSTM), SEQUENCE, 3.6),
    "sequential": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 32), nn.Linear(32, 5)),
        IMAGE,
        2.5,
    ),
}


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """A net in which every scale, shift and running statistic is its own number."""
    torch.manual_seed(0)
    net = make().eval()
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.dim() == 1 and tensor.is_floating_point():
            (nn.init.uniform_(tensor, 0.5, 1.5) if "var" in name or "weight" in name else nn.init.normal_(tensor))
    return net


def context(spec: DataSpec) -> Context:
    torch.manual_seed(1)
    if spec.kind == "image":
        x = torch.randn(32, 3, 16, 16)
    elif spec.kind == "sequence":
        x = torch.randint(1, foreign.NUM_TOKENS, (32, foreign.LENGTH))
    else:
        x = torch.cat((torch.randn(32, 6), torch.randint(0, 5, (32, 2)).float()), 1)
    y = torch.randint(0, len(CLASSES), (32,))
    return Context(spec, x[:2], x, lambda: [(x[:16], y[:16]), (x[16:], y[16:])], nn.CrossEntropyLoss(), lambda _: 0.0)


def restored(compressor: Channels, net: nn.Module, weights: nn.Module) -> nn.Module:
    """`net` in the structure of the compressor's plan after a trip through JSON, with the weights of another."""
    again = Channels(plan=json.loads(json.dumps(compressor.plan))).restore(net).eval()
    again.load_state_dict(weights.state_dict())
    return again


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return net.eval()(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NETS)
def test_half_of_the_channels_leave_a_net_that_runs_trains_and_is_built_again(name: str) -> None:
    make, spec, ratio = NETS[name]
    net, c = built(make), context(spec)
    whole, compressor = copy.deepcopy(net), Channels()
    assert compressor.refusal(net, spec) is None
    pruned = compressor.compress(net, c)
    assert c.notes == []
    row = c.example[:1]
    assert macs(whole, row) / macs(pruned, row) >= ratio
    assert sum(p.numel() for p in pruned.parameters()) < 0.6 * sum(p.numel() for p in whole.parameters())
    assert outputs(pruned, c.calibration).shape == (32, len(CLASSES))
    assert torch.equal(outputs(restored(compressor, whole, pruned), c.calibration), outputs(pruned, c.calibration))
    c.loss(pruned.train()(c.calibration), torch.zeros(32, dtype=torch.long)).backward()
    assert all(p.grad is not None for p in pruned.parameters())


def test_neurons_and_heads_that_do_nothing_go_first_and_the_outputs_stay() -> None:
    net, c = built(NETS["transformer_sequence"][0]), context(SEQUENCE)
    with torch.no_grad():
        for block in net.blocks:  # type: ignore[union-attr]
            block.query_key_value.weight.view(3, 4, 8, 32)[:, 1::2] = 0  # heads 1 and 3 of 4
            block.project.weight.view(32, 4, 8)[:, 1::2] = 0
            for tensor in (block.mlp[1].weight, block.mlp[1].bias, block.mlp[4].weight.T):
                tensor[:32] = 0
    before = outputs(net, c.calibration)
    pruned = Channels(exclude=["tokens.embed"]).compress(net, c)
    assert [(b.num_heads, b.project.in_features, b.mlp[1].out_features) for b in pruned.blocks] == [(2, 16, 32)] * 2  # type: ignore[union-attr]
    assert torch.allclose(outputs(pruned, c.calibration), before, atol=1e-5)


def test_channels_without_effect_on_the_loss_go_first_by_taylor_and_by_batch_norm() -> None:
    make, spec, _ = NETS["cnn_plain_batch"]
    for importance in ("taylor", "batchnorm"):
        net, c = built(make), context(spec)
        convs = [(0, 1), (3, 4), (7, 8), (10, 11)]
        with torch.no_grad():
            for conv, norm in convs:
                part = slice(0, net.features[conv].out_channels // 2)  # type: ignore[union-attr,index,operator]
                net.features[norm].weight[part] = net.features[norm].bias[part] = 0  # type: ignore[union-attr,index]
                net.features[conv].weight[part] *= 100  # type: ignore[union-attr,index]
        before = outputs(net, c.calibration)
        flags = [p.requires_grad for p in net.parameters()]
        pruned = Channels(importance=importance, exclude=["head.2"]).compress(net.train(), c)  # type: ignore[arg-type]
        assert [pruned.features[conv].out_channels for conv, _ in convs] == [8, 8, 16, 16]  # type: ignore[union-attr,index]
        assert pruned.training and [p.requires_grad for p in pruned.parameters()] == flags
        assert torch.allclose(outputs(pruned, c.calibration), before, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"global_ranking": True}, {"importance": "taylor"}])
def test_a_quarter_of_the_multiply_adds_is_left_and_it_is_the_same_quarter_each_time(options: dict[str, Any]) -> None:
    make, spec, _ = NETS["resnet"]
    c = context(spec)
    before = macs(built(make), c.example[:1])
    nets = [Channels(amount=0.75, target="macs", **options).compress(built(make), c) for _ in range(2)]
    assert 4 <= before / macs(nets[0], c.example[:1]) < 4.5
    assert torch.equal(outputs(nets[0], c.calibration), outputs(nets[1], c.calibration))


def test_rounds_shrink_a_trained_net_step_by_step_and_training_brings_its_accuracy_back(
    bench: Callable[..., Any],
) -> None:
    b = bench("cnn")
    whole, before, accuracy = copy.deepcopy(b.net), macs(b.net, b.context.example[:1]), b.context.score(b.net)
    compressor, ratios, net = Channels(amount=0.5, rounds=2), [], b.net
    for turn in range(2):
        net = b.train(compressor.compress(net, b.context, turn), epochs=4, lr=3e-3)
        ratios.append(before / macs(net, b.context.example[:1]))
    assert 1.7 < ratios[0] < 2.2 and 3.4 < ratios[1] < 4
    assert net.features[0].out_channels == 8  # type: ignore[index,union-attr]
    assert b.context.score(net) > accuracy - 0.02
    assert torch.equal(b.outputs(restored(compressor, whole, net)), b.outputs(net))


def test_a_pruned_net_is_pruned_again_and_widths_are_multiples() -> None:
    make, spec, _ = NETS["vision"]
    net, c = built(make), context(spec)
    whole, steps = built(make), [Channels(amount=0.3, round_to=4), Channels(amount=0.4, round_to=4)]
    for step in steps:
        net = step.compress(net, c)
    widths = {m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)}
    assert all(width % 4 == 0 for width in widths) and max(widths) < 20
    again = restored(steps[1], Channels(plan=steps[0].plan).restore(whole), net)
    assert torch.equal(outputs(again, c.calibration), outputs(net, c.calibration))


def test_a_layer_that_cannot_be_followed_is_named_and_stays_or_is_refused() -> None:
    net, c = foreign.Shuffled(), context(IMAGE)
    pruned = Channels().compress(copy.deepcopy(net), c)
    assert (pruned.first.out_channels, pruned.second.out_channels) == (16, 8)  # type: ignore[union-attr]
    assert c.notes == ["`first` stays as it is: what follows it does not take its channels one by one"]
    c.strict = True
    with pytest.raises(UsageError, match="^`first` cannot be compressed: what follows it does not take its channels "):
        Channels().compress(net, c)


@pytest.mark.parametrize(
    ("make", "spec", "options", "sentence"),
    [
        (foreign.Tied, SEQUENCE, {}, "no channels of this net can be pruned; use compressor=magnitude"),
        (lambda: Linear(TABLE), TABLE, {}, "no channels of this net can be pruned; use compressor=magnitude"),
        (foreign.NoBatch, TABLE, {}, "the layers of this net cannot be followed (call `generate` instead); use \
compressor=magnitude"),
        (NETS["resnet"][0], IMAGE, {"amount": 0.98}, "compressor.amount=0.98 would take all 16 channels of `0.0`; use \
compressor.amount=0.93 or less, or exclude it: compressor.exclude=[0.0]"),
        (NETS["resnet"][0], IMAGE, {"amount": 0.95, "global_ranking": True}, "compressor.amount=0.95 must be 0.9 or \
less with compressor.global_ranking=true, which leaves a tenth of every layer"),
        (NETS["resnet"][0], IMAGE, {"amount": 0.9999, "target": "macs"}, "compressor.amount=0.9999 of the \
multiply-adds cannot go, 0.99 is the most in this net; use compressor.amount=0.99 or less"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(
    make: Callable[[], nn.Module], spec: DataSpec, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Channels(**options).compress(make(), context(spec))
    assert str(raised.value) == sentence


def test_nets_and_settings_that_do_not_fit_are_refused_before_any_work() -> None:
    net = MLP(TABLE, [8])
    assert Channels(importance="batchnorm").refusal(net, TABLE) == (
        "compressor.importance=batchnorm needs a net with batch norms; use compressor.importance=magnitude"
    )
    assert Channels(exclude=["body.*"]).refusal(net, TABLE) == (
        "compressor.exclude: `body.*` matches no layer; have: 1, 3"
    )
    assert Channels().refusal(OnnxNet(), TABLE) == (
        "the weights are in `model.onnx` and cannot be pruned; prune the run that it was made from"
    )
    assert Channels().refusal(nn.ReLU(), TABLE) == "the net has no layers whose channels could be pruned"
    with pytest.raises(RunError, match="^the net of the config has no `7.weight`, which its compression made smaller$"):
        Channels(plan={"shapes": {"7.weight": [2, 2]}}).restore(net)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"amount": 1.0}, "compressor.amount=1.0 must be above 0 and below 1, e.g. compressor.amount=0.5"),
        ({"amount": 0}, "compressor.amount=0 must be above 0 and below 1, e.g. compressor.amount=0.5"),
        ({"target": "mac"}, "compressor.target=mac is not one of channels, macs; did you mean `macs`?"),
        ({"rounds": 0}, "compressor.rounds=0 must be a whole number of 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        Channels(**options)
    assert str(raised.value) == sentence


def test_candidates_go_from_gentle_to_hard_and_keep_the_settings() -> None:
    found = Channels(target="macs", round_to=8).candidates(nn.Linear(2, 2), context(TABLE))
    amounts = [Channels(**setting).amount for setting in found]
    assert amounts == sorted(amounts) and (amounts[0], amounts[-1]) == (0.1, 0.9)
    assert max(b - a for a, b in zip(amounts, amounts[1:], strict=False)) < 0.11
    assert {(setting["target"], setting["round_to"]) for setting in found} == {("macs", 8)}


@pytest.mark.parametrize(("width", "left"), [(64, 48), (32, 16), (16, 8), (12, 8), (6, 4)])
def test_widths_suit_the_kernels(width: int, left: int) -> None:
    net = built(lambda: MLP(TABLE, [width]))
    pruned = Channels(amount=0.3, round_to="auto").compress(net, context(TABLE))
    assert [m.out_features for m in pruned.modules() if isinstance(m, nn.Linear)][0] == left


class Branching(nn.Module):
    """Takes another way for rows that are large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.more, self.last = nn.Linear(8, 24), nn.Linear(24, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last(self.more(h).relu() if float(x.abs().max()) > 4 else h)  # type: ignore[no-any-return]


def test_a_net_that_computes_otherwise_for_other_rows_is_refused() -> None:
    given = context(TABLE)
    x = given.calibration.clamp(-1, 1)
    x[20] = 9.0
    given.example, given.calibration = x[:2], x
    with pytest.raises(UsageError, match=r"^the net does not run without the channels that were chosen \(mat1"):
        Channels(0.5).compress(Branching().train(), given)


def test_that_nothing_goes_is_said() -> None:
    given = context(TABLE)
    Channels(0.1, round_to=1000).compress(MLP(TABLE, [32, 32]), given)
    assert given.notes == ["no channel goes: compressor.amount=0.1 and round_to leave each layer its width"]
