from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainctl.check.signatures import Signature, locate, signature

MODULE = """
from __future__ import annotations
import collections
import math as maths
import os.path
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar, final, overload
from shapes.base import *
from .base import Base as Parent, missing_name
from . import base
from somewhere_else import Foreign

T = TypeVar("T")
Alias = Parent
MADE = lru_cache(None)
if True:
    def function(a, /, b, *, c=1): ...
try:
    def fallback(): ...
except ImportError:
    def fallback(x): ...

class Own:
    def __init__(self, width: int, depth: int = 2, *rest, **options): ...
    @classmethod
    def make(cls, size): ...
    @staticmethod
    def build(size): ...
    @property
    def shape(self): ...

class Inherits(base.Base): ...
class Plain: ...
class Explicit(object): ...
@final
class Final(Plain): ...
class Subscripted(Generic[T]): ...
class FromForeign(Foreign): ...
class Row(NamedTuple):
    a: int
class Meta(Plain, metaclass=type): ...
class Made:
    def __new__(cls, a): ...
class Loop(Loop): ...

@dataclass(frozen=True)
class Record:
    a: int
    kind: ClassVar[str] = "x"
    b: list[int] = field(default_factory=list)

@dataclass
class Child(Record):
    c: int = 1

@overload
def two(a: int) -> int: ...
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A package `shapes` outside sys.path."""
    root = tmp_path_factory.mktemp("outside")
    folder = root / "shapes"
    folder.mkdir()
    (folder / "__init__.py").write_text("from shapes.nets import Own as Net\nfrom .nets import *\n", encoding="utf-8")
    (folder / "nets.py").write_text(MODULE, encoding="utf-8")
    (folder / "base.py").write_text("class Base:\n    def __init__(self, x: int): ...\nSTAR = 1\n", encoding="utf-8")
    (folder / "dynamic.py").write_text("def __getattr__(name): ...\n", encoding="utf-8")
    (folder / "broken.py").write_text("def (\n", encoding="utf-8")
    (folder / "plain").mkdir()
    (folder / "plain" / "inside.py").write_text("def f(a): ...\n", encoding="utf-8")
    return (str(root),)


def read(path: str, package: tuple[str, ...]) -> Signature | None:
    return signature(locate(path, package), package)


NAMES = {
    "shapes.nets.Own": ["width", "depth"],
    "shapes.Net": ["width", "depth"],
    "shapes.Own": ["width", "depth"],
    "shapes.nets.Own.make": ["size"],
    "shapes.nets.Own.build": ["size"],
    "shapes.nets.Inherits": ["x"],
    "shapes.nets.Alias": ["x"],
    "shapes.nets.Parent": ["x"],
    "shapes.nets.Base": ["x"],
    "shapes.nets.base.Base": ["x"],
    "shapes.nets.Plain": [],
    "shapes.nets.Explicit": [],
    "shapes.nets.Final": [],
    "shapes.nets.Subscripted": [],
    "shapes.nets.Record": ["a", "b"],
    "shapes.nets.function": ["b", "c"],
    "shapes.nets.fallback": ["x"],
    "shapes.plain.inside.f": ["a"],
}


@pytest.mark.parametrize("path", NAMES)
def test_arguments_are_read_through_reexports_and_bases(path: str, package: tuple[str, ...]) -> None:
    found = read(path, package)
    assert found is not None
    assert found.names() == NAMES[path]


def test_what_is_required_and_what_is_open(package: tuple[str, ...]) -> None:
    found = read("shapes.nets.Own", package)
    assert found is not None
    assert [(parameter.name, parameter.required) for parameter in found.parameters] == [
        ("width", True),
        ("depth", False),
    ]
    assert found.open_ended and found.variadic
    record = read("shapes.nets.Record", package)
    assert record is not None and [parameter.required for parameter in record.parameters] == [True, False]


