"""A group of trials trained as one stacked model, in a worker; each ends as an ordinary `train` run.

Trials that turn out not to fit into one stack are trained one after the other. A signal ends the group: its trials
keep no checkpoint and begin anew when their study is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainctl import build, threads
from trainctl.data.base import Data
from trainctl.errors import Interrupted, TrainctlError
from trainctl.run import failures, record
from trainctl.run.run import Run
from trainctl.stacked import Unstackable
from trainctl.stacked.measuring import measure_many
from trainctl.stacked.trainer import Member, StackedTrainer
from trainctl.tasks.base import Task
from trainctl.verbs.kept_data import Fitted, KeptData, key
from trainctl.verbs.stacked_ends import Around, Ends, Listener, Order, Signals
from trainctl.verbs.stacked_run import Clock, StackedRun, rounded

__all__ = ["Around", "Listener", "run_group"]


def run_group(order: Order, talk: Listener, kept: KeptData, around: Around) -> None:
    """Carry out the order's trials and tell how each ended; nothing that goes wrong in one ends the others.

    order: `trials`, each with `number`, `path`, `config`, `overrides`; `parent`: the study's run directory.
    """
    with Signals() as signals:
        Group(order, talk, kept, around, signals).run()


class Group:
    """The trials of one order."""

    def __init__(self, order: Order, talk: Listener, kept: KeptData, around: Around, signals: Signals) -> None:
        self.order, self.talk, self.kept, self.around, self.signals = order, talk, kept, around, signals
        self.ends = Ends(order, talk, around)
        self._sections: dict[str, Any] = {}
        self._lent: dict[str, tuple[Data, Fitted]] = {}

    def run(self) -> None:
        """Train all of them; what is open when a signal comes is recorded and told as stopped."""
        try:
            begun = [number for number, one in self.ends.open.items() if has_begun(Path(one["path"]))]
            self._one_by_one(begun)
            with self.signals.raised():
                clock = Clock.now()
                trials = [trial for number in list(self.ends.open) if (trial := self._made(number)) is not None]
                share = clock.share(max(1, len(trials)))
            for trial in trials:
                trial.setup = share
            made = {trial.number for trial in trials}
            self._one_by_one([k for k in self.ends.open if k not in made], "data or task are not of this package")
            for part in of_one_shape(trials):
                self._train(part)
        except Interrupted as interrupted:
            self.ends.stop(interrupted.signum)

    # What is trained

    def _made(self, number: int) -> StackedRun | None:
        """The trial with its task and data. None when they are foreign, or cannot be made, which is told."""
        one = self.ends.open[number]
        try:
            config = self._resolved(one["config"])
            lent = self._data(config)
            if lent is None:
                return None
            data, fitted = lent
            task = build.task(config, data.spec, data, fit=True)
            if not isinstance(task, Task):
                return None
            if str(config["trainer"]["precision"]).startswith("64"):
                task.double()
            words = list(one["overrides"])
            return StackedRun(number, Path(one["path"]), one["config"], words, config, task, data, fitted)
        except Exception as error:
            self.ends.refuse(number, error)
        return None

    def _resolved(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The config without references to the environment; what trials have in common is resolved once."""
        found = {}
        for name, node in content.items():
            text = f"{name} {node!r}"
            if text not in self._sections:
                self._sections[text] = record.resolved({name: node})[name]
            found[name] = self._sections[text]
        return found

    def _data(self, config: dict[str, Any]) -> tuple[Data, Fitted] | None:
        name = key(config)
        if name not in self._lent:
            data, fitted = self.kept.lend(config)
            if not isinstance(data, Data) or fitted is None:
                return None
            self._lent[name] = data, fitted
        return self._lent[name]

    def _one_by_one(self, numbers: Sequence[int], reason: str | None = None) -> None:
        """Carry out trials as ordinary runs, saying why with the first; Interrupted when a signal ended one."""
        shared = {name: value for name, value in self.order.items() if name not in ("do", "trials")}
        many = "1 trial is" if len(numbers) == 1 else f"{len(numbers)} trials are"
        notes = [] if reason is None else [f"vectorized: {many} trained one by one: {reason}"]
        for number in numbers:
            one = self.ends.open.pop(number)
            with self.signals.raised():
                code = self.around.alone({"do": "trial", **shared, **one, "notes": notes})
            if code > 128:
                raise Interrupted(code - 128)
            notes = []

    # Training

    def _train(self, trials: list[StackedRun]) -> None:
        """Train trials of one shape; one by one when they cannot be stacked, in halves when memory does not suffice."""
        error = self._stacked(trials)
        left = [trial for trial in trials if trial.number in self.ends.open]
        if isinstance(error, Unstackable):
            self._one_by_one([trial.number for trial in left], str(error))
        elif error is not None and failures.is_out_of_memory(error) and len(left) > 1:
            error.__traceback__ = error.__context__ = None  # they hold the stack
            for trial in left:
                trial.restart()
            self._train(left[: len(left) // 2])
            self._train(left[len(left) // 2 :])
        elif error is not None and not self._without_unfit(left):
            for trial in left:
                begun = trial.number in self.ends.begun
                self.ends.fail(trial, error) if begun else self.ends.refuse(trial.number, error)

    def _without_unfit(self, trials: list[StackedRun]) -> bool:
        """Refuse the trials that cannot be built even by themselves and train the others; False when there are none."""
        before = len(self.ends.open)
        for trial in trials if not self.ends.begun else ():
            try:
                StackedTrainer([Member(trial.task, trial.data, trial.seed)], torch.device("cpu"), trial.max_epochs)
            except Exception as error:
                self.ends.refuse(trial.number, error)
        if len(self.ends.open) == before:
            return False
        rest = [trial for trial in trials if trial.number in self.ends.open]
        if rest:
            self._train(rest)
        return True

    def _stacked(self, trials: list[StackedRun]) -> Exception | None:
        """Train trials as one stack; returns what went wrong with the stack as a whole."""
        count = threads_of(trials[0])
        torch.set_num_threads(count)
        try:
            with self.signals.raised():
                clock = Clock.now()
                members = [Member(trial.task, trial.data, trial.seed) for trial in trials]
                stack = StackedTrainer(members, device_of(trials[0].config), trials[0].max_epochs)
                share = clock.share(len(trials))
            for trial in trials:
                trial.setup += share
            active = self.ends.begin(trials, count)
            if active and len(active) < len(trials):
                stack.keep([k for k, trial in enumerate(trials) if trial.number in self.ends.begun])
            while active:
                active = self._epoch(stack, active)
        except Exception as error:
            return error
        return None

    def _epoch(self, stack: StackedTrainer, active: list[StackedRun]) -> list[StackedRun]:
        """One epoch of all, told; those that ended are kept and taken from the stack. Returns the others."""
        clock = Clock.now()
        with self.signals.raised():
            train = stack.run_epoch()
            outputs, y, losses = stack.evaluate()
            figures = measure_many(outputs, y, active[0].task.spec, active[0].monitor)
        share = clock.share(len(active))
        best, failed = [], {}
        for place, trial in enumerate(active):
            trial.fit += share
            row: dict[str, Any] = {"epoch": stack.epoch, "step": stack.step, "seconds": round(share.seconds, 4)}
            row |= {"lr": stack.lr(place), "train/loss": rounded(train[place])}
            found = figures[place]
            found = found if isinstance(found, Exception) else {"loss": losses[place], **found}
            try:
                if trial.epoch(row, found, stack.diverged[place]):
                    best.append(place)
            except TrainctlError as error:
                failed[place] = error
        if best:
            stack.remember(best)
        stack.end_epoch([trial.watched(train[k]) for k, trial in enumerate(active)])
        for place, why in failed.items():
            self.ends.fail(active[place], why)
        ended = self._ended({k: trial for k, trial in enumerate(active) if k not in failed})
        self.ends.finish({active[k].number: lambda k=k: stack.remembered(k) for k in ended})  # type: ignore[misc]
        left = [k for k in range(len(active)) if k not in failed and k not in ended]
        if left and len(left) < len(active):
            stack.keep(left)
        return [active[k] for k in left]

    def _ended(self, trials: Mapping[int, StackedRun]) -> list[int]:
        """Places of the trials whose last epoch this was: by their config, or because who listens says so."""
        with self.signals.raised():
            stops = self.talk.tell({trial.number: trial.rows[-1] for trial in trials.values()}) if trials else {}
        for trial in trials.values():
            if trial.number in stops:
                trial.halt(stops[trial.number])
        return [place for place, trial in trials.items() if trial.over()]


def has_begun(path: Path) -> bool:
    """Whether there is a run to take or to go on with: a completed one, or one with a checkpoint."""
    if not (path / "run.json").exists():
        return False
    try:
        run = Run.open(path)
    except TrainctlError:
        return False
    return run.status == "completed" or failures.is_resumable(run)


def of_one_shape(trials: Sequence[StackedRun]) -> list[list[StackedRun]]:
    """Trials whose nets have the same shapes, together: other rows may hold other categories."""
    parts: dict[Any, list[StackedRun]] = {}
    for trial in trials:
        shapes = tuple(p.shape for p in trial.task.net.parameters())
        parts.setdefault((shapes, *(len(trial.data.split(name)) for name in ("train", "val"))), []).append(trial)
    return list(parts.values())


def device_of(config: Mapping[str, Any]) -> torch.device:
    """Where the stack is trained."""
    wanted = config["trainer"].get("accelerator", "auto")
    return torch.device("cuda" if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def threads_of(trial: StackedRun) -> int:
    """trainer.threads, or what is fastest for one of the nets."""
    wanted = trial.config["trainer"].get("threads", "auto")
    if wanted != "auto":
        return int(wanted)
    split, size = trial.data.split("train"), trial.data.batch_size
    assert split.y is not None
    return threads.choose(trial.task, (split.x[:size], split.y[:size]))
