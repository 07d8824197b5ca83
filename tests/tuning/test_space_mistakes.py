"""Whatever may be wrong with a space is one sentence, before anything starts."""

from __future__ import annotations

import pytest

from tests.tuning.spaces import sentence

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
    ("model=mlp,mpl",): "no `model` option `mpl`; have: cnn, forest, linear, lstm, mlp, resmlp, "
    "resnet, transformer, tree; "
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
