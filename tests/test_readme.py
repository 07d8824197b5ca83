"""README.md is true: its tour runs word for word, and every option, key and group that it names exists.

In a ```console block a line after `$ ` is a command, lines after `> ` belong to it, and `[exit 2]` says how it ends
(0 unless said). Other lines are its output, in this order, among stdout and stderr together; `...` stands for what was
left out, at the end of a line too. Numbers, dates and the width of columns may differ.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer.main
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import trainctl
from tests.conftest import Forked
from trainctl.budgets import TARGETS
from trainctl.cli import benchmarking, compressing, exporting
from trainctl.cli.app import EXIT_CODES
from trainctl.cli.commands import app
from trainctl.cli.looking import config_app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONF = Path(trainctl.__file__).parent / "conf"
SHELL = set("|<>()&;")
STAMP = re.compile(r"\d{4}-\d\d-\d\d[_ ]\d\d[-:]\d\d([-:]\d\d)?(-\d+)?")
DURATION = re.compile(r"\d+ (min|h) \d+ (s|min)\b")
NUMBER = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?")


@dataclass
class Step:
    """A command of the tour, what it must print and how it must end."""

    command: str
    output: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def interrupted(self) -> str | None:
        """The last line that is seen before Ctrl-C is pressed, if it is."""
        return self.output[self.output.index("^C") - 1] if "^C" in self.output else None


def steps() -> list[Step]:
    """All commands of the tour, in order."""
    found: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.M | re.S):
        for line in block.splitlines():
            ended = re.fullmatch(r"\[exit (\d+)\]", line)
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            elif line == ">" or line.startswith("> "):
                found[-1].command += "\n" + line[2:]
            elif ended:
                found[-1].code = int(ended[1])
            else:
                found[-1].output.append(line)
    return found


def plain(line: str) -> str:
    """The line without what may differ from run to run."""
    line = DURATION.sub("1 s", STAMP.sub("DATE", line))
    return re.sub(r"\s+", " ", NUMBER.sub("1", line)).strip()


def fits(shown: str, printed: str) -> bool:
    """Whether a printed line is the one shown, which may end in `...`."""
    if shown.endswith("..."):
        return plain(printed).startswith(plain(shown[:-3]))
    return plain(shown) == plain(printed)


def check_output(step: Step, printed: list[str]) -> None:
    """Every line shown was printed; lines of one block in the order shown, as far as they came from one stream."""
    shown = [line for line in step.output if line not in ("...", "^C")]
    rest = list(printed)
    for line in shown:
        place = next((number for number, other in enumerate(rest) if fits(line, other)), None)
        assert place is not None, f"$ {step.command}\ndid not print: {line}\nbut:\n" + "\n".join(printed)
        rest = rest[place + 1 :]


def carry_out(step: Step, forked: Forked, folder: Path) -> None:
    """Run one command of the tour and compare."""
    if step.command.startswith("trainctl ") and not SHELL & set(step.command):
        started = forked.start(*shlex.split(step.command)[1:], cwd=folder)
        if step.interrupted:
            started.wait_for(step.interrupted.split()[0] + " " + step.interrupted.split()[1])
            started.send(signal.SIGINT)
        done = started.wait()
        code, printed = done.code, (done.err + done.out).splitlines()
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", "-c", step.command], cwd=folder, env={**os.environ, "PATH": path},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        code, printed = result.returncode, (result.stderr + result.stdout).splitlines()
    assert code == step.code, f"$ {step.command}\nended with {code}:\n" + "\n".join(printed)
    check_output(step, printed)


@pytest.mark.slow
def test_the_tour_works_word_for_word(forked: Forked, tmp_path: Path) -> None:
    tour = steps()
    assert len(tour) > 15
    for step in tour:
        carry_out(step, forked, tmp_path)


def code_words() -> set[str]:
    """Every word of the README that is set as code, our commands of the tour included."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    blocks = [step.command for step in steps() if step.command.startswith("trainctl ")]
    return {word for text in [*spans, *blocks] for word in re.findall(r"[^\s\"']+", text)}


def options(group: str) -> set[str]:
    return {path.stem for path in (CONF / group).glob("*.yaml")}


def flat(prefix: str, node: object) -> set[str]:
    """Dotted names of all keys below a node."""
    if not isinstance(node, dict):
        return {prefix}
    return {prefix} | {key for name, value in node.items() for key in flat(f"{prefix}.{name}".lstrip("."), value)}


def known_keys() -> set[str]:
    """Every key that a config of ours may have."""
    found = set()
    for path in CONF.rglob("*.yaml"):
        content = OmegaConf.to_container(OmegaConf.load(path))
        whole = path.parent == CONF or path.parent.name in ("experiment", "debug")
        found |= flat("" if whole else path.parent.name, content)
    return found


def test_every_key_and_group_option_exists() -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    keys, own = known_keys() | groups, {"wide"}  # the tour's own model
    for word in code_words():
        match = re.fullmatch(r"([a-z_][a-z_0-9.]*)=(.+)", word)
        if not match or word == "group=option" or word == "key=value":
            continue
        key, value = match[1], match[2]
        if key in TARGETS:  # of `--target`
            continue
        assert key in keys or key == "model.hiden_dims", word
        if key in groups:
            assert set(value.split(",")) <= options(key) | own, word
    table = README.split("| group | options |")[1].split("| key |")[0]
    for group, cell in re.findall(r"^\| `([a-z]+)` \| (.+) \|$", table, re.M):
        named = set(re.findall(r"`([a-z_0-9]+)`", cell))
        assert named <= options(group) and (named == options(group) or "more below" in cell), group
    text = README.split("## Data")[1].split("## What a run leaves")[0]
    assert all(f"`{name}`" in text or f"data={name}`" in text or f"data={name} " in text for name in options("data"))


def test_every_command_option_and_exit_code_exists() -> None:
    assert benchmarking and compressing and exporting  # they add their commands
    assert config_app in [group.typer_instance for group in app.registered_groups]
    command = typer.main.get_command(app)
    commands = {**command.commands, **command.commands["config"].commands}  # type: ignore[attr-defined]
    flags = {flag for one in [command, *commands.values()] for parameter in one.params for flag in parameter.opts}
    flags.add("--help")
    for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", README):
        assert word in flags, word
    for name in re.findall(r"(?:\$|`)\s*trainctl ([a-z]+)", README):
        assert name in commands, name
    said = dict(re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, re.M))
    assert dict(re.findall(r"^\| (\d+) \| (.+) \|$", README, re.M)) == said


def test_overrides_are_in_hydras_grammar() -> None:
    parser = OverridesParser.create()
    for step in steps():
        if step.command.startswith("trainctl train"):
            words = shlex.split(step.command)[2:]
            parser.parse_overrides([word for word in words if re.match(r"[a-z_.]+=", word)])


def test_pictures_and_linked_files_exist_and_are_small() -> None:
    linked = [Path(path) for path in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in path]
    assert all((ROOT / path).exists() for path in linked)
    pictures = [path for path in linked if path.suffix == ".png"]
    assert len(pictures) == 2 and all((ROOT / path).stat().st_size < 150_000 for path in pictures)


def test_the_tree_names_what_is_there() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    names = re.findall(r"(?<=\s)([a-z]+(?:/|\.py))(?=\s)", "\n" + tree)
    assert len(names) > 15
    for name in names:
        assert name == "runs/" or (ROOT / name).exists() or (ROOT / "trainctl" / name).exists() or name == "run/", name
