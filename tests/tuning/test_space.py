"""What is varied: dimensions from override words and the `space` node, conditions, grids."""

from __future__ import annotations

import itertools
import json

import pytest
import yaml
from hydra.core.override_parser.types import Override

from tests.tuning.spaces import COMPOSER, DATA, grid, sentence, space
from trainctl.config import overrides
from trainctl.config.location import conf_dir
from trainctl.errors import UsageError
from trainctl.tuning.dimensions import Dimension
from trainctl.tuning.space import is_dimension

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
