"""The real search in virtual time."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from harness.config.space import Strategy
from harness.simulate import ParametricCurves, simulate
from harness.simulate.curves import Curve


class Constant:
    """Curves of one second an epoch and a score that grows with the learning rate alone."""

    def __init__(self, space) -> None:
        self.space = space

    def curve(self, picked, seed) -> Curve:
        scores = np.linspace(0, picked["lr"], self.space.experiment.training.epochs)
        return Curve(scores, scores, 1.0)


def run(curves, workers: int = 3, **more):
    return simulate(curves.space, curves, workers, seed=0, **more)


@pytest.mark.parametrize("strategy", [s for s in get_args(Strategy) if s != "gp_asha"])
def test_a_simulated_study_ends_with_all_its_trials(strategy, make_curves):
    trace = run(make_curves(strategy=strategy))
    assert trace.trials == 20
    assert 20 <= trace.epochs <= 20 * 9
    assert (trace.epochs == 20 * 9) == (strategy in ("tpe", "random"))
    assert 0 < trace.true[-1] < 1 and trace.seconds > 0


@pytest.mark.parametrize("strategy", ["promote", "asha"])
def test_the_same_seed_gives_the_same_trace(strategy, make_curves):
    one, same = (run(make_curves(strategy=strategy)) for _ in range(2))
    assert (one.true, one.seconds) == (same.true, same.seconds)


@pytest.mark.parametrize("strategy", ["promote", "asha", "random"])
def test_memory_and_disk_give_the_same_trace(strategy, make_curves):
    curves = make_curves(strategy=strategy)
    assert run(curves).true == run(curves, on_disk=True).true


def test_workers_run_at_the_same_virtual_time(make_curves):
    space = make_curves(strategy="random", trials=12).space
    curves = Constant(space)
    assert run(curves, workers=1).seconds == 12 * 9
    assert run(curves, workers=4).seconds == 3 * 9
    assert run(curves, workers=12).seconds == run(curves, workers=1000).seconds == 9


def test_a_budget_ends_the_study_at_that_epoch(make_curves):
    curves = make_curves(strategy="promote", trials=1000)
    assert run(curves, max_epochs=57).epochs == 57


def test_the_score_is_the_true_one_of_the_highest_observed(make_curves):
    class Lying(Constant):
        def curve(self, picked, seed):
            true = np.linspace(0.1, 0.2, self.space.experiment.training.epochs)
            return Curve(true, -true, 1.0)

    # observed falls: the first epoch stays the one to hand over
    assert run(Lying(make_curves(strategy="random", trials=2).space)).true == [0.1] * 18


def test_a_hundred_workers_promote_what_ten_do_not_lose(make_curves):
    trace = run(make_curves(strategy="promote", trials=150), workers=100)
    assert trace.trials == 150
    assert set(trace.calls) == {"next_trial", "on_epoch", "on_end"}
    # every start and every promotion is a call that found a trial
    assert len(trace.calls["next_trial"]) > 150


def test_the_curves_space_is_the_searchs(make_curves):
    curves = make_curves()
    assert isinstance(curves, ParametricCurves)
    assert curves.space.search.trials == 20
