"""What is varied: dimensions from override words, conditions, pairing, grids, and every mistake as a sentence."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.types import Override

from trainctl.config import overrides
from trainctl.config.location import conf_dir
from trainctl.errors import UsageError
from trainctl.tuning.composing import Composer
from trainctl.tuning.dimensions import Dimension
from trainctl.tuning.space import Space, is_dimension, parse

COMPOSER = Composer("train", None)
DATA = "data=synthetic"


def space(*words: str, node: dict[str, Any] | None = None, searched: bool = True) -> Space:
    return parse("train", [DATA, *words], None, node, searched, COMPOSER)


def sentence(*words: str, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        space(*words, **options)
    return str(caught.value)


def grid(*words: str, **options: Any) -> list[list[str]]:
    """What each point adds to the fixed words."""
    found = space(*words, **options)
    assert found.size() == len(found.points())
    return [found.words(point)[len(found.fixed):] for point in found.points()]


DIMENSIONS = {
    "optimizer.lr=tag(log, interval(1e-4,1e-1))": Dimension("optimizer.lr", "float", low=1e-4, high=0.1, log=True),
    "optimizer.lr=interval(0.1,1)": Dimension("optimizer.lr", "float", low=0.1, high=1.0),
    "seed=int(interval(16,256))": Dimension("seed", "int", low=16, high=256),
    "seed=int(tag(log, interval(16,256)))": Dimension("seed", "int", low=16, high=256, log=True),
    "seed=tag(log, int(interval(16,256)))": Dimension("seed", "int", low=16, high=256, log=True),
    "seed=range(1,10)": Dimension("seed", "int", low=1, high=9, step=1),
    "seed=range(10,1,-4)": Dimension("seed", "int", low=2, high=10, step=4),
    "data.rows=range(1000,1000000000000)": Dimension("data.rows", "int", low=1000, high=999999999999, step=1),
    "optimizer.lr=range(0.1,0.5,0.1)": Dimension("optimizer.lr", "float", low=0.1, high=0.4, step=0.1),
    "optimizer.lr=float(range(1,4))": Dimension("optimizer.lr", "float", low=1.0, high=3.0, step=1.0),
    "model.hidden_dims=choice([64],[128,128])": Dimension("model.hidden_dims", "choice", ("[64]", "[128,128]")),
    "model=mlp,resmlp": Dimension("model", "choice", ("mlp", "resmlp")),
    "model=glob(*mlp)": Dimension("model", "choice", ("mlp", "resmlp")),
    "optimizer.fused=true,null": Dimension("optimizer.fused", "choice", ("True", "null")),
    "optimizer.fused=choice(true,null)": Dimension("optimizer.fused", "choice", ("True", "null")),
    "seed=3,1,3": Dimension("seed", "choice", ("3", "1")),
    "seed=sort(3,1,2)": Dimension("seed", "choice", ("1", "2", "3")),
    "data.split={val:0.1},{val:0.2}": Dimension("data.split", "choice", ("{val:0.1}", "{val:0.2}")),
    "model.activation=\"relu\",'gelu'": Dimension("model.activation", "choice", ('"relu"', "'gelu'")),
    "+optimizer.amsgrad=true,false": Dimension("+optimizer.amsgrad", "choice", ("True", "False")),
}


@pytest.mark.parametrize("word", DIMENSIONS)
def test_any_sweep_of_hydra_is_a_dimension(word: str) -> None:
    assert is_dimension(word)
    found = space(word, "optimizer.weight_decay=0.1")
    assert found.dimensions == (DIMENSIONS[word],)
    assert found.fixed == (DATA, "optimizer.weight_decay=0.1")


@pytest.mark.parametrize("values", [
    "'1',1,1.0,\"1.5\"", "choice('it\\'s','a,b')", "null,'null',true,'true'", "[1,'b c'],['1'],[]",
    "{a:1},{a:'1',b:[x]}", "a b,c\\,d,'${seed}'", "str(1,2)", "choice('','x')", "/x/y,a-b@c", "1e-5,0.001,1_000",
    "'a\\\\b','\"'", "['a b','c,d'],x",
])
def test_a_choice_is_read_back_as_it_was(values: str) -> None:
    (sweep,) = overrides.parse([f"+callbacks.mine={values}"])
    (one,) = space(f"+callbacks.mine={values}").dimensions
    again = [overrides.parse(one.words(text))[0].value() for text in one.choices]
    given = [Override._convert_value(value) for value in sweep.sweep_iterator()]
    assert list(map(repr, again)) == list(map(repr, given))


def test_groups_come_first_and_keys_in_the_order_typed() -> None:
    found = space("optimizer.lr=0.1,0.2", "model=mlp,linear", "seed=1,2", "optimizer=sgd,adamw")
    assert [one.name for one in found.dimensions] == ["model", "optimizer", "optimizer.lr", "seed"]


@pytest.mark.parametrize("words", [
    ("model=mlp,linear", "seed=1,2", "optimizer.lr=0.1"),
    ("seed=1,2", "model=mlp,linear"),
    ("seed=range(1,4)", "model.hidden_dims=[8],[16]"),
    ("seed=range(10,1,-3)", "optimizer.lr=range(0.1,0.4,0.1)"),
    ("model.activation='relu',gelu", "+optimizer.amsgrad=true,false"),
    ("seed=1,2", "seed=3,4"),
    ("seed=range(3,4)",),
    ("seed=3",),
])
def test_a_grid_has_the_points_and_texts_of_hydra(words: tuple[str, ...]) -> None:
    found = space(*words, searched=False)
    expected = overrides.points([DATA, *words])
    assert [sorted(found.words(point)) for point in found.points()] == [sorted(point) for point in expected]
    assert found.size() == len(expected)


def test_a_shuffled_sweep_has_one_order() -> None:
    first = grid("seed=shuffle(range(1,9))", searched=False)
    assert first == grid("seed=shuffle(range(1,9))", searched=False) != sorted(first)
    assert sorted(first) == [[f"seed={number}"] for number in range(1, 9)]


def test_the_grid_of_a_search_lists_ranges() -> None:
    assert grid("optimizer.lr=range(0.1,0.5,0.1)") == [
        ["optimizer.lr=0.1"], ["optimizer.lr=0.2"], ["optimizer.lr=0.3"], ["optimizer.lr=0.4"]]
    assert grid("seed=range(5,0,-2)") == [["seed=1"], ["seed=3"], ["seed=5"]]


def test_a_grid_of_a_million_points_is_only_counted() -> None:
    assert space("seed=range(0,1000000)", "data.rows=range(1000,2000)", "model=mlp,linear").size() == 2 * 10**9


def test_a_key_is_left_out_where_the_options_lack_it() -> None:
    assert grid("seed=1,2", "model.dropout=0,0.5", "model=mlp,linear") == [
        ["model=mlp", "seed=1", "model.dropout=0"],
        ["model=linear", "seed=1"],
        ["model=mlp", "seed=1", "model.dropout=0.5"],
        ["model=mlp", "seed=2", "model.dropout=0"],
        ["model=linear", "seed=2"],
        ["model=mlp", "seed=2", "model.dropout=0.5"],
    ]
    asked = []
    found = space("model=linear,mlp", "model.dropout=0,0.5")
    point = found.point(lambda one: asked.append(one.name) or one.choices[0])  # type: ignore[func-returns-value]
    assert point == {"model": "linear"} and asked == ["model"]


def test_conditions_over_two_groups_and_experiments() -> None:
    found = space("optimizer=sgd,adamw", "optimizer.momentum=0,0.9", "model=mlp,linear", "model.hidden_dims=[4],[8]")
    assert found.size() == (2 + 1) * (2 + 1)
    assert grid("experiment=digits_linear,adult_mlp", "model.hidden_dims=[4],[8]") == [
        ["experiment=digits_linear"],
        ["experiment=adult_mlp", "model.hidden_dims=[4]"],
        ["experiment=adult_mlp", "model.hidden_dims=[8]"],
    ]


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
    "model\nmlp\nmpl\n": "no `model` option `mpl`; have: cnn, linear, lstm, mlp, resmlp, resnet, transformer; "
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


def test_the_space_node_and_words_that_replace_it() -> None:
    node = {"optimizer.lr": "interval(0.1,1)", "model": {"dropout": "0,0.5"}, "+optimizer.amsgrad": "true,false"}
    assert [one.name for one in space(node=node).dimensions] == ["optimizer.lr", "model.dropout", "+optimizer.amsgrad"]
    found = space("optimizer.lr=0.1", "model.dropout=0.1,0.2", node=node)
    assert found.fixed == (DATA, "optimizer.lr=0.1")
    assert [one.choices for one in found.dimensions] == [("True", "False"), ("0.1", "0.2")]
    assert sentence(node={"seed": 3}) == "`space` must hold a text such as `interval(0,0.5)` for `seed`, got 3"
    assert sentence(node={"seed": "3"}).startswith("nothing to search: ")


def test_a_space_for_several_nets_serves_one_of_them() -> None:
    node = {"model": "mlp,resmlp", "model.hidden_dims": "[4],[8]", "model.num_blocks": "1,2"}
    assert [one.name for one in space("model=resmlp", node=node).dimensions] == ["model.num_blocks"]
    assert sentence("model=resmlp", "model.hidden_dims=[4],[8]").startswith("unknown key `model.hidden_dims`; ")
    said = sentence("model=resmlp", node={"model.hidden_dims": "[4],[8]"})
    assert said.startswith("unknown key `model.hidden_dims`; ")


@pytest.mark.parametrize("name", ["mlp_nas", "cnn_nas", "mlp", "optimizer"])
def test_the_shipped_spaces(name: str) -> None:
    node = yaml.safe_load((conf_dir() / "space" / f"{name}.yaml").read_text(encoding="utf-8"))
    data = "synthetic_images" if name == "cnn_nas" else "synthetic"
    found = space(f"data={data}", node=node)
    names = [*(one.name for one in found.dimensions), *(word.partition("=")[0] for word in found.fixed)]
    assert set(names) - {"data"} == set(node)


NOTHING = (
    "nothing to search: no word gives several values; write one as in "
    "'optimizer.lr=tag(log, interval(1e-4,1e-1))' or `model=mlp,resmlp`"
)
MISTAKES = {
    (): NOTHING,
    ("optimizer.lr=0.1", "hydra/launcher=joblib,basic"): NOTHING,
    ("optimizer.lr=choice(0.1)",):
    "`optimizer.lr=choice(0.1)` gives a single value, which is nothing to search; give two "
    ""
    "or more, or write `optimizer.lr=0.1`",
    ("seed=3,3",): "`seed=3,3` gives a single value, which is nothing to search; give two or more, or write `seed=3`",
    ("seed=range(3,4)",): "`seed=range(3,4)` gives a single value, which is nothing to search; give two or more, "
    "or write `seed=3`",
    ("seed=range(3,3)",): "`seed=range(3,3)` is empty: it gives no value at all",
    ("model=glob(q*)",): "`model=glob(q*)` is empty: it gives no value at all",
    ("optimizer.lr=interval(0.1,0.1)",):
    "`optimizer.lr=interval(0.1,0.1)` is a single point, which is nothing to search; "
    ""
    "widen it, or write `optimizer.lr=0.1`",
    ("optimizer.lr=interval(0.1,0.01)",): "`optimizer.lr=interval(0.1,0.01)` has its bounds the wrong way round; write "
    "`optimizer.lr=interval(0.01,0.1)`",
    ("seed=int(tag(log, interval(9,1)))",):
    "`seed=int(tag(log, interval(9,1)))` has its bounds the wrong way round; write "
    ""
    "`seed=int(tag(log, interval(1,9)))`",
    ("optimizer.lr=tag(log, interval(0,0.1))",): "`optimizer.lr=tag(log, interval(0,0.1))` is logarithmic, so that its "
    "bounds must be > 0, got 0",
    ("optimizer.lr=interval(0,inf)",): "`optimizer.lr=interval(0,inf)` needs two finite numbers as bounds",
    ("optimizer.lr=tag(lgo, interval(0.1,1))",):
    "`optimizer.lr=tag(lgo, interval(0.1,1))` has the tag `lgo`, which means "
    ""
    "nothing; the one tag is `log`, as in `tag(log, interval(1e-4,1e-1))`",
    ("seed=tag(log, range(1,9))",): "`seed=tag(log, range(1,9))` has the tag `log`, which is for an interval, as in "
    "`tag(log, interval(1e-4,1e-1))`",
    ("optimizer.lrr=interval(0,1)",): "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?",
    ("model=linear,mlp", "model.droput=0,0.5"): "unknown key `model.droput`; did you mean `model.dropout`?",
    ("modl=mlp,linear",): "unknown key `modl`; did you mean `model`?",
    ("lr=0.1,0.2",): "unknown key `lr`; did you mean `optimizer.lr`?",
    ("model=mlp,mpl",): "no `model` option `mpl`; have: cnn, linear, lstm, mlp, resmlp, resnet, transformer; "
    "did you mean `mlp`?",
    ("model.dropout=interval(0,1.5)",): "`model.dropout` must be ≥ 0 and < 1, got 1.5",
    ("model.dropout=interval(-0.5,0.5)",): "`model.dropout` must be ≥ 0 and < 1, got -0.5",
    ("model=linear,mlp", "model.dropout=0,2"): "`model.dropout` must be ≥ 0 and < 1, got 2",
    ("optimizer.lr=0.1,-1",): "`optimizer.lr` must be > 0 or auto, got -1",
    ("data.batch_size=interval(16,256)",): "`data.batch_size` takes whole numbers; write "
    "`data.batch_size=int(interval(16,256))`",
    ("data.batch_size=interval(16.5,256)",): "`data.batch_size` must be a whole number ≥ 1, got 16.5",
    ("+optimizer.lr=0.1,0.2",): "`optimizer.lr` exists already; set it without the `+`",
    ("zip(optimizer.lr=0.1,0.01 model.dropout=0,0.5,0.3)",):
    "`zip(optimizer.lr=0.1,0.01 model.dropout=0,0.5,0.3)` pairs "
    ""
    "lists of different lengths: `optimizer.lr` has 2 values and `model.dropout` has 3 values",
    ("zip(optimizer.lr=0.1,0.01 seed=3)",): "`zip(optimizer.lr=0.1,0.01 seed=3)` pairs lists of different lengths: "
    "`optimizer.lr` has 2 values and `seed` has 1 value",
    ("zip(optimizer.lr=0.1 seed=3)",): "`zip(optimizer.lr=0.1 seed=3)` is a single point, which is nothing to search; "
    "give two or more",
    ("zip()",): "`zip()` pairs nothing; write it as in 'zip(optimizer.lr=0.1,0.01 model.dropout=0,0.5)'",
    ("zip(seed=1,2",): "`zip(seed=1,2` has no closing bracket; write it in quotes as one word: 'zip(a=1,2 b=3,4)'",
    ("zip(seed=1,2 seed=3,4)",): "`zip(seed=1,2 seed=3,4)` gives `seed` twice; keep one",
    ("zip(seed=1,2 optimizer.lr=interval(0,1))",):
    "`optimizer.lr=interval(0,1)` is a continuous range, whose values cannot "
    ""
    "be listed",
    ("zip(seed=1,2 model.droput=0,0.5)",): "unknown key `model.droput`; did you mean `model.dropout`?",
    ("seed=1,2", "zip(seed=1,2 optimizer.lr=0.1,0.2)"):
    "`seed` is given by `seed` and again by `zip(seed,optimizer.lr)`; "
    ""
    "keep one",
    ("seed=1,2", "optimizer.lr=0.1,a b=c"):
    "cannot read override 3 (`optimizer.lr=0.1,a b=c`) at column 21 (`=c`); quote "
    ""
    "it: 'optimizer.lr=\"0.1,a b=c\"'",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_sentence(words: tuple[str, ...]) -> None:
    assert sentence(*words) == MISTAKES[words]


def test_a_range_without_steps_is_no_grid() -> None:
    found = space("optimizer.lr=tag(log, interval(0.1,1))", "seed=1,2", searched=False)
    assert found.size() is None
    with pytest.raises(UsageError) as caught:
        found.points()
    assert str(caught.value) == (
        "`optimizer.lr=tag(log, interval(0.1,1))` is a continuous range, which a grid cannot run through; "
        "list the values, as in `optimizer.lr=1,2,3` or `optimizer.lr=range(1,10)`")


def test_the_words_of_a_point_are_a_trainings() -> None:
    found = space("optimizer.lr=tag(log, interval(1e-5,1e-1))", "seed=range(1,4)", "ema=0.9")
    point = found.point(lambda one: 1.5e-05 if one.kind == "float" else 2)
    assert found.words(point) == [DATA, "ema=0.9", "optimizer.lr=1.5e-05", "seed=2"]
    assert COMPOSER.checked(found.words(point))["optimizer"]["lr"] == 1.5e-05
    assert found.first() == {"optimizer.lr": 1e-05, "seed": 1}


def test_json_tells_spaces_apart() -> None:
    words = [("seed=1,2",), ("seed=range(1,3)",), ("seed=1,2", "ema=0.9"), ("seed=1,3",), ("ema=0.1,0.2",)]
    texts = [json.dumps(space(*given).to_json()) for given in words]
    assert len(set(texts)) == len(words)
    assert texts[0] == json.dumps(space(*words[0]).to_json())
    assert space("seed=1,2") == space("seed=1,2")


def test_every_combination_of_small_choices_is_there() -> None:
    axes = {"optimizer.lr": ("0.1", "0.2"), "seed": ("1", "2", "3"), "model.norm": ("none", "batch")}
    expected = itertools.product(*([f"{key}={value}" for value in values] for key, values in axes.items()))
    assert grid(*(f"{key}={','.join(values)}" for key, values in axes.items())) == list(map(list, expected))
