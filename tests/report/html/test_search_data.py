"""What a search's page starts from: every trial with its state, its values and its costs."""

from __future__ import annotations

import pytest

from harness.config import dump_yaml
from harness.errors import ConfigError
from harness.report.html.search_data import read_search_data
from harness.search import Search
from harness.store import StudyFolder, write_text


def test_every_trial_stands_at_its_number_with_its_state(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [0.2, 0.4, 0.3])
    search.trial({"lr": 0.02, "dice": 1.0}, [0.1], "stopped")
    search.trial({"lr": 0.03, "dice": 1.0}, [], "failed")
    search.trial({"lr": 0.04, "dice": 1.0}, [0.5], None)
    data = search.read()
    assert [t.state for t in data.trials] == ["complete", "stopped", "failed", "going"]
    assert [t.number for t in data.trials] == [0, 1, 2, None]
    assert [t.name for t in data.trials] == ["trial 0", "trial 1", "trial 2", "trial t3"]
    assert data.rows.keys() == {0, 1, 2}
    assert [t.trial for t in data.of("stopped", "failed")] == ["t1", "t2"]


def test_scores_and_costs_of_a_trial_are_those_of_its_epochs(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [0.2, 0.4, 0.3], train_seconds=6.0, val_seconds=1.0, images=200)
    trial = search.read().trials[0]
    assert (trial.score, trial.best.epoch, trial.last.score, trial.ran) == (0.4, 2, 0.3, 3)
    assert [trial.score_at(epoch) for epoch in (1, 2, 3, 4)] == [0.2, 0.4, 0.3, None]
    # 18 s of training over 600 images
    assert trial.ms_per_image == pytest.approx(30.0)
    assert (trial.seconds, trial.parameters, trial.peak_memory_mb) == (21.0, 1_234_567, 512.0)


def test_a_trial_without_an_epoch_has_neither_score_nor_cost(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [], "failed")
    trial = search.read().trials[0]
    assert (trial.score, trial.last, trial.ms_per_image, trial.parameters, trial.peak_memory_mb) == (None,) * 5
    assert (trial.ran, trial.seconds) == (0, 0)


def test_the_ranking_has_complete_trials_first_and_no_failures(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [0.9], "stopped")
    search.trial({"lr": 0.01, "dice": 1.1}, [0.2])
    search.trial({"lr": 0.01, "dice": 1.2}, [0.3])
    search.trial({"lr": 0.01, "dice": 1.3}, [0.99], "failed")
    assert [t.number for t in search.read().ranked] == [2, 1, 0]


@pytest.mark.parametrize(("strategy", "rungs"), [("random_asha", (1, 3)), ("promote", (1, 3)), ("random", ())])
def test_rungs_are_those_of_the_strategy(search_of, strategy: str, rungs: tuple[int, ...]) -> None:
    assert search_of(epochs=9, strategy=strategy).read().rungs == rungs


def test_kinds_tell_numbers_logarithms_and_choices_apart(search_of) -> None:
    parameters = {
        "a": {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 1.0},
        "b": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 8},
        "c": {"kind": "int", "field": "training.epochs", "low": 1, "high": 8, "log": True},
        "d": {"kind": "choice", "field": "model.stride", "choices": [4, 8]},
    }
    assert search_of(parameters).read().kinds == {"a": "float", "b": "int", "c": "log", "d": "choice"}


def test_planned_epochs_follow_the_trial_where_the_space_varies_them(search_of) -> None:
    search = search_of({"epochs": {"kind": "int", "field": "training.epochs", "low": 3, "high": 30}}, epochs=9)
    search.trial({"epochs": 5}, [0.1] * 5)
    search.trial({"epochs": 30}, [0.1] * 3, "stopped")
    assert [t.planned for t in search.read().trials] == [5, 30]


def test_a_trial_under_way_has_the_number_and_the_values_that_the_search_stored(search_of) -> None:
    made = search_of(strategy="random_promote", default_first=False)
    made.read()
    search = Search(made.folder, made.space, seed=3)
    trial = search.next_trial()
    search.on_epoch(made.row(trial.id, 1, 0.5))
    found = read_search_data(made.folder).trials
    stored = search.proposals.storage.get_all_trials(search.proposals._study_id)[0].params
    assert [(t.trial, t.number, t.state, t.picked) for t in found] == [(trial.id, 0, "going", stored)]
    assert set(stored) == {"lr", "dice"}
    search.proposals.storage._backend.engine.dispose()


def test_whose_time_was_spent_is_read_from_the_provenance(search_of) -> None:
    search = search_of()
    assert search.read().device == ("GPU", 1.0)
    write_text(search.folder.provenance, '{"resources": {"gpus_per_trial": 0, "cpus_per_trial": 2}}')
    assert read_search_data(search.folder).device == ("CPU core", 2.0)
    search.folder.provenance.unlink()
    assert read_search_data(search.folder).device == ("", 1.0)


def test_a_search_without_a_trial_is_empty_and_not_an_error(search_of) -> None:
    data = search_of().read()
    assert (data.trials, data.journal, data.ended, data.ranked) == ((), (), (), ())


def test_the_score_is_named_as_the_protocol_asks(search_of) -> None:
    assert search_of().read().score_title == "validation mIoU"


def test_a_folder_of_another_kind_of_study_is_refused(tmp_path) -> None:
    write_text(tmp_path / "study.yaml", dump_yaml({"kind": "replicates", "arms": {}, "dataset": "x"}))
    with pytest.raises(ConfigError, match="space"):
        read_search_data(StudyFolder(tmp_path))
