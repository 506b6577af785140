"""Trials for which there was too little memory: every model of values learns where that is."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import Space
from harness.search import Search
from harness.search.parzen import MOST_OTHERS
from harness.search.proposals import Proposals
from harness.search.strategies import value_source
from harness.search.values import Source
from harness.store import Failure

BATCH = {
    "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    "batch": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 64, "log": True},
}
#: images that fit
ROOM = 16


def too_large(source: Source, trials: int, learns: bool) -> list[bool]:
    """Which trials did not fit, where the score rises with the batch up to what fits."""
    found = []
    for number in range(trials):
        picked = source.draw(number)
        found.append(picked["batch"] > ROOM)
        if not found[-1]:
            for epoch in (1, 3, 9):
                source.reported(number, epoch, picked["batch"] / 64)
            source.ended(number, "complete", picked["batch"] / 64)
        elif learns:
            source.infeasible(number)
        else:
            source.ended(number, "failed", None)
    return found


def source_of(strategy: str, make_space) -> Source:
    return value_source(make_space(BATCH, strategy=strategy), seed=0)


@pytest.mark.parametrize(("strategy", "trials", "last"), [("promote", 200, 100), ("tpe", 120, 60), ("gp_asha", 18, 7)])
def test_a_model_that_hears_of_them_draws_fewer_than_one_that_does_not(strategy, trials, last, make_space):
    ignored, learnt = (
        sum(too_large(source_of(strategy, make_space), trials, learns)[-last:]) for learns in (False, True)
    )
    assert learnt < 0.7 * ignored


# Optuna's Gaussian process, where no trial is feasible: noise of its own
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
@pytest.mark.parametrize("strategy", ["random", "promote", "tpe", "gp_asha"])
def test_a_search_in_which_nothing_fits_goes_on(strategy, make_space):
    source = source_of(strategy, make_space)
    for number in range(15):
        assert set(source.draw(number)) == {"lr", "batch"}
        source.infeasible(number)


def test_they_are_kept_away_from_as_the_worst_are_and_only_so_many_are_looked_at(make_space, monkeypatch):
    source = source_of("promote", make_space)
    seen = []
    for number in range(MOST_OTHERS + 40):
        source.started(number, {"lr": 0.001, "batch": 64 if number >= 20 else 8})
        if number < 20:
            source.reported(number, 1, 0.5)
        else:
            source.infeasible(number)
    monkeypatch.setattr("harness.search.model_per_rung.RANDOM_SHARE", 0)
    monkeypatch.setattr(
        "harness.search.model_per_rung.parzen_draw",
        lambda space, results, away, rng, known: seen.append((len(results), away)) or {"lr": 0.1, "batch": 1},
    )
    source.draw(1000)
    ((results, away),) = seen
    assert results == 20 and len(away) == MOST_OTHERS and {point[1] for point in away} == {1.0}


def violations(folder) -> list[tuple[TrialState, dict[str, float]]]:
    """As a plain Optuna study reads them."""
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.optuna}")
    return [(trial.state, trial.constraints) for trial in study.trials]


def fail(search: Search, error: str) -> None:
    search.on_end(search.next_trial().id, error)


def test_plain_optuna_reads_them_as_failed_with_a_violated_constraint_and_no_other_failure(make_space, folder):
    search = Search(folder, make_space(BATCH), seed=0)
    fail(search, Failure("too large", "memory"))
    fail(search, Failure("broken"))
    fail(search, "its worker died")
    assert violations(folder) == [
        (TrialState.FAIL, {"memory": 1.0}),
        (TrialState.FAIL, {}),
        (TrialState.FAIL, {}),
    ]
    assert [row.out_of_memory for row in folder.trials.read()] == [True, False, False]


@pytest.mark.parametrize("strategy", ["promote", "tpe"])
def test_a_resumed_search_tells_its_model_of_them_again(strategy, make_space, folder, monkeypatch):
    space: Space = make_space(BATCH, strategy=strategy)
    search = Search(folder, space, seed=0)
    fail(search, Failure("too large", "memory"))
    fail(search, "broken")
    told = []
    kind = type(search.proposals.source)
    for call in ("infeasible", "ended"):
        monkeypatch.setattr(kind, call, lambda self, number, *_, call=call: told.append((call, number)))

    Proposals(folder, space, 0)

    assert told == [("infeasible", 0), ("ended", 1)]
