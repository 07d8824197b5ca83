"""Finds every mistake in a config before torch is imported: targets, arguments, values, metric names."""

from trainctl.check.problems import check, check_words
from trainctl.check.trust import refuse_untrusted, untrusted_packages

__all__ = ["check", "check_words", "refuse_untrusted", "untrusted_packages"]
