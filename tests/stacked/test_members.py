"""Members of a stack are independent: dropping one, or one that diverges, changes nothing for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.stacked.conftest import CPU, config_of, member
from trainctl.stacked import Unstackable
from trainctl.stacked.members import not_faster, why_not
from trainctl.stacked.trainer import Member, StackedTrainer

HARD = ("model.dropout=0.2", "model.norm=batch", "ema=0.9", "task.label_smoothing=0.1", "trainer.gradient_clip_val=1",
        "scheduler=cosine", "task.class_weights=balanced", "task.l1=0.001")


def stack_of(*trials: tuple[str, ...], double: bool = True) -> StackedTrainer:
    members: list[Member] = []
    for words in trials:
        config = config_of(words)
        members.append(member(config, members[0].data if members else None, double))
    return StackedTrainer(members, CPU, 5)


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return list(one) == list(two) and all(torch.allclose(one[k], two[k], rtol=1e-10, atol=1e-12) for k in one)


def epochs(stack: StackedTrainer, count: int) -> list[float]:
    losses: list[float] = []
    for _ in range(count):
        losses = stack.run_epoch()
        stack.end_epoch(stack.evaluate()[2])
    return losses


@pytest.mark.parametrize("more", [(), HARD, ("optimizer=sgd",), ("data.target=number",)],
                         ids=["plain", "all", "sgd", "number"])
def test_members_that_are_dropped_change_nothing_for_the_others(more: tuple[str, ...]) -> None:
    trials = [(*more, f"optimizer.lr={lr}", f"optimizer.weight_decay={lr}") for lr in (0.01, 0.02, 0.03, 0.04)]
    if "task.label_smoothing=0.1" in more:
        trials[1] += ("task.label_smoothing=0.3", "task.class_weights=[1,2]", "ema=null")
    whole, halved = stack_of(*trials), stack_of(*trials)
    epochs(whole, 4)
    epochs(halved, 2)
    halved.remember(range(4))
    halved.keep([3, 1])
    before = halved.weights(1)
    epochs(halved, 2)
    assert [m.task for m in halved.members] != [m.task for m in whole.members] and len(halved.members) == 2
    for new, old in enumerate((3, 1)):
        assert equal(halved.weights(new), whole.weights(old))
        assert equal(halved.weights(new, averaged=False), whole.weights(old, averaged=False))
        assert halved.lr(new) == whole.lr(old)
        assert halved.evaluate()[2][new] == pytest.approx(whole.evaluate()[2][old], rel=1e-9)
    assert equal(halved.remembered(1), before)


def test_seeds_that_differ_stay_with_their_members() -> None:
    trials = [(f"seed={seed}", "data.seed=0", f"model.dropout={p}") for seed, p in ((1, 0.1), (2, 0.2), (1, 0.3))]
    whole, halved = stack_of(*trials), stack_of(*trials)
    epochs(whole, 2)
    epochs(halved, 1)
    halved.keep([2, 1])
    epochs(halved, 1)
    assert equal(halved.weights(0), whole.weights(2)) and equal(halved.weights(1), whole.weights(1))


def test_a_member_that_diverges_is_told_and_harms_no_other() -> None:
    sgd = ("optimizer=sgd", "data.target=number")
    wild = stack_of((*sgd, "optimizer.lr=0.01"), (*sgd, "optimizer.lr=1e30"))
    tame = stack_of((*sgd, "optimizer.lr=0.01"))
    first, second = epochs(wild, 2)
    assert [first] == pytest.approx(epochs(tame, 2)) and second != second
    assert equal(wild.weights(0), tame.weights(0))
    assert wild.diverged[0] is None
    assert wild.diverged[1] is not None and wild.diverged[1].startswith("loss is ")
    assert wild.diverged[1].endswith(" (lr 1e+30)") and " at epoch 1 step " in wild.diverged[1]
    wild.keep([0])
    assert wild.diverged == [None]


def test_the_weights_of_the_best_epoch_can_be_kept() -> None:
    stack = stack_of(("optimizer.lr=0.01", "ema=0.5"), ("optimizer.lr=0.02", "ema=0.5"))
    epochs(stack, 1)
    stack.remember([0, 1])
    first = [stack.weights(k) for k in range(2)]
    epochs(stack, 1)
    stack.remember([1])
    second = stack.weights(1)
    epochs(stack, 1)
    assert equal(stack.remembered(0), first[0]) and equal(stack.remembered(1), second)
    assert not equal(stack.remembered(1), stack.weights(1))


class Odd(nn.Module):
    """A net of a user, with a forward of its own."""

    def __init__(self, spec: Any, dropout: float = 0.0, tied: bool = False) -> None:
        super().__init__()
        self.first, self.drop = nn.Linear(spec.num_features, 8), nn.Dropout(dropout)
        self.second = nn.Linear(8, spec.num_outputs)
        if tied:
            self.third = self.second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(self.first(x).sin()))  # type: ignore[no-any-return]


class Noisy(Odd):
    """One that draws random numbers by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


OWN = f"model._target_={__name__}.Odd"
NOISY = f"model._target_={__name__}.Noisy"


