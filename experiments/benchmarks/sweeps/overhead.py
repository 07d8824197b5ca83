"""What a trial of a sweep costs with trainctl and with others; all side by side in one run, in turns, medians.

    python experiments/benchmarks/sweeps/overhead.py [--repeats 5] [--ray PYTHON] [--quick] [--only NAME ...]

The trial is in work.py. Each system runs 2 trials and 32 (cheap ones 32 and 160); what the further ones cost is the
cost of a trial, the rest is fixed (start, imports, data). CPU seconds are those of all processes of a command. PYTHON
of --ray (or RAY_PYTHON) is an interpreter with `ray[tune]`, torch, numpy and polars; without it Ray Tune is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measure import PYTHON, TRAINCTL, Sampled, adopt, cost, machine, middle, table
from work import EPOCHS, rate

HERE = Path(__file__).parent
HYDRA = "Hydra basic launcher + Lightning"
PROCESSES, RAY, PLAIN = "one subprocess per trial, Lightning", "Ray Tune, 2 workers, plain loop", "plain loop"
CHEAP = (32, 160)  # a few ms a trial: more of them are needed to see it beside the start
POOL, STACKED = "trainctl tune, pool of 2", "trainctl tune, vectorized, stacks of 32"


@dataclass
class System:
    """A way to run `trials` trials: its command, and the two numbers of trials that are compared."""

    name: str
    command: Callable[[int, Path, int], list[str]]
    few: int = 2
    many: int = 32
    sampled: bool = False  # its processes do not wait for each other

    def cost(self, trials: int, data: Path, seed: int) -> tuple[float, float]:
        """CPU and wall seconds."""
        if not trials:
            return 0.0, 0.0
        with tempfile.TemporaryDirectory(dir=data) as place:
            sampled = Sampled() if self.sampled else None
            cpu, wall = cost(self.command(trials, data, seed), Path(place), sampled)
        return (sum(sampled.seen.values()) if sampled else cpu), wall


def script(system: str, python: str = PYTHON) -> Callable[[int, Path, int], list[str]]:
    return lambda trials, data, seed: [python, str(HERE / "work.py"), system, str(data), str(trials), str(seed)]


def hydra(*words: str) -> Callable[[int, Path, int], list[str]]:
    def command(trials: int, data: Path, seed: int) -> list[str]:
        rates = ",".join(f"{rate(k):.6g}" for k in range(trials))
        return [PYTHON, str(HERE / "hydra_app.py"), "-m", f"lr={rates}", f"folder={data}", f"seed={seed}", *words]

    return command


def processes(trials: int, data: Path, seed: int) -> list[str]:
    one = f"'{PYTHON}' '{HERE / 'work.py'}' lightning_loop '{data}' 1 {seed}"
    return ["bash", "-ec", f"for k in $(seq {trials}); do {one}; done"]


def trainctl(*words: str, grid: bool = False, tune: bool = True) -> Callable[[int, Path, int], list[str]]:
    def command(trials: int, data: Path, seed: int) -> list[str]:
        rates = ",".join(f"{rate(k) * (1 + k // 32 / 100):.6g}" for k in range(trials))
        given = [f"optimizer.lr={rates}"] if grid else ["optimizer.lr=tag(log, interval(1e-4,1e-1))"]
        amount = [] if grid else ["sampler=random", f"tune.trials={trials}"]
        return [
            *TRAINCTL,
            *(["tune"] if tune else ["train", "-m"]),
            f"data.path={data}/table.parquet",
            "data.target=y",
            "data.split.kind=column",
            "data.split.column=part",
            "data.scaling=none",
            "trainer.threads=1",
            "model.hidden_dims=[64]",
            f"trainer.max_epochs={EPOCHS}",
            f"seed={seed}",
            *given,
            *amount,
            *words,
            "-q",
        ]

    return command


def systems(ray: str | None) -> list[System]:
    pool, stacked = "tune.executor=pool", "tune.executor=vectorized"
    found = [
        System(PLAIN, script("plain"), *CHEAP),
        System("plain loop, torch's default AdamW", script("plain_default"), *CHEAP),
        System("plain loop with validation", script("plain_validated"), *CHEAP),
        System("Optuna in memory, plain loop with validation", script("optuna"), *CHEAP),
        System("Lightning, loop over trials", script("lightning_loop")),
        System(HYDRA, hydra()),
        System(f"{HYDRA}, bare", hydra("bare=true")),
        System(PROCESSES, processes, 0, 3),
        System(POOL, trainctl("tune.jobs=2", pool)),
        System("trainctl tune, pool of 2, grid", trainctl("tune.jobs=2", pool, "sampler=grid", grid=True)),
        System("trainctl tune, pool of 1", trainctl("tune.jobs=1", pool)),
        System("trainctl train -m, 2 workers", trainctl("tune.jobs=2", pool, grid=True, tune=False)),
        # a stack of 2 takes about as long as one of 32, so only whole stacks are compared
        System(STACKED, trainctl("tune.jobs=1", stacked), *CHEAP),
        System("trainctl tune, vectorized, 2 workers", trainctl("tune.jobs=2", stacked), *CHEAP),
    ]
    if ray:
        found.append(System(RAY, script("ray", ray), *CHEAP, sampled=True))
        found.append(System(f"{RAY}, a process per trial", script("ray_processes", ray), sampled=True))
    return found


@dataclass
class Found:
    """Seconds of each repetition: beyond the fixed cost per trial, and whole."""

    cpu: list[float]
    wall: list[float]
    fixed_cpu: list[float]
    whole_wall: list[float]  # of a run of 32, per trial


def measure(repeats: int, chosen: list[System], data: Path) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for repeat in range(repeats):
        for system in chosen:
            few, many = system.cost(system.few, data, repeat), system.cost(system.many, data, repeat)
            more = system.many - system.few
            cpu, wall = ((b - a) / more for a, b in zip(few, many, strict=True))
            row = found.setdefault(system.name, Found([], [], [], []))
            row.cpu.append(cpu)
            row.wall.append(wall)
            row.fixed_cpu.append(few[0] - system.few * cpu)
            row.whole_wall.append(few[1] / 32 if system.few == 32 else many[1] / system.many)
            print(f"{repeat} {system.name}: {cpu:.4f} CPU s, {wall:.4f} s a trial; {few}, {many}", flush=True)
    return found


def costs(found: dict[str, Found], chosen: list[System]) -> str:
    rows = []
    for system in chosen:
        row, spread = found[system.name], sorted(found[system.name].cpu)
        marginal = middle(row.wall)
        rows.append(
            [
                system.name,
                middle(row.cpu),
                f"{spread[0]:.3g} to {spread[-1]:.3g}",
                middle(row.fixed_cpu),
                f"{60 / marginal:.0f}" if marginal > 0 else "-",
                f"{60 / middle(row.whole_wall):.0f}",
            ]
        )
    head = ["system", "CPU s per trial", "all", "fixed CPU s", "trials/min beyond fixed", "trials/min, whole run of 32"]
    return table(head, rows)


def ratios(found: dict[str, Found]) -> str:
    """The figures that were asked for: each the median over the repetitions of a ratio of neighbours in time."""
    rows: list[list[object]] = []

    def add(name: str, goal: str, one: str, other: str, what: Callable[[Found, Found, int], float]) -> None:
        if one in found and other in found:
            values = [what(found[one], found[other], k) for k in range(len(found[one].cpu))]
            rows.append([name, goal, middle(values), ", ".join(f"{v:.3g}" for v in values)])

    def cpu(a: Found, b: Found, k: int) -> float:
        return b.cpu[k] / a.cpu[k]

    def wall(a: Found, b: Found, k: int) -> float:
        return b.wall[k] / a.wall[k]

    def whole(a: Found, b: Found, k: int) -> float:
        return b.whole_wall[k] / a.whole_wall[k]

    add("pool: CPU s a trial above the plain loop", "at most 0.15", POOL, PLAIN, lambda a, b, k: a.cpu[k] - b.cpu[k])
    for other, least in ((HYDRA, "3"), (f"{HYDRA}, bare", "3"), (PROCESSES, "20"), (RAY, "over 1")):
        add(f"pool: trials/min beyond fixed / {other}", f"at least {least}", POOL, other, wall)
    for other in (HYDRA, RAY, f"{RAY}, a process per trial"):
        add(f"pool: trials/min of the whole run / {other}", "over 1", POOL, other, whole)
    for other, least in ((HYDRA, "at least 30"), (f"{HYDRA}, bare", "at least 30"), (PLAIN, "at least 1.5")):
        add(f"vectorized: CPU of {other} / its own", least, STACKED, other, cpu)
    for other in ("plain loop, torch's default AdamW", "plain loop with validation"):
        add(f"vectorized: CPU of {other} / its own", "", STACKED, other, cpu)
    return table(["ratio", "asked for", "median", "all"], rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ray", default=os.environ.get("RAY_PYTHON"), help="an interpreter that has ray[tune]")
    parser.add_argument("--quick", action="store_true", help="one repetition, a few minutes")
    parser.add_argument("--only", nargs="+", help="names of systems, or words in them")
    options = parser.parse_args()
    adopt()
    chosen = [s for s in systems(options.ray) if not options.only or any(w in s.name for w in options.only)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PYTHON, str(HERE / "work.py"), "table", folder], check=True)
        found = measure(1 if options.quick else options.repeats, chosen, Path(folder))
    print(f"\n{costs(found, chosen)}\n\n{ratios(found)}\n\n{machine()}")


if __name__ == "__main__":
    main()
