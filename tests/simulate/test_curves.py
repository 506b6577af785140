"""Parametric learning curves: what each family promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from harness.config import apply_overrides, check_space, to_overrides
from harness.search import default_pick
from harness.search.values import random_pick
from harness.simulate import FAMILIES, ParametricCurves
from harness.simulate.black_box import black_box_space

SPACE = black_box_space()


def early_ranks(family: str, epoch: int) -> float:
    """Rank correlation of the score after an epoch with the last, mean over instances."""
    found = []
    for seed in range(6):
        curves, rng = ParametricCurves(SPACE, family, seed), np.random.default_rng(seed)
        scores = np.array([curves.curve(random_pick(SPACE, rng), 0).observed for _ in range(150)])
        found.append(spearmanr(scores[:, epoch - 1], scores[:, -1])[0])
    return float(np.mean(found))


def test_the_black_box_has_fifteen_parameters_five_of_them_conditional_and_thirty_epochs():
    assert len(SPACE.parameters) == 15
    assert sum(bool(parameter.when) for parameter in SPACE.parameters.values()) == 5
    assert SPACE.experiment.training.epochs == 30
    check_space(SPACE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_curve_follows_from_values_seed_and_instance(family):
    picked = random_pick(SPACE, np.random.default_rng(1))
    one, same = (ParametricCurves(SPACE, family, 3).curve(picked, 5) for _ in range(2))
    np.testing.assert_array_equal(one.observed, same.observed)
    other_seed, other_instance = (
        ParametricCurves(SPACE, family, 3).curve(picked, 6),
        ParametricCurves(SPACE, family, 4).curve(picked, 5),
    )
    np.testing.assert_array_equal(one.true, other_seed.true)
    assert not np.array_equal(one.observed, other_seed.observed)
    assert not np.array_equal(one.true, other_instance.true)


@pytest.mark.parametrize("family", FAMILIES)
def test_curves_rise_and_stay_below_one(family):
    curves, rng = ParametricCurves(SPACE, family, 0), np.random.default_rng(0)
    for _ in range(50):
        curve = curves.curve(random_pick(SPACE, rng), 0)
        assert len(curve.true) == 30 and (np.diff(curve.true) > 0).all()
        assert curve.true[-1] < 1 and 0.4 < curve.seconds < 2.1


def test_an_early_rank_says_much_in_smooth_less_in_cross_and_least_in_hard():
    smooth, cross, hard, power = (early_ranks(family, 3) for family in FAMILIES)
    assert smooth > 0.95 > cross > hard + 0.1
    assert hard > 0.2
    assert 0.6 < power < 0.95


def test_in_cross_some_trial_that_is_behind_at_first_ends_ahead():
    curves, rng = ParametricCurves(SPACE, "cross", 0), np.random.default_rng(0)
    true = np.array([curves.curve(random_pick(SPACE, rng), 0).true for _ in range(100)])
    assert np.argmax(true[:, 0]) != np.argmax(true[:, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_experiment_is_in_the_space_and_known_to_be_good(family):
    ranks = []
    for seed in range(10):
        curves, rng = ParametricCurves(SPACE, family, seed), np.random.default_rng(7)
        picked = default_pick(curves.space)
        assert apply_overrides(SPACE.experiment, to_overrides(SPACE, picked)) == curves.space.experiment
        others = np.array([curves.curve(random_pick(SPACE, rng), 0).true[-1] for _ in range(50)])
        ranks.append(np.mean(others < curves.curve(picked, 0).true[-1]))
    # the best of ten is better than ten in eleven, on average
    assert 0.85 < np.mean(ranks) < 1
