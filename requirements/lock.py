"""Write cpu.txt and cuda.txt again from pyproject.toml: `make lock`, or `make lock UPGRADE=1` for newer versions.

Torch's version is chosen by hand, in torch-cpu.txt; pip-compile resolves the rest for the Python that runs it. Two
passes, because the CPU build and the CUDA build of torch are files of one version. Both locks list the hash of each
build; torch-cpu.txt and `===` say which one is meant, since pip left alone takes one whose hash its index tells.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CPU, CUDA, ONLY_CPU = HERE / "cpu.txt", HERE / "cuda.txt", HERE / "torch-cpu.txt"
EXTRAS = ("dev", "images", "tensorboard", "joblib", "postgres")
HEADER = "# Made by `make lock` for Python 3.11; install with `make install`. Do not edit.\n"


def pip_compile(source: str, output: Path, constraints: str = "", *options: str) -> dict[str, tuple[str, list[str]]]:
    """Pinned packages of `source`: name -> (version, sorted hashes). What `output` holds is kept where possible."""
    with tempfile.TemporaryDirectory() as folder:
        limits = Path(folder, "constraints.txt")
        limits.write_text(constraints, encoding="utf-8")
        plain = ("--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-header", "--no-annotate")
        silent = ("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--quiet")
        command = [sys.executable, "-m", "piptools", "compile", *plain, *silent, *options]
        subprocess.run([*command, "-c", limits, "-o", output, source], check=True, cwd=HERE.parent)
    return read(output.read_text(encoding="utf-8"))


def read(text: str) -> dict[str, tuple[str, list[str]]]:
    """Parse a hashed requirements file: name -> (version, sorted hashes)."""
    pins: dict[str, tuple[str, list[str]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"([a-z0-9][\w.-]*)={2,3}(\S+)", line):
            pins[match[1]] = (match[2], sorted(set(re.findall(r"--hash=(\S+)", line))))
    return pins


def write(path: Path, first: str, pins: dict[str, tuple[str, list[str]]]) -> None:
    """Write `pins` below the line `first`, one hash per line."""
    blocks = [" \\\n    ".join([f"{name}{pin}", *(f"--hash={value}" for value in hashes)])
              for name, (pin, hashes) in sorted(pins.items())]
    path.write_text(first + "\n".join(blocks) + "\n", encoding="utf-8")


def main() -> None:
    """Resolve both, then write both: a failure leaves the old files."""
    options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "cpu.txt")
        kept = {name: (f"=={pin}", found) for name, (pin, found) in read(CPU.read_text(encoding="utf-8")).items()}
        kept.pop("torch", None)
        write(raw, "", kept)
        extras = [f"--extra={name}" for name in EXTRAS]
        cpu = pip_compile("pyproject.toml", raw, ONLY_CPU.read_text(encoding="utf-8"), *extras, *options)
        version = cpu["torch"][0].partition("+")[0]
        source = Path(folder, "torch.in")
        source.write_text(f"torch==={version}\n", encoding="utf-8")
        limits = "".join(f"{name}=={pin}\n" for name, (pin, _) in cpu.items() if name != "torch")
        cuda = pip_compile(str(source), Path(folder, "torch.txt"), limits)
    hashes = sorted({*cpu["torch"][1], *cuda["torch"][1]})
    shared = {name: (f"=={pin}", found) for name, (pin, found) in cpu.items()}
    write(CPU, f"{HEADER}-c {ONLY_CPU.name}\n", {**shared, "torch": (f"=={version}", hashes)})
    extra = {name: (f"=={pin}", found) for name, (pin, found) in cuda.items() if name not in cpu}
    write(CUDA, HEADER, {**shared, **extra, "torch": (f"==={version}", hashes)})


if __name__ == "__main__":
    main()
