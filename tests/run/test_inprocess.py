"""The executor in this process: the trials it runs, failures, Ctrl-C."""

from __future__ import annotations

import pytest

from harness.ablate import Replicates
from harness.config import apply_overrides
from harness.run.inprocess import run_inprocess
from harness.run.study import Displayed
from harness.search import Search
from harness.store import StudyFolder

SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}


class Silent:
    """A display that shows nothing."""

    def started(self, trial):
        pass

    def epoch(self, row):
        pass

    def ended(self, trial_id, row):
        pass


class CtrlC(Silent):
    """Presses Ctrl-C after a number of epochs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def epoch(self, row):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def journals(folder: StudyFolder) -> tuple[list[dict], list[dict]]:
    return (
        [row.model_dump(exclude=SECONDS) for row in folder.trials.read()],
        [row.model_dump(exclude=SECONDS) for row in folder.epochs.read()],
    )


def new_folder(tmp_path, name: str) -> StudyFolder:
    (tmp_path / name).mkdir()
    return StudyFolder(tmp_path / name)


def test_a_search_runs_to_its_end_with_a_failed_trial_in_it(tiny_space, folder):
    run_inprocess(Search(folder, tiny_space(), seed=0))
    rows = folder.trials.read()
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0].outcome == "complete" and rows[0].epochs == 3
    failed = [row for row in rows if row.picked["batch"] == 9]
    assert failed and all(row.outcome == "failed" and "leaves no batch" in row.error for row in failed)
    assert all(row.outcome != "failed" for row in rows if row.picked["batch"] == 2)


def test_the_same_search_twice_writes_the_same_journals(tiny_space, tmp_path):
    folders = [new_folder(tmp_path, name) for name in "ab"]
    for folder in folders:
        run_inprocess(Search(folder, tiny_space(trials=3), seed=0))
    assert journals(folders[0]) == journals(folders[1])


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_search_interrupted_and_resumed_writes_the_journals_of_one_that_was_not(tiny_space, tmp_path, epochs):
    # only the default is proposed before the interruption: later draws follow the resumed sampler's seed
    lr = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2]}}
    whole, cut = new_folder(tmp_path, "whole"), new_folder(tmp_path, "cut")
    run_inprocess(Search(whole, tiny_space(lr, trials=1), seed=0))
    with pytest.raises(KeyboardInterrupt):
        run_inprocess(Displayed(Search(cut, tiny_space(lr, trials=1), seed=0), CtrlC(epochs)))
    assert len(cut.epochs.read()) == epochs
    run_inprocess(Search(cut, tiny_space(lr, trials=1), seed=0))
    assert journals(cut) == journals(whole)


def promoting(tiny_space, trials: int):
    """A search whose trials pause after their first epoch of three; the rates are good, so that none fails."""
    lr = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}
    # the default Experiment would be trained to its end
    return with_strategy(tiny_space(lr, trials=trials), "random_promote", default_first=False)


def with_strategy(space, strategy: str, **search):
    return space.model_copy(update={"search": apply_overrides(space.search, {"strategy": strategy} | search)})


def test_a_paused_trial_resumes_from_its_checkpoint_and_equals_one_that_ran_through(tiny_space, tmp_path):
    paused, through = new_folder(tmp_path, "paused"), new_folder(tmp_path, "through")
    space = promoting(tiny_space, trials=5)
    run_inprocess(Search(paused, space, seed=0))
    run_inprocess(Search(through, with_strategy(space, "random"), seed=0))
    rows = {row.trial: row for row in paused.trials.read()}
    assert {row.outcome for row in rows.values()} == {"complete", "stopped"}
    assert all(row.epochs == (3 if row.outcome == "complete" else 1) for row in rows.values())
    whole = {(row["trial"], row["epoch"]): row for row in journals(through)[1]}
    epochs = journals(paused)[1]
    assert len(epochs) == sum(row.epochs for row in rows.values())
    assert all(row == whole[row["trial"], row["epoch"]] for row in epochs)


@pytest.mark.parametrize("epochs", [2, 4, 5])
def test_a_search_that_pauses_trials_is_resumed_after_ctrl_c_and_ends_every_trial_once(tiny_space, tmp_path, epochs):
    whole, cut = new_folder(tmp_path, "whole"), new_folder(tmp_path, "cut")
    space = promoting(tiny_space, trials=4)
    run_inprocess(Search(whole, space, seed=0))
    with pytest.raises(KeyboardInterrupt):
        run_inprocess(Displayed(Search(cut, space, seed=0), CtrlC(epochs)))
    assert cut.trials.read() == []
    run_inprocess(Search(cut, space, seed=0))
    for folder in (whole, cut):
        rows = folder.trials.read()
        assert sorted(row.number for row in rows) == [0, 1, 2, 3]
        assert len(folder.epochs.read()) == sum(row.epochs for row in rows)
        assert max(row.epochs for row in rows) == 3


def test_replicates_train_every_seed_and_resume_after_an_interruption(tiny, tmp_path):
    whole, cut = new_folder(tmp_path, "whole"), new_folder(tmp_path, "cut")
    arms = {"tiny": tiny(training__epochs=2)}
    run_inprocess(Replicates(whole, arms, range(2)))
    with pytest.raises(KeyboardInterrupt):
        run_inprocess(Displayed(Replicates(cut, arms, range(2)), CtrlC(3)))
    assert len(cut.trials.read()) == 1
    run_inprocess(Replicates(cut, arms, range(2)))
    assert journals(cut) == journals(whole)
    assert [row.seed for row in whole.trials.read()] == [0, 1]
    assert len({row.score for row in whole.trials.read()}) == 2


def test_an_error_of_the_study_itself_stops_the_executor(tiny_space, folder, monkeypatch):
    search = Search(folder, tiny_space(trials=2), seed=0)

    def full_disk(row):
        raise OSError("No space left on device")

    monkeypatch.setattr(search, "on_epoch", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run_inprocess(search)
    assert folder.trials.read() == []
