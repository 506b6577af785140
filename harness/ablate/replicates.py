"""Arms and their seed replicates: trials that are listed, not proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.config import Experiment, Trial
from harness.store import EpochRow, Record, StudyFolder, TrialRow


class Replicates:
    """A study of named arms, each trained with the same seeds; no trial is stopped early.

    A trial that has ended is not run again: its id follows from its Experiment and its seed.
    """

    def __init__(self, folder: StudyFolder, arms: Mapping[str, Experiment], seeds: Sequence[int]) -> None:
        self.folder, self.record = folder, Record(folder)
        pairs = [(arm, Trial(experiment, seed)) for seed in seeds for arm, experiment in arms.items()]
        self.arm_of = {trial.id: arm for arm, trial in pairs}
        self.numbers = {trial.id: number for number, (_, trial) in enumerate(pairs)}
        self.waiting = [trial for _, trial in pairs if trial.id not in self.record.ended]
        self.running: dict[str, Trial] = {}

    def next_trial(self) -> Trial | None:
        """The next trial that has not ended."""
        if not self.waiting:
            return None
        trial = self.waiting.pop(0)
        self.running[trial.id] = trial
        return trial

    def on_epoch(self, row: EpochRow) -> bool:
        """Record an epoch; True until the trial's own last."""
        self.record.add_epoch(row)
        return not row.done

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        """Record the end of a trial; None where it was only interrupted."""
        trial = self.running.pop(trial_id)
        rows = self.record.epochs.get(trial_id, [])
        if error is None and not (rows and rows[-1].done):
            return None
        return self.record.end(
            trial_id,
            self.numbers[trial_id],
            trial.seed,
            "complete" if error is None else "failed",
            picked={"arm": self.arm_of[trial_id]},
            error=error,
        )
