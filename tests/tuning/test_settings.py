"""The settings of a search from its config."""

from __future__ import annotations

import pytest

from trainctl.config.compose import compose, plain
from trainctl.tuning.settings import Settings


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ([], 6),
        (["trainer.max_epochs=9"], 2),
        (["trainer.max_epochs=1"], 1),
        (["trainer.max_epochs=null"], 1),
        (["stopper.min_resource=4"], 4),
        (["stopper.min_resource=auto"], "auto"),
    ],
)
def test_the_first_look_of_asha_is_a_share_of_a_trial(words: list[str], first: object) -> None:
    config = plain(compose("tune", ["trainer.max_epochs=27", "stopper=asha", *words]))
    assert Settings.from_config(config, searched=True).stopper["min_resource"] == first
    assert config["stopper"]["min_resource"] == (None if not words or "max_epochs" in words[0] else first)
