"""The search: proposals, rungs and journals behind the three calls that an executor makes."""

from __future__ import annotations

import time
from typing import Any

from harness.config import Experiment, SearchSettings, Space, Trial, apply_overrides, read_section, to_overrides
from harness.errors import ConfigError, StudyError
from harness.search.asha import Asha
from harness.search.proposals import Proposals, default_pick
from harness.store import EpochRow, Record, StudyFolder, TrialRow, experiment_text, write_text


class Search:
    """A study whose trials are proposed by Optuna and stopped at rungs.

    The journals and Optuna's storage hold everything: opening a folder again replays the rungs from the
    rows and starts with the trials that did not end.
    """

    def __init__(self, folder: StudyFolder, space: Space, seed: int, deadline: float | None = None) -> None:
        self.folder, self.space, self.seed, self.deadline = folder, space, seed, deadline
        self.record = Record(folder)
        self.proposals = Proposals(folder, space, seed)
        if not len(self.proposals) and (default := default_pick(space)):
            self.proposals.enqueue(default)
        search = space.search
        self.asha = Asha(search.grace_epochs, search.reduction_factor, space.experiment.training.epochs)
        self.running: dict[str, _Running] = {}
        self._replay()

    def next_trial(self) -> Trial | None:
        """The next trial to run; None where no more are wanted."""
        while not self.out_of_time():
            if self._waiting:
                return self._start(self._waiting.pop(0))
            if len(self.proposals) >= self.space.search.trials:
                return None
            self._prepare(*self.proposals.ask())
        return None

    def waits(self) -> bool:
        """Whether there will be trials once others have ended: never, a proposal needs no other."""
        return False

    def on_epoch(self, row: EpochRow) -> bool:
        """Record an epoch; True if the trial goes on."""
        running = self.running[row.trial]
        if self.record.add_epoch(row):
            self.proposals.report(running.number, row.epoch, row.score)
        running.stopped = not self.asha.report(row.trial, row.epoch, row.score) and not row.done
        running.finished = row.done
        return not (row.done or running.stopped or self.out_of_time())

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        """Record the end of a trial; None where it was only interrupted and can be resumed."""
        running = self.running.pop(trial_id)
        if error is None and not (running.stopped or running.finished):
            return None
        outcome = "failed" if error is not None else "stopped" if running.stopped else "complete"
        row = self.record.end(trial_id, running.number, running.trial.seed, outcome, picked=running.picked, error=error)
        self.proposals.tell(running.number, outcome, row.score)
        self._write_best()
        return row

    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def experiment_of(self, picked: dict[str, Any]) -> Experiment:
        """The complete Experiment of picked values."""
        return apply_overrides(self.space.experiment, to_overrides(self.space, picked))

    def _prepare(self, number: int, picked: dict[str, Any]) -> None:
        """Line up the trial of picked values; values that exclude each other are a failed trial."""
        try:
            experiment = self.experiment_of(picked)
        except ConfigError as error:
            self.record.end(_invalid_id(number), number, self.seed, "failed", picked=picked, error=str(error))
            self.proposals.tell(number, "failed", None)
            return
        taken = {*self.record.ended, *self.running, *(other.trial.id for other in self._waiting)}
        trial = Trial(experiment, self.seed)
        # the same values again are worth a new seed, not the same numbers twice
        while trial.id in taken:
            trial = Trial(experiment, trial.seed + 1)
        self.proposals.note(number, trial=trial.id, seed=trial.seed)
        self._waiting.append(_Running(number, picked, trial))

    def _start(self, running: _Running) -> Trial:
        self.running[running.trial.id] = running
        return running.trial

    def _replay(self) -> None:
        """Rebuild the rungs, settle trials whose end was not told to Optuna, find those to go on with."""
        for row in self.folder.epochs.read():
            self.asha.report(row.trial, row.epoch, row.score)
        self._waiting: list[_Running] = []
        not_noted: list[int] = []
        for frozen in self.proposals.unfinished():
            number, facts = frozen.number, frozen.user_attrs
            ended = self.record.ended.get(facts.get("trial", _invalid_id(number)))
            if ended is not None:
                self.proposals.tell(number, ended.outcome, ended.score)
            elif "seed" not in facts:
                not_noted.append(number)
            else:
                self._go_on(number, facts["seed"])
        for number in not_noted:
            # killed between the draw and the note: nothing ran, the values stay
            self._prepare(number, self.proposals.draw(number))
        self._write_best()

    def _go_on(self, number: int, seed: int) -> None:
        """Line up a trial that was under way, with the epochs that did not reach Optuna."""
        picked = self.proposals.draw(number)
        trial = Trial(self.experiment_of(picked), seed)
        for row in self.record.epochs.get(trial.id, []):
            self.proposals.report(number, row.epoch, row.score)
        self._waiting.append(_Running(number, picked, trial))

    def _write_best(self) -> None:
        ranking = self.record.ranking()
        if ranking:
            write_text(self.folder.best, export_text(self.space, ranking[0], 1, self.folder.name))


class _Running:
    """A trial under way."""

    def __init__(self, number: int, picked: dict[str, Any], trial: Trial) -> None:
        self.number, self.picked, self.trial = number, picked, trial
        self.stopped = self.finished = False


def _invalid_id(number: int) -> str:
    """The id in the journal of values that make no Experiment."""
    return f"invalid-{number}"


def export_text(space: Space, row: TrialRow, rank: int, study: str) -> str:
    """A trial's Experiment as a complete YAML file that says where it came from."""
    return experiment_text(
        apply_overrides(space.experiment, to_overrides(space, row.picked)),
        f"rank {rank} of study {study}: trial {row.number} ({row.trial}), {row.outcome}",
        f"validation mIoU {row.score:.4f} at epoch {row.best_epoch} of {row.epochs} run, seed {row.seed}",
        *(f"{name}: {value}" for name, value in row.picked.items()),
    )


def read_export(folder: StudyFolder, rank: int) -> str:
    """The Experiment of rank `rank` (from 1) of a search on disk, as `export_text` writes it.

    Raises:
        StudyError: the study has fewer ranked trials.
        ConfigError: the folder holds no search.
    """
    space = read_section(SearchSettings, folder.settings).space
    return export_text(space, ranked(folder, rank), rank, folder.name)


def ranked(folder: StudyFolder, rank: int) -> TrialRow:
    """The trial of rank `rank` (from 1) of a search on disk.

    Raises:
        StudyError: the study has fewer ranked trials.
    """
    ranking = Record(folder).ranking()
    if rank > len(ranking):
        raise StudyError(
            f"--rank {rank}: study '{folder.name}' has {len(ranking)} trials with a score; give 1 to {len(ranking)}"
            if ranking
            else f"study '{folder.name}' has no trial with a score yet; let it go on first"
        )
    return ranking[rank - 1]
