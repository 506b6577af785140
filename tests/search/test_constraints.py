"""Constraints of a search: what breaks one is stopped at once, never wins, and is the same after a resume."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import Experiment, read_section
from harness.config.space import Constraints
from harness.errors import ConfigError
from harness.search import Search
from harness.search.constraints import too_large, violation
from harness.simulate.executor import MemoryFolder

BATCH = {
    "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    "batch": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 64, "log": True},
}
ALL = {"parameters": {"max": 30e6}, "ms_per_image": {"max": 25}, "peak_memory_mb": {"max": 4096.0}}


def limits(**given: dict) -> Constraints:
    return Constraints.model_validate({name: {"max": float(limit["max"])} for name, limit in given.items()})


def parameters_of(experiment: Experiment) -> int:
    """As if the batch made the model: a million for each image."""
    return 1_000_000 * experiment.training.batch_size


@pytest.fixture
def measured(row):
    """A row with what was measured; three images, so a second is 333 ms each."""

    def make(trial: str, epoch: int, score: float = 0.5, done: bool = False, **values):
        return row(trial, epoch, score, done).model_copy(update=values)

    return make


# ---- what breaks one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parameters": 41_200_000}, "infeasible: 41.2e6 parameters > 30e6"),
        ({"parameters": 30_000_000}, None),
        ({"train_seconds": 3.0, "images": 100}, "infeasible: 30 ms of training per image > 25"),
        ({"train_seconds": 2.5, "images": 100}, None),
        ({"peak_memory_mb": 5120.5}, "infeasible: 5120.5 MB of peak GPU memory > 4096"),
        ({"peak_memory_mb": None}, None),
        ({"train_seconds": 9.0, "images": 0}, None),
    ],
)
def test_an_epoch_breaks_a_constraint_where_it_is_above_it(values, message, measured):
    values = {"train_seconds": 0.1, "images": 100} | values
    assert violation(limits(**ALL), measured("t", 1, **values)) == message


def test_a_slow_epoch_after_the_first_says_nothing_and_memory_counts_in_all(measured):
    slow, large = {"train_seconds": 9.0, "images": 100}, {"peak_memory_mb": 9000.0, "train_seconds": 0.1}
    assert violation(limits(**ALL), measured("t", 2, **slow)) is None
    assert "9000 MB" in violation(limits(**ALL), measured("t", 2, **large))


def test_without_constraints_nothing_is_infeasible(measured):
    everything = {"parameters": 10**12, "train_seconds": 1e9, "peak_memory_mb": 1e9}
    assert violation(Constraints(), measured("t", 1, **everything)) is None
    assert too_large(Constraints(), 10**12) is None


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"parameters": {"max": 0}}, r"search\.constraints\.parameters\.max: .*greater than 0"),
        ({"params": {"max": 1}}, r"search\.constraints.*params.*did you mean 'parameters'"),
        ({"parameters": 30e6}, r"search\.constraints\.parameters"),
    ],
)
def test_constraints_that_make_no_sense_are_refused(constraints, message, make_space):
    with pytest.raises(ConfigError, match=message):
        make_space(constraints=constraints)


# ---- what becomes of the trial -------------------------------------------------------------------------------


def stored(folder) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.optuna}").trials


def test_a_model_that_is_too_large_is_not_trained_at_all(make_space, folder):
    space = make_space(BATCH, trials=30, constraints={"parameters": {"max": 16e6}})
    search = Search(folder, space, seed=0, count_parameters=parameters_of)
    trained = []
    while (trial := search.next_trial()) is not None:
        trained.append(trial.experiment.training.batch_size)
    rows = folder.trials.read()
    assert len(trained) + len(rows) == 30 and rows and max(trained) <= 16
    assert {row.outcome for row in rows} == {"infeasible"} and all(row.epochs == 0 for row in rows)
    large = rows[0].picked["batch"]
    assert rows[0].error == f"infeasible: {large}e6 parameters > 16e6" and large > 16
    found = stored(folder)[rows[0].number]
    assert (found.state, found.constraints) == (TrialState.FAIL, {"limit": 1.0})


def test_a_trial_that_breaks_one_in_its_first_epoch_stops_there_and_never_wins(make_space, folder, measured):
    search = Search(folder, make_space(BATCH, constraints={"peak_memory_mb": {"max": 1000}}), seed=0)
    greedy, modest = search.next_trial(), search.next_trial()
    assert not search.on_epoch(measured(greedy.id, 1, 0.9, peak_memory_mb=1001.0))
    ended = search.on_end(greedy.id)
    assert (ended.outcome, ended.error) == ("infeasible", "infeasible: 1001 MB of peak GPU memory > 1000")
    # its score is no rival at the rung either
    assert search.on_epoch(measured(modest.id, 1, 0.1, peak_memory_mb=900.0))
    search.on_epoch(measured(modest.id, 9, 0.2, done=True, peak_memory_mb=900.0))
    search.on_end(modest.id)
    assert [row.trial for row in search.record.ranking()] == [modest.id]
    assert read_section(Experiment, folder.best) == modest.experiment


def test_an_infeasible_trial_is_not_promoted(make_space, folder, measured):
    space = make_space(BATCH, trials=3, strategy="random_promote", constraints={"peak_memory_mb": {"max": 1000}})
    search = Search(folder, space, seed=0)
    trials = [search.next_trial() for _ in range(3)]
    for trial, memory in zip(trials, (2000.0, 10.0, 10.0), strict=True):
        assert not search.on_epoch(measured(trial.id, 1, memory, peak_memory_mb=memory))
        search.on_end(trial.id)
    assert set(search.paused) == {trials[1].id, trials[2].id}
    assert search.next_trial().id in search.running and trials[0].id not in search.running


@pytest.mark.parametrize("strategy", ["promote", "tpe"])
def test_the_model_hears_of_it_and_forgets_its_score(strategy, make_space, folder, measured, monkeypatch):
    space = make_space(BATCH, strategy=strategy, constraints={"peak_memory_mb": {"max": 1000}})
    search = Search(folder, space, seed=0)
    told, kind = [], type(search.proposals.source)
    infeasible = kind.infeasible
    monkeypatch.setattr(kind, "infeasible", lambda self, number: (told.append(number), infeasible(self, number)))
    trial = search.next_trial()
    search.on_epoch(measured(trial.id, 1, 0.9, peak_memory_mb=1001.0))
    search.on_end(trial.id)
    Search(folder, space, seed=0)
    assert told == [0, 0]
    if strategy == "promote":
        assert not any(search.proposals.source.results.values())


def test_a_crash_is_a_failure_whatever_it_broke(make_space, folder, measured):
    search = Search(folder, make_space(BATCH, constraints={"peak_memory_mb": {"max": 1000}}), seed=0)
    trial = search.next_trial()
    search.on_epoch(measured(trial.id, 1, peak_memory_mb=1001.0))
    assert search.on_end(trial.id, "killed").outcome == "failed"


# ---- resuming ------------------------------------------------------------------------------------------------


def drive(search: Search, measured, upto: int) -> None:
    """So many trials to their end, or to what stops them; memory grows with the batch."""
    for _ in range(upto):
        trial = search.next_trial()
        if trial is None:
            return
        batch = trial.experiment.training.batch_size
        epoch = max(1, len(search.record.epochs.get(trial.id, [])))
        while search.on_epoch(measured(trial.id, epoch, batch / 64, epoch == 9, peak_memory_mb=100.0 * batch)):
            epoch += 1
        search.on_end(trial.id)


@pytest.mark.parametrize("strategy", ["random_asha", "promote"])
def test_a_resumed_search_draws_and_decides_as_an_undisturbed_one(strategy, make_space, tmp_path, measured):
    opened = {}
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        opened[name] = MemoryFolder(tmp_path / name), optuna.storages.InMemoryStorage()

    constraints = {"peak_memory_mb": {"max": 1600}, "parameters": {"max": 32e6}}
    space = make_space(BATCH, trials=40, strategy=strategy, constraints=constraints)

    def search(name: str) -> Search:
        folder, storage = opened[name]
        return Search(folder, space, 0, storage=storage, count_parameters=parameters_of)

    drive(search("whole"), measured, 1000)
    for _ in range(30):
        drive(search("cut"), measured, 4)

    def ends(name: str) -> list[tuple]:
        rows = sorted(opened[name][0].trials.read(), key=lambda r: r.number)
        return [(r.number, r.trial, r.outcome, r.picked, r.score, r.epochs, r.error) for r in rows]

    assert ends("cut") == ends("whole")
    assert {end[2] for end in ends("whole")} >= {"infeasible", "complete"}


def test_a_kill_between_the_epoch_and_the_end_makes_it_infeasible_when_resumed(make_space, folder, measured):
    space = make_space(BATCH, constraints={"peak_memory_mb": {"max": 1000}})
    search = Search(folder, space, seed=0)
    trial = search.next_trial()
    search.on_epoch(measured(trial.id, 1, peak_memory_mb=1001.0))
    Search(folder, space, seed=0)
    assert [(r.trial, r.outcome) for r in folder.trials.read()] == [(trial.id, "infeasible")]
    resumed = Search(folder, space, seed=0)
    assert len(folder.trials.read()) == 1
    assert resumed.rule.rungs == {1: {}, 3: {}}


def test_a_row_of_it_that_was_lost_is_written_again_as_infeasible(make_space, folder, measured):
    space = make_space(BATCH, constraints={"peak_memory_mb": {"max": 1000}})
    search = Search(folder, space, seed=0)
    trial = search.next_trial()
    search.on_epoch(measured(trial.id, 1, peak_memory_mb=1001.0))
    search.on_end(trial.id)
    folder.trials.path.unlink()
    Search(folder, space, seed=0)
    assert [(r.trial, r.outcome) for r in folder.trials.read()] == [(trial.id, "infeasible")]
