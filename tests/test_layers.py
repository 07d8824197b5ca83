"""The house rules that a machine can check: who imports whom, sizes, a light start, nothing of this machine in git.

CONTRIBUTING.md explains the layers; the tables here are what holds.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "trainctl"

# A module imports only from lower layers, or from its own entry here. The longest matching name counts.
LAYERS = {
    "trainctl.cli": 12,
    "trainctl.tuning": 11,
    "trainctl.sweep": 10,
    "trainctl.repeat": 10,
    "trainctl.compress": 10,
    "trainctl.worker": 10,
    "trainctl.resuming": 9,
    "trainctl.launch": 8,
    "trainctl.supervisor": 7,
    "trainctl.check": 7,
    "trainctl.reporting": 7,
    "trainctl.doctor": 7,
    "trainctl.pareto": 7,
    "trainctl.pace": 0,
    "trainctl.verbs": 6,
    "trainctl.build": 5,
    "trainctl.config": 3,
    "trainctl.run": 4,
    "trainctl.callbacks": 3,
    "trainctl.threads": 3,
    "trainctl.lr_range": 3,
    "trainctl.stacked": 3,
    "trainctl.exporting": 3,
    "trainctl.tasks": 2,
    "trainctl.models": 2,
    "trainctl.data": 2,
    "trainctl.compression": 2,
    "trainctl.metrics": 1,
    "trainctl.optimizers": 1,
    "trainctl.schedulers": 1,
    "trainctl.data.spec": 0,
    "trainctl.datasets": 0,
    "trainctl.durations": 1,
    "trainctl.budgets": 1,
    "trainctl.errors": 0,
    "trainctl": 0,
}
COMPONENTS = tuple(f"trainctl.{name}" for name in ("tasks", "models", "data", "compression", "callbacks", "stacked"))
CONTRACTS = ("trainctl.data.spec", "trainctl.data.base", "trainctl.tasks.base", "trainctl.tasks.training")
# what a layer must not import even though it is lower, or is not ours: anywhere, also inside functions
FORBIDDEN = {
    "trainctl.cli": COMPONENTS,
    "trainctl.launch": COMPONENTS,
    "trainctl.check": COMPONENTS,
    "trainctl.reporting": COMPONENTS,
    "trainctl.verbs": ("hydra",),
    "trainctl.build": ("trainctl.run", "trainctl.config", *COMPONENTS[:-2]),
    **{name: ("hydra", "omegaconf") for name, layer in LAYERS.items() if layer in (1, 2)},
    **{f"trainctl.{name}": ("hydra", "omegaconf") for name in ("callbacks", "threads", "lr_range", "exporting")},
    **{f"trainctl.{name}": COMPONENTS for name in ("sweep", "repeat", "compress", "worker", "supervisor", "resuming")},
}
# upward on purpose: a launched run with folds or seeds launches its children
EXCEPTIONS = {("trainctl.launch", "trainctl.repeat")}
LIGHT = (
    "cli", "sweep", "repeat", "compress", "budgets", "worker", "resuming", "launch", "supervisor", "check", "reporting",
    "doctor", "pace", "pareto", "config", "run",
)  # fmt: skip
HEAVY = ("torch", "torchmetrics", "pytorch_lightning", "sklearn", "polars", "pandas", "scipy")
ROOMS_NOT_BUILT = {"utils", "helpers", "manager", "core", "common"}


def name_of(path: Path) -> str:
    """The dotted name of a source file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def entry(module: str, table: dict[str, object]) -> str | None:
    """The longest name in `table` that holds `module`."""
    parts = module.split(".")
    names = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    return next((name for name in names if name in table), None)


def statements(body: list[ast.stmt], inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import that can run, and whether it waits inside a function; `if TYPE_CHECKING:` never runs."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, inside
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse, inside)
            continue
        deeper = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for field in ("body", "orelse", "finalbody", "handlers"):
            for child in getattr(node, field, []):
                yield from statements([child] if isinstance(child, ast.stmt) else child.body, deeper)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Names imported by a file, and whether the import waits inside a function."""
    for node, inside in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
            continue
        assert node.level == 0, f"{path}: write `from trainctl.x import y`, not a relative import"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield (name if name in MODULES else str(node.module)), inside


def within(name: str, packages: tuple[str, ...]) -> bool:
    """True when `name` is one of `packages` or lies below one; `build` and above may name a contract, not a part."""
    return name not in CONTRACTS and any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_below(module: str) -> None:
    own = entry(module, dict(LAYERS))
    assert own != "trainctl" or module == "trainctl", f"{module} has no layer: add it to LAYERS"
    wrong = []
    for name, _ in imports(MODULES[module]):
        other = entry(name, dict(LAYERS))
        if (own, other) in EXCEPTIONS:
            continue
        if other and other != own and LAYERS[other] >= LAYERS[str(own)] and LAYERS[other] > 0:
            wrong.append(name)
        elif within(name, FORBIDDEN.get(str(own), ())):
            wrong.append(name)
    assert wrong == [], f"{module} must not import {wrong}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.partition(".")[2].split(".")[0] in LIGHT))
def test_light_layers_import_nothing_heavy_at_module_level(module: str) -> None:
    assert [name for name, inside in imports(MODULES[module]) if not inside and name.split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("words", [["--help"], ["config", "--help"], ["list"], ["list", "model"], ["runs"],
                                   ["config", "show", "train"]], ids=" ".join)
def test_light_commands_leave_torch_alone(words: list[str], tmp_path: Path) -> None:
    script = (
        f"import json, sys\nfrom trainctl.cli.app import run\ncode = run({words!r})\n"
        f"print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []], done.stderr


@pytest.mark.parametrize("path", sorted([*MODULES.values(), *(ROOT / "tests").rglob("*.py")]),
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, "a file has at most 300 lines"
    functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    long = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: lines for name, lines in long.items() if lines > 60} == {}, "a function has at most 60 lines"


def test_no_room_for_odds_and_ends() -> None:
    assert [name for name in MODULES if ROOMS_NOT_BUILT & set(name.split("."))] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_unpickled(module: str) -> None:
    path = MODULES[module]
    pickles = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
    assert [name for name, _ in imports(path) if name.split(".")[0] in pickles] == []
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    for call in calls:
        options = {word.arg: ast.unparse(word.value) for word in call.keywords}
        match ast.unparse(call.func):
            case "torch.load":
                assert options.get("weights_only") == "True", f"line {call.lineno}: torch.load(weights_only=True)"
            case "np.load" | "numpy.load":
                assert options.get("allow_pickle", "False") == "False", f"line {call.lineno}: no pickles"


def committed() -> list[Path]:
    """The files git knows, links left out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_no_committed_file_names_this_machine_or_a_package_index() -> None:
    hosts = ["pypi" + ".org", "pytorch" + ".org/whl", "python" + "hosted.org", "--index-" + "url", "--find-" + "links"]
    words = [re.escape(word) for word in [*hosts, "/" + "work/", f"{ROOT}/", "/" + "opt/wheels", "/" + "opt/pypi"]]
    pattern = re.compile("|".join(words).encode())
    found = {str(path.relative_to(ROOT)): match[0].decode()
             for path in committed() if (match := pattern.search(path.read_bytes()))}
    assert found == {}
