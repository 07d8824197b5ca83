"""The runs directory: claim a run directory for a verb, find one by what the user typed, list them all."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from trainctl.errors import RunError, UsageError, did_you_mean
from trainctl.run import files
from trainctl.run.run import Run

_STAMP = re.compile(r"^\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}(?:-(\d+))?$")
_BETWEEN_JOBS_S = 60.0  # a job starts within this time after the one before
_FORMAT = "%Y-%m-%d_%H-%M-%S"
_GROUPS_OF_CHILDREN = ("folds", "seeds", "trials")


def claim(runs_dir: Path, verb: str) -> Path:
    """Make `<runs_dir>/<verb>/<YYYY-MM-DD_HH-MM-SS>[-k]` for this process alone, however many start at once.

    Raises ResourceError when it cannot be made, UsageError when `runs_dir` is a file.
    """
    parent = Path(runs_dir) / verb
    stamp = datetime.now().strftime(_FORMAT)
    number = 1
    try:
        while True:
            parent.mkdir(parents=True, exist_ok=True)  # each time: a refused run may have taken the empty folder away
            path = parent / (stamp if number == 1 else f"{stamp}-{number}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
            except FileNotFoundError:
                continue
    except (FileExistsError, NotADirectoryError) as error:
        text = files.shown(runs_dir)
        raise UsageError(f"`{text}` is not a directory; pass another one with `--runs-dir`") from error
    except OSError as error:
        raise files.explain(error, parent) from error


@contextlib.contextmanager
def claimed(runs_dir: Path, verb: str) -> Iterator[Path]:
    """`claim` for what happens inside; folders made for a run that was discarded are taken away again."""
    fresh = [folder for folder in (runs_dir / verb, runs_dir) if not os.path.lexists(folder)]
    try:
        yield claim(runs_dir, verb)
    except BaseException:
        for folder in fresh:
            with contextlib.suppress(OSError):  # another run is in it
                folder.rmdir()
        raise


def resolve(runs_dir: Path, text: str, verbs: Sequence[str] = ()) -> Path:
    """The run directory meant by a path, a run id (`train/<time>` or `<time>`), a unique prefix, `latest` (of `verbs`
    where they are given) or `latest:VERB`. RunError with the candidates or the nearest names unless it is just one."""
    word, _, verb = text.partition(":")
    if word == "latest":
        return _latest(Path(runs_dir), (verb,) if verb else tuple(verbs))
    if not text.strip():
        raise RunError("the run's name is empty; type a path, a run id, a unique prefix or `latest`")
    for path in (Path(text), Path(runs_dir) / text):
        with contextlib.suppress(OSError, ValueError):
            if path.is_dir() and (path / "run.json").exists():
                return path
    names = {f"{path.parent.name}/{path.name}": path for path in _all(Path(runs_dir))}
    wanted = text.rstrip("/")
    for matches in (
        [name for name in names if wanted in (name, name.partition("/")[2])],
        [name for name in names if name.startswith(wanted) or name.partition("/")[2].startswith(wanted)],
    ):
        if len(matches) == 1:
            return _run_at(names[matches[0]])
        if matches:
            shown = ", ".join(sorted(matches)[:5]) + (", ..." if len(matches) > 5 else "")
            raise RunError(f"`{files.shown_text(text)}` fits {len(matches)} runs: {shown}; type more of the name")
    return _run_at(Path(text)) if os.path.isdir(text) else _unknown(Path(runs_dir), text, names)


def list_runs(runs_dir: Path, verb: str | None = None, status: str | None = None, children: bool = False) -> list[Run]:
    """All runs, oldest first; a directory that cannot be read is listed with status `damaged` and its `error`.

    A sweep is one entry (`sweep` in its record: the number of jobs). `children` adds folds, seeds and jobs.
    """
    runs = []
    for path in _all(Path(runs_dir), verb):
        runs.append(read(path))
        if children:
            runs.extend(read(child) for child in child_paths(path))
    return [run for run in runs if status is None or run.status == status]


def read(path: Path) -> Run:
    """The run at `path` for a list: never raises; config and metrics are not read."""
    verb = path.parent.name
    try:
        if (path / "sweep.json").exists() and not (path / "run.json").exists():
            return _sweep(path)
        return Run.open(path)
    except (RunError, OSError) as error:
        return Run(path, {"verb": verb, "status": "damaged", "error": {"message": str(error), "code": 4}})


def _sweep(path: Path) -> Run:
    """A sweep as one entry; `crashed` when it calls itself running but no job has been for a while."""
    sweep = files.read_json(path / "sweep.json")
    status = sweep.get("status", "completed") if isinstance(sweep, dict) else "damaged"
    jobs = child_paths(path)
    if status == "running" and not any(read(job).status == "running" for job in jobs):
        written = max(file.stat().st_mtime for file in (path / "sweep.json", *(job / "run.json" for job in jobs)))
        status = "crashed" if time.time() - written > _BETWEEN_JOBS_S else status
    return Run(path, {"verb": path.parent.name, "status": status, "sweep": len(jobs)})


def child_paths(path: Path) -> list[Path]:
    """Child runs of a run, study or sweep: `folds/0`, `seeds/0`, `trials/0`, `0`, ... in numeric order."""
    found = []
    for folder in (path, *(path / name for name in _GROUPS_OF_CHILDREN)):
        with contextlib.suppress(OSError):
            numbers = sorted(int(entry.name) for entry in os.scandir(folder) if entry.name.isdecimal())
            found += [folder / str(number) for number in numbers if (folder / str(number) / "run.json").exists()]
    return found


def count_ended(paths: Sequence[Path]) -> int:
    """How many of these runs ended, well or not, without reading one: a study may have thousands."""
    return sum((path / "manifest.json").exists() or (path / "error.txt").exists() for path in paths)


def children(run: Run) -> list[Run]:
    """The child runs of a run or sweep."""
    return [read(path) for path in child_paths(run.path)]


def _all(runs_dir: Path, verb: str | None = None) -> list[Path]:
    """Every claimed directory, oldest first; one without a record yet counts (it is damaged or about to start)."""
    found: list[tuple[str, int, str, Path]] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for folder in runs_dir.iterdir():
            if verb is None or folder.name == verb:
                with contextlib.suppress(PermissionError, NotADirectoryError):
                    found += [
                        (*_age(entry), folder.name, Path(entry)) for entry in os.scandir(folder) if _is_run(entry)
                    ]
    return [path for *_, path in sorted(found)]


def _is_run(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and (_STAMP.match(entry.name) is not None or os.path.exists(f"{entry.path}/run.json"))


def _age(entry: os.DirEntry[str]) -> tuple[str, int]:
    """Sorts by the time in the name, that of the last write for a directory that was renamed."""
    match = _STAMP.match(entry.name)
    if match:
        return entry.name[:19], int(match[1] or 1)
    return datetime.fromtimestamp(entry.stat().st_mtime).strftime(_FORMAT), 1


def _latest(runs_dir: Path, verbs: Sequence[str]) -> Path:
    for path in reversed(_all(runs_dir)):
        # The newest may be a sweep, which is no run: saying so is better than an older run that nobody meant.
        wanted = not verbs or path.parent.name in verbs
        if wanted and ((path / "run.json").exists() or child_paths(path)):
            return _run_at(path)
    known = sorted({path.parent.name for path in _all(runs_dir)})
    verb = verbs[0] if verbs else ""
    what = f"`{verb}` run" if verb else "run"
    hint = did_you_mean(verb, known) if verb else ""
    hint = hint or f"; `trainctl {verb or 'train'}` makes one"
    raise RunError(f"no {what} in `{files.shown(runs_dir)}`{hint}")


def _run_at(path: Path) -> Path:
    if (path / "run.json").exists():
        return path
    jobs = child_paths(path)
    if jobs:
        first = files.shown(jobs[0])
        raise RunError(f"`{files.shown(path)}` is a sweep of {len(jobs)} runs; name one of them, e.g. `{first}`")
    raise RunError(f"`{files.shown(path)}` is not a run directory: it has no run.json")


def _unknown(runs_dir: Path, text: str, names: dict[str, Path]) -> Path:
    hint = did_you_mean(text, [*names, *(name.partition("/")[2] for name in names), "latest"])
    latest = ", ".join(list(names)[-3:])
    known = hint or (f"; the latest are: {latest}" if latest else "; there are no runs yet")
    text = text if len(text) <= 80 else text[:77] + "..."
    raise RunError(f"no run `{files.shown_text(text)}` in `{files.shown(runs_dir)}`{known}")
