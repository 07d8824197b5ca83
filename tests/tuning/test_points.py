"""Points that are given: `zip(...)` and `@trials.csv`, and what may be wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.spaces import grid, sentence, space
from trainctl.tuning.space import is_dimension


def test_pairs() -> None:
    assert grid("zip(optimizer.lr=0.1,0.01  model.hidden_dims=[8, 8],[4])", "seed=1,2") == [
        ["optimizer.lr=0.1", "model.hidden_dims=[8,8]", "seed=1"],
        ["optimizer.lr=0.1", "model.hidden_dims=[8,8]", "seed=2"],
        ["optimizer.lr=0.01", "model.hidden_dims=[4]", "seed=1"],
        ["optimizer.lr=0.01", "model.hidden_dims=[4]", "seed=2"],
    ]
    assert grid("zip(model=mlp,linear optimizer=sgd,adamw seed=range(1,3))", "optimizer.momentum=0,0.9") == [
        ["model=mlp", "optimizer=sgd", "seed=1", "optimizer.momentum=0"],
        ["model=mlp", "optimizer=sgd", "seed=1", "optimizer.momentum=0.9"],
        ["model=linear", "optimizer=adamw", "seed=2"],
    ]
    (one,) = space("zip(optimizer.lr=0.1,0.01 +callbacks.mine='a b',\"c)\")").dimensions
    assert one.name == "zip(optimizer.lr,+callbacks.mine)"
    assert [one.words(choice) for choice in one.choices] == [
        ["optimizer.lr=0.1", "+callbacks.mine='a b'"], ["optimizer.lr=0.01", '+callbacks.mine="c)"']]
    assert grid("zip(model.dropout=0,0.5 model.norm=none,batch)", "model=mlp,linear")[1:] == [
        ["model=linear"], ["model=mlp", "model.dropout=0.5", "model.norm=batch"]]


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "trials.csv"


def test_given_points(trials: Path) -> None:
    trials.write_text(
        '\ufeffmodel, optimizer.lr,model.hidden_dims,+optimizer.amsgrad\r\nmlp,0.1,"[64, 64]",true\r\n'
        "linear,1e-3,,\r\n\r\nmlp,,[32],\r\n,,,\r\nmlp,,[32],\r\n", encoding="utf-8")
    assert is_dimension("@trials.csv")
    assert grid("@trials.csv", "seed=1,2")[::2] == [
        ["model=mlp", "optimizer.lr=0.1", "model.hidden_dims=[64,64]", "+optimizer.amsgrad=True", "seed=1"],
        ["model=linear", "optimizer.lr=0.001", "seed=1"],
        ["model=mlp", "model.hidden_dims=[32]", "seed=1"],
        ["seed=1"],
    ]
    assert [one.name for one in space("seed=1,2", "@trials.csv").dimensions] == ["@trials.csv", "seed"]


FILES = {
    "": "`trials.csv` has no rows; its header names the keys, and each row below is a point",
    "seed\n": "`trials.csv` has no rows; its header names the keys, and each row below is a point",
    "seed\n3\n": "`@trials.csv` is a single point, which is nothing to search; give two or more",
    "seed,optimizer.lr\n1,0.1\n\n2\n": "`trials.csv` line 4 has 1 value for 2 columns",
    "seed\n1\n2,3\n": "`trials.csv` line 3 has 2 values for 1 columns",
    "seed,\n1,2\n": "the header of `trials.csv` has no name for column 2; each column needs a key of its own",
    "seed,seed\n1,2\n": "the header of `trials.csv` gives `seed` twice; each column needs a key of its own",
    "seed\n1\n\"2,3\"\n": "`trials.csv` line 3: `seed=2,3` gives several values; a row is one point",
    "optimizer.lrr\n1\n2\n": "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?",
    "model,model.hiden_dims\nmlp,[1]\nlinear,\n": "unknown key `model.hiden_dims`; did you mean `model.hidden_dims`?",
    "model\nmlp\nmpl\n": "no `model` option `mpl`; have: cnn, forest, linear, lstm, mlp, resmlp, "
    "resnet, transformer, tree; "
    "did you mean `mlp`?",
    "optimizer.lr\n0.1\n-3\n": "`optimizer.lr` must be > 0 or auto, got -3",
    "seed\n1\n\"2\n": "`trials.csv` is not a CSV file in UTF-8: unexpected end of data",
}


@pytest.mark.parametrize("text", FILES)
def test_a_mistake_in_given_points(text: str, trials: Path) -> None:
    trials.write_text(text, encoding="utf-8")
    assert sentence("@trials.csv") == FILES[text]


def test_given_points_that_cannot_be_read(trials: Path) -> None:
    assert sentence("@trials.csv") == (
        "`@trials.csv` names no file: `trials.csv` does not exist; it must be a CSV file with one point a row")
    trials.write_bytes("seed\n\u00fc\n".encode("latin-1"))
    assert sentence("@trials.csv").startswith("`trials.csv` is not a CSV file in UTF-8: 'utf-8' codec can't decode")
    trials.write_text("freeze\n[1\n[2]\n", encoding="utf-8")
    assert sentence("@trials.csv").startswith("`trials.csv` line 2: cannot read override 1 (`freeze=[1`) at column ")
    trials.write_text("seed\n3\n", encoding="utf-8")
    assert grid("@trials.csv", searched=False) == [["seed=3"]]
