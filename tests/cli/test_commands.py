"""Commands, by what a user sees of them."""

from __future__ import annotations

from tests.conftest import Lab


def test_train_tells_all_problems_at_once_as_config_check_does(lab: Lab) -> None:
    words = ("model.hiden_dims=[8]", "optimzer.lr=1", "optimizer.lr=-1")
    assert lab.sentence(2, "train", *words) == (
        "3 problems in the config: unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?; "
        "unknown group `optimzer`; did you mean `optimizer`?; `optimizer.lr` must be > 0 or auto, got -1"
    )
    assert not (lab.folder / "runs").exists()
