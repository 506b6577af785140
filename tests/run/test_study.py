"""The calls between an executor and a study."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from harness.config import Experiment, Trial
from harness.errors import ModelError
from harness.run.study import Displayed, describe_error, runs_path
from harness.store import EpochRow, StudyFolder


class Spy:
    """A study and a display in one, that remember what they were called with."""

    folder = StudyFolder(Path("here"))

    def __init__(self, trial: Trial | None, goes_on: bool = True) -> None:
        self.trial, self.goes_on, self.calls = trial, goes_on, []
        self.record = SimpleNamespace(ended={})
        self.ends_next: dict[str, SimpleNamespace] = {}

    def next_trial(self):
        self.record.ended |= self.ends_next
        self.ends_next = {}
        return self.trial

    def waits(self):
        return "until others end"

    def on_epoch(self, row):
        return self.goes_on

    def on_end(self, trial_id, error=None):
        return None if error is None else f"row of {trial_id}: {error}"

    def started(self, trial):
        self.calls.append(("started", trial.id))

    def epoch(self, row):
        self.calls.append(("epoch", row.epoch))

    def ended(self, trial_id, row):
        self.calls.append(("ended", trial_id, row))


def test_a_displayed_study_answers_as_the_study_and_shows_every_call():
    trial = Trial(Experiment(), 0)
    spy = Spy(trial, goes_on=False)
    shown = Displayed(spy, spy)
    row = EpochRow.model_construct(trial=trial.id, epoch=4)
    assert shown.folder is spy.folder
    assert shown.next_trial() is trial
    assert shown.waits() == "until others end"
    assert shown.on_epoch(row) is False
    assert shown.on_end(trial.id) is None
    assert shown.on_end(trial.id, "broken") == f"row of {trial.id}: broken"
    assert spy.calls == [
        ("started", trial.id),
        ("epoch", 4),
        ("ended", trial.id, None),
        ("ended", trial.id, f"row of {trial.id}: broken"),
    ]


def test_nothing_is_shown_where_there_is_no_trial():
    spy = Spy(None)
    assert Displayed(spy, spy).next_trial() is None
    assert spy.calls == []


def test_trials_that_end_while_the_next_is_looked_for_are_shown_once():
    spy = Spy(None)
    spy.record.ended["before"] = SimpleNamespace(trial="before")
    shown = Displayed(spy, spy)
    rows = {name: SimpleNamespace(trial=name) for name in ("paused for good", "invalid")}
    spy.ends_next = dict(rows)
    shown.next_trial(), shown.next_trial()
    assert spy.calls == [("ended", name, row) for name, row in rows.items()]


def test_an_error_is_described_by_its_first_line_and_by_its_type_where_it_is_not_ours():
    assert describe_error(ModelError("no such backbone\nsecond line")) == "no such backbone"
    assert describe_error(ValueError("bad\nworse")) == "ValueError: bad"
    assert describe_error(MemoryError()) == "MemoryError: MemoryError"


def test_a_run_folder_is_absolute_because_workers_have_their_own_working_directory():
    path = runs_path(StudyFolder(Path("results/x")), "abc-s0")
    assert path == Path.cwd() / "results" / "x" / "runs" / "abc-s0"
