from __future__ import annotations

import pytest

from trainctl.config.overrides import is_sweep, parse, points, refuse_sweep
from trainctl.errors import UsageError

UNREADABLE = {
    "ckpt=epoch=9-step=80.ckpt": (
        "cannot read override 2: the value contains `=`; quote it: 'ckpt=\"epoch=9-step=80.ckpt\"'"
    ),
    "data.path=x (1": (
        "cannot read override 2 (`data.path=x (1`) at column 15 (its end); quote it: 'data.path=\"x (1\"'"
    ),
    "data.path=a(b).csv": (
        "cannot read override 2 (`data.path=a(b).csv`) at column 15 (`.csv`); quote it: 'data.path=\"a(b).csv\"'"
    ),
    "data.path=é,😀": "cannot read override 2 (`data.path=é,😀`) at column 11 (`é,😀`); quote it: 'data.path=\"é,😀\"'",
    "model.dims=[1": ("cannot read override 2 (`model.dims=[1`) at column 14 (its end); quote it: 'model.dims=\"[1\"'"),
    "data.path='x": "cannot read override 2 (`data.path='x`) at column 11 (`'x`); quote it: 'data.path=\"x\"'",
    "model": "`model` is not an override; write it as `model=VALUE`",
    "=3": "override 2 (`=3`) has no key; write it as `key=value`",
    "": "override 2 (``) has no key; write it as `key=value`",
}


@pytest.mark.parametrize("word", UNREADABLE)
def test_what_cannot_be_read_is_named_with_its_place_and_the_quoted_form(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["seed=1", word])
    assert str(caught.value) == UNREADABLE[word]


@pytest.mark.parametrize(
    "word", ["+a=1", "++a=1", "~a", "~a=1", "a=-1", "a=-1e-3", "a=[1,2]", "a={b:1}", "a=it is", "a="]
)
def test_what_the_grammar_allows_is_read(word: str) -> None:
    assert parse([word])[0].input_line == word


@pytest.mark.parametrize(
    ("words", "sweep"),
    [
        (["seed=1"], False),
        (["seed=[1,2]", "a='1,2'"], False),
        (["model=mlp", "seed=1,2"], True),
        (["seed=range(1,3)"], True),
        (["lr=interval(0,1)"], True),
    ],
)
def test_is_sweep(words: list[str], sweep: bool) -> None:
    assert is_sweep(words) is sweep


def test_points_run_through_the_grid_with_the_last_key_fastest() -> None:
    assert points(["model=mlp,linear", "optimizer.lr=0.1", "seed=range(1,3)"]) == [
        ["model=mlp", "optimizer.lr=0.1", "seed=1"],
        ["model=mlp", "optimizer.lr=0.1", "seed=2"],
        ["model=linear", "optimizer.lr=0.1", "seed=1"],
        ["model=linear", "optimizer.lr=0.1", "seed=2"],
    ]


def test_points_keep_prefixes_quotes_and_the_last_of_two() -> None:
    assert points(["+a='x,y'", "~b", "seed=1,2", "seed=3", "c=choice('p q',[1,2])"]) == [
        ["+a='x,y'", "~b", "seed=3", "c=p\\ q"],
        ["+a='x,y'", "~b", "seed=3", "c=[1,2]"],
    ]


def test_a_grid_cannot_run_through_a_range_without_steps() -> None:
    with pytest.raises(UsageError) as caught:
        points(["optimizer.lr=interval(0.1,1)"])
    assert str(caught.value) == (
        "`optimizer.lr=interval(0.1,1)` is a continuous range, which a grid cannot run through; "
        "list the values, as in `optimizer.lr=1,2,3` or `optimizer.lr=range(1,10)`"
    )


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "seed=1,2",
            "`seed=1,2` gives several values; add `-m` to run each, "
            "or write `seed=[1,2]` for a list or 'seed=\"1,2\"' for a text",
        ),
        ("seed=range(1,3)", "`seed=range(1,3)` gives several values; add `-m` to run each"),
    ],
)
def test_one_run_refuses_a_sweep(word: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_sweep(parse([word]))
    assert str(caught.value) == sentence
