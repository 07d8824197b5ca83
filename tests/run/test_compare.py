from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from trainctl.errors import UsageError
from trainctl.run import compare
from trainctl.run.run import Run


def finished(folder: Path, name: str, metrics: dict[str, float | None], **record: object) -> Run:
    path = folder / "train" / name
    path.mkdir(parents=True)
    run = Run.create(path, "train", {}, [])
    run.finish(metrics)
    run.record.update(record)
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    now = datetime.now().astimezone()
    return [
        finished(tmp_path, "a", {"val/accuracy": 0.8, "val/loss": 0.5}, started=(now - timedelta(days=2)).isoformat()),
        finished(tmp_path, "b", {"val/accuracy": 0.9, "val/loss": 0.7}, started=(now - timedelta(hours=2)).isoformat()),
        finished(tmp_path, "c", {"val/accuracy": None}, status="failed", started="2020-01-01T00:00:00"),
        Run(tmp_path / "train" / "d", {"verb": "evaluate", "status": "damaged"}),
    ]


def order(ranked: list[compare.Ranked]) -> list[tuple[int | None, str]]:
    return [(row.place, row.run.path.name) for row in ranked]


def test_rank_knows_which_metrics_want_more(runs: list[Run]) -> None:
    assert order(compare.rank(runs, "val/accuracy")) == [(1, "b"), (2, "a"), (None, "c"), (None, "d")]
    assert order(compare.rank(runs, "val/loss")) == [(1, "a"), (2, "b"), (None, "c"), (None, "d")]
    assert order(compare.rank(runs, "val/loss", "max"))[0] == (1, "b")
    assert [row.value for row in compare.rank(runs, "val/accuracy", "min")] == [0.8, 0.9, None, None]
    assert compare.rank([], "val/loss") == []


def test_rank_refuses_an_unknown_metric_or_mode(runs: list[Run]) -> None:
    with pytest.raises(UsageError) as caught:
        compare.rank(runs, "val/acuracy")
    assert str(caught.value) == "no run has the metric `val/acuracy`; did you mean `val/accuracy`?"
    with pytest.raises(UsageError) as caught:
        compare.rank(runs, "x")
    assert str(caught.value) == "no run has the metric `x`; have: val/accuracy, val/loss"
    with pytest.raises(UsageError) as caught:
        compare.rank(runs, "val/loss", "best")
    assert str(caught.value) == "mode must be min, max or auto, got 'best'"


def test_a_damaged_metrics_file_ranks_as_missing(runs: list[Run]) -> None:
    (runs[0].path / "metrics.json").write_text("{")
    reread = [Run(run.path, run.record) for run in runs]
    assert order(compare.rank(reread, "val/accuracy"))[:2] == [(1, "b"), (None, "a")]


def test_select(runs: list[Run]) -> None:
    assert [run.path.name for run in compare.select(runs, verb="train", status="completed")] == ["a", "b"]
    assert [run.path.name for run in compare.select(runs, since="1d")] == ["b"]
    assert [run.path.name for run in compare.select(runs, since="30m")] == []
    assert [run.path.name for run in compare.select(runs, since="2019-12-31")] == ["a", "b", "c"]
    assert len(compare.select(runs)) == 4


@pytest.mark.parametrize("since", ["yesterday", "99999999d", "999999w", "", "2026-13-01"])
def test_select_refuses_what_is_no_time(runs: list[Run], since: str) -> None:
    with pytest.raises(UsageError) as caught:
        compare.select(runs, since=since)
    assert str(caught.value) == (
        f"cannot read the time `{since}`; write a date like 2026-11-20, or an age like 30m, 2h or 3d"
    )


def test_select_refuses_an_unknown_status(runs: list[Run]) -> None:
    with pytest.raises(UsageError) as caught:
        compare.select(runs, status="complete")
    assert str(caught.value) == (
        "no status `complete`; one of running, completed, failed, stopped, crashed, damaged; did you mean `completed`?"
    )


def test_seconds(runs: list[Run]) -> None:
    record = {"status": "completed", "started": "2026-11-20T12:00:00+01:00", "ended": "2026-11-20T12:01:30+01:00"}
    run = Run(runs[0].path, record)
    assert compare.seconds(run) == 90.0
    record["ended"] = "2026-11-20T11:00:00+01:00"
    assert compare.seconds(run) == 0.0, "a clock that was set back"
    record["ended"] = "soon"
    assert compare.seconds(run) is None
    record["status"] = "running"
    assert (compare.seconds(run) or 0) > 0 or datetime.now().year < 2027
    assert compare.seconds(runs[3]) is None


def test_a_mistyped_verb_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        compare.select([], verb="trian")
    assert str(caught.value) == "no runs of `trian`; did you mean `train`?"
    assert compare.select([], verb="evaluate") == []
