"""What all tests share: one torch thread, a clean Hydra, and the real command line as a fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

# before torch is imported anywhere: test processes share the cores, and small tensors need one thread
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# a terminal of the developer must not change what a test sees
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE"):
    os.environ.pop(name, None)

settings.register_profile("trainctl", deadline=None, derandomize=True)
settings.load_profile("trainctl")


@dataclass(frozen=True)
class Done:
    """A finished command: exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object that `--json` prints on stdout."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@pytest.fixture(autouse=True)
def clean_hydra() -> Iterator[None]:
    """Hydra keeps one global state; no test leaves it to the next."""
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def trainctl(tmp_path: Path) -> Callable[..., Done]:
    """Runs `trainctl WORDS...` as a real process: `trainctl("train", "model=mlp", cwd=..., env={...})`.

    It runs in `tmp_path` unless told otherwise; `env` adds variables, and a value of None takes one away.
    """

    def run(*words: str, cwd: Path = tmp_path, env: Mapping[str, str | None] | None = None,
            timeout: float = 300) -> Done:
        merged = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
        command = [sys.executable, "-c", "import sys; from trainctl.cli.app import main; sys.exit(main())", *words]
        done = subprocess.run(command, cwd=cwd, env=merged, capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


class Forked:
    """Commands in processes forked from one that has torch and Lightning imported (tests/zygote.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        script = Path(__file__).with_name("zygote.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == {"ready": True}

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        value = json.loads(self.process.stdout.readline())
        assert isinstance(value, dict)
        return value

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def start(self, *words: str, cwd: Path, env: Mapping[str, str | None] | None = None, out: Path | None = None,
              **hamper: Any) -> Started:
        """Begin a command and return at once; a variable of None is taken away, `out` gets its stdout."""
        self.count += 1
        own, err = (self.folder / f"{self.count}.{end}" for end in ("out", "err"))
        place = {"cwd": str(cwd), "env": dict(env or {}), "out": str(out or own), "err": str(err)}
        return Started(self, self._ask(start=words, **place, hamper=hamper)["pid"], own, err)

    def run(self, *words: str, cwd: Path, env: Mapping[str, str | None] | None = None, **hamper: Any) -> Done:
        """Run a command to its end; `hamper` makes its life hard (tests/zygote.py)."""
        return self.start(*words, cwd=cwd, env=env, **hamper).wait()


@dataclass
class Started:
    """A command that is running."""

    zygote: Forked
    pid: int
    out: Path
    err: Path

    def wait(self) -> Done:
        """Its exit code (negative: killed by that signal) and what it wrote."""
        code = self.zygote._ask(wait=self.pid)["code"]
        out = self.out.read_text(encoding="utf-8") if self.out.exists() else ""
        return Done(code, out, self.err.read_text(encoding="utf-8"))

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Until stderr shows `text`; AssertionError when the process ends or time runs out before."""
        deadline = time.monotonic() + timeout
        while text not in (self.err.read_text(encoding="utf-8") if self.err.exists() else ""):
            assert time.monotonic() < deadline, f"no {text!r} in {self.err.read_text(encoding='utf-8')}"
            time.sleep(0.005)

    def send(self, signum: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, signum)


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Fast real processes: `forked.run("train", ..., cwd=tmp_path)`."""
    zygote = Forked(tmp_path_factory.mktemp("forked"))
    yield zygote
    assert zygote.process.stdin is not None and zygote.process.stdout is not None
    zygote.process.stdin.close()
    zygote.process.wait(30)
    zygote.process.stdout.close()


class Lab:
    """A folder of its own, and commands in it: `lab.train("ema=0.9")` is the finished run of a quick training."""

    quick = ("data=synthetic", "data.rows=600", "data.batch_size=64", "trainer.threads=1", "trainer.max_epochs=3")

    def __init__(self, forked: Forked, folder: Path) -> None:
        self.forked, self.folder = forked, folder

    def __call__(self, *words: str, **env: str) -> Done:
        """Run a command to its end."""
        return self.forked.run(*words, cwd=self.folder, env=env)

    def start(self, *words: str) -> Started:
        """Begin a command."""
        return self.forked.start(*words, cwd=self.folder)

    def run(self, *words: str) -> Any:
        """The Run that a command made, which must have ended well."""
        from trainctl.run.run import Run

        done = self(*words, "--json")
        assert done.code == 0, done.err
        return Run.open(self.folder / done.json["run"])

    def train(self, *words: str) -> Any:
        """A quick training; `words` change it."""
        return self.run("train", *self.quick, *words)

    def sentence(self, code: int, *words: str) -> str:
        """What a command that ends with `code` says last, after `trainctl: error: `."""
        done = self(*words)
        assert done.code == code, (done.code, done.err)
        return done.err.splitlines()[-1].removeprefix("trainctl: error: ")


@pytest.fixture
def lab(forked: Forked, tmp_path: Path) -> Lab:
    """Quick real trainings in a folder of the test's own."""
    return Lab(forked, tmp_path)


@dataclass
class Fitted:
    """A task trained in this process: its data and trainer, and its weights by name before and after."""

    task: Any
    data: Any
    trainer: Any
    before: dict[str, Any]

    @property
    def after(self) -> dict[str, Any]:
        """The weights now."""
        return {name: p.detach().clone() for name, p in self.task.net.named_parameters()}


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Fitted]:
    """`fit("task.l1=0.1", callbacks=[...])` trains on synthetic data as `trainctl train` would, without a run."""
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint

    from trainctl import build, launch
    from trainctl.config.compose import compose, plain
    from trainctl.verbs.train import monitored

    quick = ("data=synthetic", "data.rows=1000", "data.batch_size=32", "trainer.accelerator=cpu",
             "trainer.max_epochs=1")

    def run(*words: str, callbacks: Sequence[Any] = (), chunk: int = 4) -> Fitted:
        config = plain(compose("train", [*quick, *words]))
        data = build.data(config)
        data.setup()
        data.chunked, data.chunk = True, chunk
        done = Fitted(build.task(config, data.spec, data, fit=True), data, None, {})
        monitored(config, done.task)
        done.before = done.after
        with warnings.catch_warnings():
            launch.quieten()
            done.trainer = build.trainer(config, tmp_path, callbacks)
            done.trainer.callbacks = [c for c in done.trainer.callbacks if not isinstance(c, ModelCheckpoint)]
            try:
                done.trainer.fit(done.task, datamodule=data)
            finally:
                torch.use_deterministic_algorithms(False)
        return done

    return run
