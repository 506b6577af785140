"""The soak: what counts as growth, and what journals and storage are held against each other for."""

from __future__ import annotations

import optuna
import pytest

from harness.bench.soak import Effort, consistency_row, growth_row, soak_space
from harness.search import Search
from harness.store import StudyFolder


def test_growth_is_the_last_quarter_of_the_epochs_against_the_second_in_mebibytes():
    # the first quarter is that of imports and caches, the third belongs to neither side
    values = [(0, 1 * 2**20), (25, 100 * 2**20), (49, 102 * 2**20), (60, 999 * 2**20), (75, 110 * 2**20)]
    row = growth_row("memory", [*values, (100, 112 * 2**20)], "MiB", "note")
    assert row.value.point == pytest.approx(111 / 101)
    assert (row.ours, row.theirs, row.pairs) == ("111 MiB", "101 MiB before", 2)


def test_open_files_are_counted_as_they_are():
    row = growth_row("files", [(25, 40), (75, 60)], "", "note")
    assert (row.ours, row.theirs, row.value.point) == ("60", "40 before", 1.5)


def test_journals_and_storage_agree_until_one_of_them_lacks_a_row(tmp_path):
    folder = StudyFolder(tmp_path)
    search = Search(folder, soak_space(Effort(trials=2, size=(32, 48))), seed=0)
    while (trial := search.next_trial()) is not None:
        search.on_end(trial.id, error="made up")
    assert consistency_row(folder, trials=2).value.point == 0
    assert consistency_row(folder, trials=3).value.point == 1
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.optuna}")
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    assert consistency_row(folder, trials=2).value.point == 1