@pytest.mark.parametrize(("words", "reason"), [
    (["model=cnn", "data.kind=image", "data.image_shape=[1,8,8]", "data.augment.flip=true"],
     "images are changed at random"),
    (["optimizer=muon"], "there is no stacked form of Muon"),
    (["+optimizer.amsgrad=true"], "an optimizer with amsgrad"),
    (["optimizer.lr=auto"], "optimizer.lr=auto"),
    (["compile=true"], "compile=true"),
    (["trainer.precision=bf16-mixed"], "trainer.precision=bf16-mixed"),
    (["trainer.devices=2"], "trainer.devices=2"),
    (["trainer.max_time=10m"], "trainer.max_time=10m"),
    (["model=linear", OWN, "+model.dropout=0.5"], "there is no stacked form of Odd, and its dropout draws by itself"),
    (["model=linear", OWN, "+model.tied=true"], "the net ties parameters"),
    (["model=linear", NOISY], "there is no stacked form of Noisy, and it draws random numbers"),
    (["model=lstm", "data.kind=sequence", "model.dropout=0"],
     "there is no stacked form of LSTM, and it cannot be vmapped: Batching rule not implemented for aten::lstm.input. "
     "We could not generate a fallback."),
], ids=lambda value: value[-1] if isinstance(value, list) else "")  # fmt: skip
def test_what_cannot_be_stacked_is_said_in_a_phrase(words: list[str], reason: str) -> None:
    config = config_of(words)
    if "optimizer.lr=auto" in words or "compile=true" in words:
        assert why_not(None, None, config) == reason
        return
    made = member(config, double=False)
    assert why_not(made.task, made.data, config) == reason


def test_what_can_be_stacked_has_no_reason() -> None:
    config = config_of(HARD)
    made = member(config, double=False)
    assert why_not(made.task, made.data, config) is None


def test_a_net_of_a_user_is_vmapped() -> None:
    trials = [("model=linear", OWN, f"optimizer.lr={lr}") for lr in (0.01, 0.02)]
    stack, alone = stack_of(*trials), stack_of(trials[1])
    assert epochs(stack, 2)[1] == pytest.approx(epochs(alone, 2)[0])
    assert equal(stack.weights(1), alone.weights(0))


def test_members_of_different_shapes_are_refused() -> None:
    with pytest.raises(Unstackable, match="^the nets have different shapes$"):
        stack_of(("model.hidden_dims=[8]",), ("model.hidden_dims=[9]",))
    with pytest.raises(Unstackable, match="^the optimizers differ$"):
        stack_of(("optimizer=sgd",), ("optimizer=adam",))
    with pytest.raises(Unstackable, match="^the members differ in accumulate_grad_batches$"):
        stack_of(("trainer.accumulate_grad_batches=2",), ())
    with pytest.raises(Unstackable, match="^the nets have different shapes$"):
        stack_of(("model.norm=batch",), ("model.norm=layer",))


@pytest.mark.parametrize("words", [
    (), ("data.target=number",), ("data.kind=image", "data.image_shape=[1,8,8]", "ema=0.5"),
    ("model.norm=batch", "data.kind=sequence"),
], ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("split", ["val", "test"])
def test_what_is_evaluated_is_what_the_handed_out_weights_say(words: tuple[str, ...], split: str) -> None:
    configs = [config_of((*words, f"seed={seed}")) for seed in (1, 2)]
    members = [member(config) for config in configs]
    stack = StackedTrainer(members, CPU, 2)
    epochs(stack, 2)
    outputs, y, losses = stack.evaluate(split)
    for k, one in enumerate(members):
        rows = one.data.split(split)
        one.task.net.load_state_dict(stack.weights(k))
        one.task.eval()
        with torch.no_grad():
            x = rows.x.double() if rows.x.is_floating_point() else rows.x
            found = one.task(x).float()
        assert torch.equal(y[k], rows.y)
        torch.testing.assert_close(outputs[k], one.task.predict_outputs(found))
        assert losses[k] == pytest.approx(float(one.task.loss(found, rows.y)), rel=1e-5)


def test_a_stack_that_gains_nothing_is_said_in_a_phrase() -> None:
    def said(*words: str, device: torch.device = CPU) -> str | None:
        config = config_of(words)
        made = member(config, double=False)
        return not_faster(made.task, made.data, config, device)

    image = ("model=cnn", "model.dropout=0", "data.kind=image", "data.image_shape=[1,8,8]", "model.channels=[4]")
    assert said() is None
    assert said(*image) == "there is no stacked form of CNN, and vmap is slower"
    assert said(*image, device=torch.device("cuda")) is None
    assert said("model.hidden_dims=[600,600]") == "a net of 387890 parameters keeps the processor busy alone"
    deep = ("model.hidden_dims=[99,99,99,99,99,99]", "model.norm=layer", "model.activation=gelu", "data.rows=4000")
    assert said(*deep, "data.batch_size=100") is None
    assert said(*deep, "data.batch_size=2000") == "a step of 19 MB keeps the processor busy alone"