UNREADABLE = [
    "shapes.nets.FromForeign",
    "shapes.nets.Row",
    "shapes.nets.Meta",
    "shapes.nets.Made",
    "shapes.nets.Loop",
    "shapes.nets.Child",
    "shapes.nets.two",
    "shapes.nets.MADE",
    "shapes.nets.Foreign",
    "shapes.nets.missing_name",
    "shapes.nets.maths.sqrt",
    "shapes.nets.Own.shape",
    "shapes.nets.Own.inherited",
    "shapes.dynamic.Anything",
    "shapes.dynamic.Any.thing",
    "torch.Linear",
    "torch.ops.aten",
    "shapes.broken.Anything",
    "builtins.dict",
    "math.sqrt",
]


@pytest.mark.parametrize("path", UNREADABLE)
def test_what_cannot_be_read_for_certain_is_not_judged(path: str, package: tuple[str, ...]) -> None:
    found = locate(path, package)
    assert found.kind in ("node", "unknown")
    assert signature(found, package) is None


MISSING = {
    "shapes.nets.Onw": "`shapes.nets.Onw` does not exist in shapes.nets; did you mean `shapes.nets.Own`?",
    "shapes.nest.Own": "`shapes.nest.Own` does not exist in shapes; did you mean `shapes.nets.Own`?",
    "shapes.nets.qqqqqq": "`shapes.nets.qqqqqq` does not exist in shapes.nets",
    "shaps.nets": "`shaps.nets` cannot be found: there is no module `shaps`; is it installed?",
    "torch.nn.Liner": "`torch.nn.Liner` does not exist in torch.nn; did you mean `torch.nn.Linear`?",
    "torch.nnn.Linear": "`torch.nnn.Linear` does not exist in torch; did you mean `torch.nn.Linear`?",
    "torch.optim.AdamWW": "`torch.optim.AdamWW` does not exist in torch.optim; did you mean `torch.optim.AdamW`?",
    "trainctl.models.nlp.MLP": (
        "`trainctl.models.nlp.MLP` does not exist in trainctl.models; did you mean `trainctl.models.mlp.MLP`?"
    ),
    "Linear": "`Linear` is not a dotted path such as `torch.nn.Linear`",
    "torch.nn.": "`torch.nn.` is not a dotted path such as `torch.nn.Linear`",
}


@pytest.mark.parametrize("path", MISSING)
def test_a_name_that_is_not_there(path: str, package: tuple[str, ...]) -> None:
    found = locate(path, package)
    assert (found.kind, found.problem) == ("missing", MISSING[path])


@pytest.mark.parametrize("path", ["shapes.nets", "shapes", "torch.nn", "shapes.nets.base"])
def test_a_module_is_told_from_what_is_in_it(path: str, package: tuple[str, ...]) -> None:
    found = locate(path, package) if "." in path else locate(f"{path}.base", package)
    assert found.kind == "module"


THIRD_PARTY = [
    "torch.nn.Linear",
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.nn.CrossEntropyLoss",
    "torch.optim.lr_scheduler.StepLR",
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.callbacks.EarlyStopping",
    "trainctl.models.mlp.MLP",
    "trainctl.tasks.auto.auto",
    "trainctl.callbacks.EarlyStopping",
    "trainctl.data.tabular.Tabular",
]


@pytest.mark.slow
def test_signatures_are_those_that_python_reports() -> None:
    """Against `inspect`, in another process so that this one stays free of torch's import."""
    code = (
        "import importlib, inspect, sys\n"
        "for path in sys.argv[1:]:\n"
        "    module, _, name = path.rpartition('.')\n"
        "    print(path, *inspect.signature(getattr(importlib.import_module(module), name)).parameters)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *THIRD_PARTY], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        path, *names = line.split()
        found = signature(locate(path))
        assert found is not None
        assert [parameter.name for parameter in found.parameters] == names


def test_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("raise SystemExit('imported')\ndef f(a): ...\n", encoding="utf-8")
    found = signature(locate("loud.f", (str(tmp_path),)), (str(tmp_path),))
    assert found is not None and found.names() == ["a"]
    assert "loud" not in sys.modules
