"""A run is read from another directory than it was made in, though its table was given by a relative path."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_evaluate_and_resume_find_the_table_where_the_run_was_made(forked, tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    rows = "\n".join(f"{i % 7 + i / 1000},{'yes' if i % 7 > 3 else 'no'}" for i in range(300))
    (home / "x.csv").write_text("a,label\n" + rows + "\n", encoding="utf-8")
    words = ("train", "data.path=x.csv", "data.target=label", "data.columns.a=numeric", "trainer.max_epochs=1")
    assert forked.run(*words, cwd=home).code == 0
    (run,) = (home / "runs" / "train").iterdir()
    before = forked.run("evaluate", str(run), "--json", cwd=home)
    after = forked.run("evaluate", str(run), "--json", cwd=away)
    assert after.code == 0, after.err
    assert after.json["metrics"] == before.json["metrics"]
    assert forked.run("train", "--resume", str(run), "trainer.max_epochs=2", cwd=away).code == 0
    (home / "x.csv").unlink()
    gone = forked.run("evaluate", str(run), cwd=away)
    assert gone.code == 3 and "`x.csv`" in gone.err.splitlines()[-1]
