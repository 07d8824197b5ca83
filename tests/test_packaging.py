"""The wheel alone is enough: built, installed next to the same dependencies, run in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """stdout of a command that must succeed; nothing of the checkout or of coverage leaks into it."""
    hidden = ("PYTHONPATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "TRAINCTL_DATA")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of what git would commit."""
    folder = tmp_path_factory.mktemp("wheel")
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (source := ROOT / name).exists():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=folder / "source")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new environment with the wheel and, by a path entry, the dependencies that are here."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # a path entry is not a site directory: the editable install's own .pth is not read from it
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def test_the_wheel_holds_every_config_and_bundled_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"trainctl/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "trainctl" / "datasets").rglob("*") if path.is_file()}
    assert configs and data
    assert {name for name in configs | data if "__pycache__" not in name} - inside == set()
    assert [name for name in inside if name.startswith(("tests/", "conf/", "experiments/"))] == []


def test_configs_come_from_the_wheel(venv: Path, tmp_path: Path) -> None:
    script = "import trainctl; from trainctl.config.location import conf_dir; print(trainctl.__file__, conf_dir())"
    package, conf = map(Path, run(venv / "python", "-c", script, cwd=tmp_path).split())
    assert package.is_relative_to(venv.parent) and conf == package.parent / "conf"
    assert (conf / "train.yaml").is_file() and not conf.is_symlink()


def test_the_installed_command_lists_models_in_an_empty_folder(venv: Path, tmp_path: Path) -> None:
    listed = run(venv / "trainctl", "list", "model", cwd=tmp_path).split()
    assert {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")} <= set(listed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_installed_command_trains_in_an_empty_folder(venv: Path, tmp_path: Path) -> None:
    words = ["train", "model=mlp", "data=tabular", "debug=fast", "--json"]
    result = json.loads(run(venv / "trainctl", *words, cwd=tmp_path))
    assert result["status"] == "completed"
    assert (tmp_path / result["run"] / "run.json").is_file()
