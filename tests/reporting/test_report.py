from __future__ import annotations

import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainctl.reporting import report
from trainctl.run.run import Run

NASTY = "<img src=x onerror=alert(1)>\"'&"


class Tags(html.parser.HTMLParser):
    """Counts start tags and fails on one that is not closed in order."""

    void = {"meta", "br", "img", "link"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.void:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that has everything a report can show, with markup wherever names come from data or people."""
    made = Run.create(tmp_path, "evaluate", {"seed": 0, "note": NASTY}, [f"data.target={NASTY}"])
    for epoch in range(3):
        made.log_metrics({"epoch": epoch, "train/loss": 1 - epoch / 4, "val/loss": 1.0, f"val/{NASTY}": 0.5})
    measured = {"rows": 4, "metrics": {"accuracy": 0.5, "auroc": None}, "intervals": {}}
    content: dict[str, Any] = {
        "confusion": {"classes": [NASTY, "b", "c", "d", "e"], "counts": [[3, 1, 0, 0, 0]] * 5, "threshold": None},
        "calibration": [{"low": 0, "high": 1, "count": 5, "claimed": 0.4, "true": 0.5}],
        "errors": {"target": NASTY, "edges": [-1, 0, 1], "counts": [2, 3], "beyond": 1, "sample": [[1, 2], [2, 2]]},
        "slices": {NASTY: {"groups": {NASTY: measured, "m": measured},
                           "gaps": {"accuracy": 0.0, "auroc": None}, "other_rows": 7}},
        "lr_range": {"lr": 0.01, "rates": [1e-4, 1e-2], "losses": [1.0, 0.5]},
    }  # fmt: skip
    for name, value in content.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    made.update(warnings=[NASTY], test_looks=3, rows=20, split="test", data={"splits": {"test": {"rows": 20}}})
    return made


def test_everything_is_shown_and_nothing_is_markup(run: Run) -> None:
    run.finish({"test/accuracy": 0.5, "test/auroc": None}, {"test/accuracy": [0.4, 0.6], "test/auroc": None})
    path = report.write(run)
    text = path.read_text(encoding="utf-8")
    tags = Tags(text)
    assert path == run.path / "report.html"
    assert not {"img", "script", "link", "iframe"} & set(tags.seen)
    assert not [name for name in tags.attributes if name.startswith("on") or name in ("src", "href")]
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    for title in ("Results on test, 20 rows", "Learning curves", "Confusion matrix", "Calibration", "Error",
                  "Prediction against target", "Loss while the rate grows", "Most frequent mix-ups"):  # fmt: skip
        assert title in text, title
    assert "0.4 to 0.6" in text and "7 rows of rarer values are left out." in text
    assert "The test split was looked at 3 times; choices made from it wear it out." in text


def test_it_loads_nothing_and_is_small(run: Run) -> None:
    text = report.write(run, {"test/accuracy": 0.5}, {}, status="completed").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert len(text) < 40_000


def test_figures_given_before_the_end_are_shown(run: Run) -> None:
    text = report.write(run, {"test/accuracy": 0.125}, {"test/accuracy": None}, status="completed").read_text("utf-8")
    assert "0.125" in text and 'class="status completed"' in text


def test_a_failed_run_shows_why(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "train", {"seed": 0}, [])
    run.fail(ValueError("loss is nan & worse"), 6, "Traceback")
    text = report.write(run).read_text(encoding="utf-8")
    Tags(text)
    assert "loss is nan &amp; worse" in text and 'class="status failed"' in text
    assert "Learning curves" not in text and "Confusion" not in text


def test_too_many_classes_are_not_drawn(run: Run) -> None:
    classes = [str(i) for i in range(40)]
    counts = [[int(i == j) + int(i == 0) for j in range(40)] for i in range(40)]
    content = {"classes": classes, "counts": counts, "threshold": None}
    (run.path / "confusion.json").write_text(json.dumps(content), encoding="utf-8")
    text = report.write(run).read_text(encoding="utf-8")
    assert "Confusion matrix" not in text and "Most frequent mix-ups" in text


def test_reporting_leaves_torch_alone() -> None:
    code = "import sys, trainctl.reporting.report; sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
