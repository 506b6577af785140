"""What an executor needs of a study, and nothing else."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from harness.config import Trial
from harness.errors import first_line
from harness.store import EpochRow, Record, StudyFolder, TrialRow


class Study(Protocol):
    """A search, or a list of trials: the executor asks for trials and reports what becomes of them."""

    folder: StudyFolder
    record: Record

    def next_trial(self) -> Trial | None:
        """The next trial to run, new or paused until now; None where there is none now.

        Trials may end within this call: those that never started, and those paused for good.
        """

    def waits(self) -> bool:
        """Whether there will be trials once others have ended."""

    def may_go_on(self) -> bool:
        """Whether trials under way may begin another epoch: neither a signal nor a budget has ended the study."""

    def resumable(self) -> Container[str]:
        """Trials that can go on although they have a row."""

    def on_epoch(self, row: EpochRow) -> bool:
        """Take an epoch's row; True if the trial goes on."""

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        """Take the end of a trial; None where it paused or was interrupted, and can go on."""


class Display(Protocol):
    """What people see while a study runs."""

    def started(self, trial: Trial) -> None:
        """A trial starts or goes on."""

    def epoch(self, row: EpochRow) -> None:
        """A trial finished an epoch."""

    def ended(self, trial_id: str, row: TrialRow | None) -> None:
        """A trial ended, or (no row) paused or was interrupted."""


class Wrapped:
    """A study that passes every call on to another; its subclasses hold what they change."""

    def __init__(self, study: Study) -> None:
        self.study, self.folder, self.record = study, study.folder, study.record

    def next_trial(self) -> Trial | None:
        return self.study.next_trial()

    def waits(self) -> bool:
        return self.study.waits()

    def may_go_on(self) -> bool:
        return self.study.may_go_on()

    def resumable(self) -> Container[str]:
        return self.study.resumable()

    def on_epoch(self, row: EpochRow) -> bool:
        return self.study.on_epoch(row)

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        return self.study.on_end(trial_id, error)


class Displayed(Wrapped):
    """A study that shows every call on a display."""

    def __init__(self, study: Study, display: Display) -> None:
        super().__init__(study)
        self.display = display

    def next_trial(self) -> Trial | None:
        ended_before = len(self.record.ended)
        trial = self.study.next_trial()
        for row in list(islice(self.record.ended.values(), ended_before, None)):
            self.display.ended(row.trial, row)
        if trial is not None:
            self.display.started(trial)
        return trial

    def on_epoch(self, row: EpochRow) -> bool:
        goes_on = self.study.on_epoch(row)
        self.display.epoch(row)
        return goes_on

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        row = self.study.on_end(trial_id, error)
        self.display.ended(trial_id, row)
        return row


@dataclass(frozen=True)
class Resources:
    """What one trial takes, how many run at once, where, and where to the study is copied."""

    executor: str = "ray"
    #: none: 1 where there is a GPU, which is settled before the first trial
    gpus_per_trial: float | None = None
    cpus_per_trial: float = 1.0
    concurrency: int | None = None
    address: str | None = None
    #: URI that the study is copied to
    upload: str | None = None

    @property
    def per_trial(self) -> float:
        """What device hours count of a trial: its GPUs, or where it has none its CPU cores."""
        return self.gpus_per_trial or self.cpus_per_trial

    @property
    def device(self) -> str | None:
        """Where trials train; none: on the GPU that their process sees, if any."""
        return "cpu" if self.gpus_per_trial == 0 else None


def describe_error(error: BaseException) -> str:
    """First line of what went wrong, with the type where it is not one of ours."""
    ours = type(error).__module__.startswith("harness.")
    return first_line(error) if ours else f"{type(error).__name__}: {first_line(error)}"


def runs_path(folder: StudyFolder, trial_id: str) -> Path:
    """Absolute path of a trial's run folder: workers have their own working directory."""
    return folder.run(trial_id).path.resolve()
