"""Arms and their seed replicates: trials that are listed, not proposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from harness.config import Experiment, Trial, fingerprint
from harness.errors import StudyError
from harness.store import EpochRow, Record, StudyFolder, TrialRow

#: what `start` of an Experiment may name besides a file: an arm of the same ablation, a run of the same study
ARM, RUN = "arm:", "run:"


class Replicates:
    """A study of named arms, each trained with the same seeds; no trial is stopped early.

    A trial that has ended is not run again: its id follows from its Experiment and its seed. An arm that starts
    from others waits until their trials of the same seed are complete.
    """

    def __init__(self, folder: StudyFolder, arms: Mapping[str, Experiment], seeds: Sequence[int]) -> None:
        self.folder, self.record = folder, Record(folder)
        self.arms = chain(arms)
        self.arm_of: dict[str, str] = {}
        #: of each trial; those that have a row keep theirs, the others get what is left in the order of asking
        self.numbers = {row.trial: row.number for row in self.record.ended.values()}
        taken = set(self.numbers.values())
        self._free = (number for number in count() if number not in taken)
        self.waiting: list[Trial] = []
        self.running: dict[str, Trial] = {}
        #: whether a signal ended its run before its time
        self.interrupted = False
        self.add(self.arms, seeds)

    def add(self, arms: Iterable[str], seeds: Sequence[int]) -> None:
        """Ask for more replicates of some arms; those that are there already change nothing.

        Raises:
            StudyError: an arm starts from a run that is not in this study with the same seed: it would wait for ever.
        """
        for seed in seeds:
            for arm in arms:
                trial = Trial(self.arms[arm], seed)
                if trial.id not in self.arm_of:
                    self.arm_of[trial.id] = arm
                    if trial.id not in self.numbers:
                        self.numbers[trial.id] = next(self._free)
                    if trial.id not in self.record.ended:
                        self.waiting.append(trial)
        self._check_parents()

    def next_trial(self) -> Trial | None:
        """The next trial whose starting weights are there; None where there is none now (see `waits`)."""
        for trial in list(self.waiting):
            if self._has_trained(trial):
                # stopped between its last epoch and its row, which is all that it lacks
                self.waiting.remove(trial)
                self._end(trial, None)
                continue
            failed = [parent for parent in self._parents(trial) if self._outcome(parent) == "failed"]
            if failed:
                self.waiting.remove(trial)
                arm = self.record.ended[failed[0]].picked["arm"]
                self._end(trial, f"arm '{arm}', from whose weights it starts, failed")
            elif all(self._outcome(parent) == "complete" for parent in self._parents(trial)):
                self.waiting.remove(trial)
                self.running[trial.id] = trial
                return trial
        return None

    def resumable(self) -> tuple[str, ...]:
        """None: a trial that has a row has ended."""
        return ()

    def waits(self) -> bool:
        """Whether there will be trials once others have ended."""
        return bool(self.waiting and self.running)

    def may_go_on(self) -> bool:
        """Whether trials that are under way may begin another epoch: always."""
        return True

    def on_epoch(self, row: EpochRow) -> bool:
        """Record an epoch; True until the trial's own last."""
        self.record.add_epoch(row)
        return not row.done

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        """Record the end of a trial; None where it was only interrupted."""
        trial = self.running.pop(trial_id)
        if error is None and not self._has_trained(trial):
            self.waiting.insert(0, trial)
            return None
        return self._end(trial, error)

    def _end(self, trial: Trial, error: str | None) -> TrialRow:
        return self.record.end(
            trial.id,
            self.numbers[trial.id],
            trial.seed,
            "complete" if error is None else "failed",
            picked={"arm": self.arm_of[trial.id]},
            error=error,
        )

    def _has_trained(self, trial: Trial) -> bool:
        rows = self.record.epochs.get(trial.id, [])
        return bool(rows) and rows[-1].done

    def _parents(self, trial: Trial) -> list[str]:
        runs = [start.removeprefix(RUN) for start in trial.experiment.start if start.startswith(RUN)]
        return [f"{run}-s{trial.seed}" for run in runs]

    def _check_parents(self) -> None:
        for trial in self.waiting:
            for parent in self._parents(trial):
                if parent not in self.arm_of and parent not in self.record.ended:
                    raise StudyError(
                        f"arm '{self.arm_of[trial.id]}' with seed {trial.seed} starts from run {parent}, which this "
                        "study does not train; ask for that arm with the same seed too, or give a checkpoint file"
                    )

    def _outcome(self, trial_id: str) -> str | None:
        row = self.record.ended.get(trial_id)
        return None if row is None else row.outcome


def chain(arms: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """The arms with `arm:NAME` in `start` replaced by `run:FINGERPRINT`, so that an id names a whole history.

    Args:
        arms: each after those that it starts from.
    """
    chained: dict[str, Experiment] = {}
    for name, experiment in arms.items():
        start = tuple(
            RUN + fingerprint(chained[word.removeprefix(ARM)]) if word.startswith(ARM) else word
            for word in experiment.start
        )
        chained[name] = experiment.model_copy(update={"start": start})
    return chained
