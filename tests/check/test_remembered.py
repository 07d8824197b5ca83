"""What is remembered of a config's sections changes no answer."""

from __future__ import annotations

from trainctl.check import check
from trainctl.config.compose import compose, plain


def test_what_was_found_of_a_section_is_remembered_until_it_changes() -> None:
    kept: dict[str, list[str]] = {}
    for words in ([], ["optimizer.lr=0.5"], ["+model.depht=3"], ["trainer.accelerator=gpu"], ["+optimizer.x=1"], []):
        config = plain(compose("train", words))
        for _ in range(2):
            assert check("train", config, None, kept) == check("train", config)
