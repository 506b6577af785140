"""Experiment trackers of a study, fed by its driver, off unless asked for by name; the journals stay the truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from rich.console import Console

from harness.config import Trial, did_you_mean
from harness.errors import StudyError, first_line
from harness.run.study import Study
from harness.run.tracker_kinds import TRACKERS, Facts, Tracker, library
from harness.store import EpochRow, TrialRow


class Tracked:
    """The trackers of a study, as a display of it; one that fails is switched off, and that is said twice."""

    def __init__(
        self, names: Iterable[str], study: Study, facts: Callable[[Study, str], Any], console: Console
    ) -> None:
        """Take the trackers' names, and what tells a running trial's number and picked values."""
        self.study, self.facts, self.console = study, facts, console
        self.names = list(dict.fromkeys(names))
        self.trackers: list[Tracker] = []
        self.lost: dict[str, str] = {}
        self.running: dict[str, int] = {}

    def __enter__(self) -> Tracked:
        self.trackers = [TRACKERS[name][0](self.study.folder) for name in self.names]
        return self

    def __exit__(self, *_: object) -> None:
        self._each(lambda tracker: tracker.close())
        for name, error in self.lost.items():
            self._say(f"tracker {name} missed the end of this study: {error}")

    def started(self, trial: Trial) -> None:
        """A trial starts or goes on."""
        if not self.trackers:
            return
        number, picked = self.facts(self.study, trial.id)
        self._start(Facts(trial.id, number, trial.seed, picked, trial.experiment.model_dump(mode="json")))

    def epoch(self, row: EpochRow) -> None:
        """A trial finished an epoch; the first of a resumed one is that of its checkpoint again."""
        if row.epoch > self.running.get(row.trial, -1):
            self.running[row.trial] = row.epoch
            self._each(lambda tracker: tracker.epoch(row))

    def ended(self, trial_id: str, row: TrialRow | None) -> None:
        """A trial ended, or (no row) paused."""
        if row is None:
            self._each(lambda tracker: tracker.paused(trial_id))
        else:
            if self.trackers and trial_id not in self.running:
                # it ended while it was paused, or its values make no Experiment
                self._start(Facts(trial_id, row.number, row.seed, row.picked, self._experiment_of(trial_id)))
            self._each(lambda tracker: tracker.ended(row))
        self.running.pop(trial_id, None)

    def _start(self, facts: Facts) -> None:
        rows = self.study.record.epochs.get(facts.trial, [])
        self.running[facts.trial] = rows[-1].epoch if rows else -1
        self._each(lambda tracker: tracker.started(facts, rows))

    def _experiment_of(self, trial_id: str) -> dict[str, Any]:
        run = self.study.folder.run(trial_id)
        return run.read_experiment().model_dump(mode="json") if run.experiment.exists() else {}

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except tracker.errors as error:
                self.trackers.remove(tracker)
                self.lost[tracker.name] = first_line(error)
                self._say(f"tracker {tracker.name} is switched off, the study goes on: {first_line(error)}")

    def _say(self, text: str) -> None:
        # a quiet study still says what went wrong
        console = Console(stderr=True) if self.console.quiet else self.console
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def check_trackers(names: Iterable[str]) -> None:
    """Load the trackers' libraries, before anything is written.

    Raises:
        StudyError: no such tracker, its library is missing, or it lacks what it needs to log in.
    """
    for name in names:
        if name not in TRACKERS:
            raise StudyError(f"--tracker {name}: there is no such tracker{did_you_mean(name, TRACKERS)}")
        found = library(name)
        if name == "wandb":
            _check_login(found)
        if name == "mlflow":
            _check_address(found)


def _check_login(wandb: ModuleType) -> None:
    offline = os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun")
    if not offline and not wandb.login(verify=False, prompt=False):
        raise StudyError("--tracker wandb: nobody is logged in; run `wandb login`, or set WANDB_MODE=offline")


def _check_address(mlflow: ModuleType) -> None:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        if uri:
            mlflow.MlflowClient(uri)
    except mlflow.exceptions.MlflowException as error:
        raise StudyError(f"--tracker mlflow: MLFLOW_TRACKING_URI={uri} cannot be used: {first_line(error)}") from error
