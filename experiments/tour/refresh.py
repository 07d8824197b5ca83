"""Runs the README's tour, one process per command, and writes what was really printed in place of the output shown.

    python experiments/tour/refresh.py

Which lines are shown, and where they are cut by `...`, stays as it is; tests/test_readme.py ignores numbers, so this is
what keeps them true. The pictures beside this file are screenshots of `make demo` and of the report it leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.test_readme import README, Step, fits, steps  # noqa: E402


def printed(step: Step, folder: Path) -> list[str]:
    """What the command writes, stderr first; Ctrl-C is pressed where the README has `^C`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
        process = subprocess.Popen(
            ["bash", "-c", step.command if step.interrupted is None else f"exec {step.command}"],
            cwd=folder, env={**os.environ, "PATH": path}, stdout=out, stderr=err,
        )  # fmt: skip
        if step.interrupted is not None:
            while beginning(step.interrupted) not in Path(err.name).read_text(encoding="utf-8"):
                assert process.poll() is None, step.command
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
        assert process.wait() == step.code, (step.command, process.returncode)
        out.seek(0)
        return [*Path(err.name).read_text(encoding="utf-8").splitlines(), *out.read().splitlines()]


def beginning(line: str) -> str:
    """`epoch 2/12` of an epoch's line."""
    return " ".join(line.split()[:2])


def truth(step: Step, lines: list[str]) -> list[str]:
    """The lines shown, as they were printed; a line that is cut keeps as many words as it had."""
    found = []
    for shown in step.output:
        if shown not in ("...", "^C"):
            waits = shown == step.interrupted
            place = next(
                number
                for number, line in enumerate(lines)
                if fits(shown, line) and (not waits or beginning(line) == beginning(shown))
            )
            words = lines[place].split()[: len(shown[:-3].split())]
            shown = " ".join(words) + shown[len(shown[:-3].rstrip()) :] if shown.endswith("...") else lines[place]
            lines = lines[place + 1 :]
        found.append(shown)
    return found


def main() -> None:
    content = README
    with tempfile.TemporaryDirectory() as folder:
        for step in steps():
            real = truth(step, printed(step, Path(folder)))
            if step.output:
                typed = step.command.replace("\n", "\n> ").replace("> \n", ">\n")
                before, command, after = content.partition(f"$ {typed}")
                assert command, step.command
                shown = "\n".join(step.output)
                assert after.startswith("\n" + shown), step.command
                content = before + command + "\n" + "\n".join(real) + after[len(shown) + 1 :]
    (ROOT / "README.md").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
