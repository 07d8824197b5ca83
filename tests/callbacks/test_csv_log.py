"""metrics.csv goes on where a stopped run goes on."""

from __future__ import annotations

import csv

from trainctl.callbacks.csv_log import CSVLog


def rows(log):
    with open(log.path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_new_figure_makes_a_new_column(tmp_path):
    log = CSVLog(str(tmp_path))
    log.log_metrics({"loss": 0.5}, step=1)
    log.log_metrics({"loss": 0.25}, step=2)
    log.log_metrics({"loss": 0.125, "auroc": 0.75}, step=3)
    assert log.path == tmp_path / "metrics.csv"
    assert rows(log) == [
        {"step": "1", "loss": "0.5", "auroc": ""},
        {"step": "2", "loss": "0.25", "auroc": ""},
        {"step": "3", "loss": "0.125", "auroc": "0.75"},
    ]


def test_rows_beyond_the_place_of_the_resume_are_dropped(tmp_path):
    log = CSVLog(str(tmp_path), "figures")
    for step in (10, 20, 30):
        log.log_metrics({"loss": 1 / step}, step=step)
    with open(log.path, "a", encoding="utf-8") as file:
        file.write("4")  # the row that a kill tore
    again = CSVLog(str(tmp_path), "figures")
    again.log_metrics({"loss": 0.0}, step=20)
    again.log_metrics({"loss": -1.0}, step=30)
    assert [(row["step"], row["loss"]) for row in rows(again)] == [("10", "0.1"), ("20", "0.0"), ("30", "-1.0")]
    assert [p.name for p in tmp_path.iterdir()] == ["figures.csv"]


def test_it_says_what_it_is(tmp_path):
    log = CSVLog(str(tmp_path))
    log.log_hyperparams({"lr": 1})
    assert (log.name, log.version) == ("metrics", "") and not log.path.exists()
