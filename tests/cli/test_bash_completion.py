"""The script that --show-completion prints, in a real interactive bash."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = "import sys; from trainctl.cli.app import main; sys.exit(main())"
PROMPT = "ready> "


class Bash:
    """Types keys and reads what appears."""

    def __init__(self, folder: Path) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            path = f"{folder}:{os.environ['PATH']}"
            os.execve(
                "/bin/bash",
                ["bash", "--norc", "--noprofile", "-i"],
                {**os.environ, "PATH": path, "TERM": "dumb", "PS1": PROMPT},
            )

    def type(self, keys: str, until: str) -> str:
        """What the terminal shows after `keys` up to `until`; AssertionError after half a minute."""
        os.write(self.terminal, keys.encode())
        seen, deadline = "", time.monotonic() + 30
        while until not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([self.terminal], [], [], 0.1)[0]:
                seen += os.read(self.terminal, 65_536).decode()
        return seen

    def line(self, typed: str, completed: str) -> None:
        """Tab after `typed` makes `completed` of it."""
        self.type(f"{typed}\t", completed)
        self.clear()

    def clear(self) -> None:
        """An empty line again."""
        self.type("\x15\n", f"\n{PROMPT}")


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    folder = tmp_path_factory.mktemp("bash")
    command = folder / "trainctl"
    command.write_text(f"#!{sys.executable}\n{COMMAND}\n", encoding="utf-8")
    command.chmod(0o755)
    (folder / "census.csv").touch()
    script = subprocess.run([command, "--show-completion", "bash"], capture_output=True, text=True, check=True).stdout
    (folder / "completion.sh").write_text(script, encoding="utf-8")
    found = Bash(folder)
    found.type("bind 'set completion-display-width 0'; source completion.sh\n", f"\n{PROMPT}")
    yield found
    os.close(found.terminal)  # hangs up
    os.kill(found.pid, signal.SIGKILL)
    os.waitpid(found.pid, 0)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("trainctl li", "trainctl list "),
        ("trainctl train model=tra", "trainctl train model=transformer "),
        ("trainctl train model=mlp,li", "trainctl train model=mlp,linear "),
        ("trainctl train model=mlp data=image_f", "trainctl train model=mlp data=image_folder "),
        ("trainctl train optimizer.l", "trainctl train optimizer.lr="),
        ("trainctl train data.path=cen", "trainctl train data.path=census.csv "),
        ("trainctl predict latest cen", "trainctl predict latest census.csv "),
    ],
)
def test_tab(bash: Bash, typed: str, completed: str) -> None:
    bash.line(typed, completed)


def test_all_options_of_a_group_are_shown(bash: Bash) -> None:
    shown = bash.type("trainctl train model=\t\t", "transformer")
    assert {"cnn", "linear", "mlp"} <= set(shown.split())
    bash.clear()
