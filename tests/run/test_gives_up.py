"""A study stops by itself where its first trials all fail, and only there."""

from __future__ import annotations

import pytest

from harness.ablate import Replicates
from harness.config import Experiment, Trial
from harness.errors import TrainingError
from harness.run import Resources, run_search
from harness.run.gives_up import GivesUp
from harness.run.inprocess import run_inprocess
from harness.search import Search
from harness.store import EpochRow, Record, StudyFolder

CAUSE = "CUDA error: no kernel image"


class Endless:
    """A study that always has another trial, as a search has."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder, self.record, self.seed = folder, Record(folder), 0

    def next_trial(self) -> Trial | None:
        self.seed += 1
        return Trial(Experiment(), self.seed)

    def waits(self) -> bool:
        return False

    def on_epoch(self, row: EpochRow) -> bool:
        self.record.add_epoch(row)
        return True

    def on_end(self, trial_id: str, error: str | None = None):
        if error == "interrupted":
            return None
        outcome = "complete" if error is None else "failed"
        return self.record.end(trial_id, len(self.record.ended), 0, outcome, picked={}, error=error)


@pytest.fixture
def study(folder) -> GivesUp:
    return GivesUp(Endless(folder), first=3)


def epoch(trial: str) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=1, score=0.5, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=False,
    )  # fmt: skip


def fail_one_after_the_other(study: GivesUp, trials: int) -> None:
    for _ in range(trials):
        study.on_end(study.next_trial().id, CAUSE)


def test_after_the_first_failures_in_a_row_no_trial_starts_and_the_first_cause_is_said(study):
    fail_one_after_the_other(study, 3)
    study.check()
    assert study.next_trial() is None and not study.waits()
    with pytest.raises(TrainingError, match="gave up: the first 3 trials all failed, the first with: CUDA error: no k"):
        study.check()
    assert TrainingError.exit_code == 3


def test_one_trial_that_worked_is_enough_to_go_on_for_ever(study):
    fail_one_after_the_other(study, 2)
    study.on_end(study.next_trial().id)
    fail_one_after_the_other(study, 20)
    assert study.next_trial() is not None


def test_trials_that_still_start_are_waited_for_and_the_first_epoch_of_one_lets_the_study_go_on(study):
    slow, *quick = [study.next_trial().id for _ in range(4)]
    for trial in quick:
        study.on_end(trial, CAUSE)
    assert study.next_trial() is None and study.waits()
    study.on_epoch(epoch(slow))
    assert study.next_trial() is not None
    study.check()


def test_where_those_waited_for_fail_too_the_study_has_given_up(study):
    trials = [study.next_trial().id for _ in range(5)]
    study.on_epoch(epoch(trials[0]))
    for trial in trials[1:]:
        study.on_end(trial, CAUSE)
    assert study.next_trial() is not None
    study.on_end(trials[0], "the loss is not finite")
    assert study.next_trial() is None and study.waits()
    study.on_end(next(iter(study.running)), CAUSE)
    assert study.next_trial() is None and not study.waits()
    with pytest.raises(TrainingError, match="the first 6 trials all failed"):
        study.check()


def test_an_interrupted_trial_is_no_failure_and_not_waited_for(study):
    fail_one_after_the_other(study, 2)
    study.on_end(study.next_trial().id, "interrupted")
    assert not study.running
    fail_one_after_the_other(study, 1)
    assert study.next_trial() is None and not study.waits()


def test_a_resumed_study_has_as_many_chances_as_a_new_one(study, folder):
    fail_one_after_the_other(study, 3)
    again = GivesUp(Endless(folder), first=3)
    again.study.seed = 100
    fail_one_after_the_other(again, 2)
    assert again.next_trial() is not None


def test_arms_that_fail_because_their_parent_failed_do_not_count(tiny, folder):
    broken = tiny(training__batch_size=9)
    children = {f"child{n}": tiny(start=["arm:broken"], optimiser__lr=n / 1000) for n in range(1, 7)}
    study = GivesUp(Replicates(folder, {"broken": broken} | children | {"sound": tiny(training__epochs=1)}, [0]))
    run_inprocess(study)
    study.check()
    assert [row.outcome for row in folder.trials.read()] == ["failed"] * 7 + ["complete"]


def test_a_search_gives_up_after_five_and_has_no_state_to_clean_up(tiny_space, tiny, folder):
    space = tiny_space(trials=40, experiment=tiny(training__batch_size=9), parameters={
        "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    })  # fmt: skip
    study = GivesUp(Search(folder, space, seed=0))
    run_inprocess(study)
    assert len(folder.trials.read()) == 5
    with pytest.raises(TrainingError, match="leaves no batch of 6 frames.*harness rerun .*study 0.*another --name"):
        study.check()


def test_started_as_people_start_it_a_hopeless_search_says_so(results, tiny_space, tiny, console):
    space = tiny_space(trials=40, experiment=tiny(training__batch_size=9), parameters={
        "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    })  # fmt: skip
    study = StudyFolder(results / "hunt")
    with pytest.raises(TrainingError, match="study 'hunt' gave up: the first 5 trials all failed"):
        run_search(study, space, Resources("inprocess"), console, seed=0)
    assert len(study.trials.read()) == 5
