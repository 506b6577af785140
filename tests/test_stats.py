"""Statistics against SciPy, hand-worked cases and the definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as reference

from harness.errors import StudyError
from harness.stats import bootstrap_interval, holm, mean_interval, paired_difference, spread

SCORES = [0.412, 0.398, 0.421, 0.405, 0.433]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_the_mean_interval_is_students_t(level):
    found = mean_interval(SCORES, level)
    expected = reference.t.interval(level, df=4, loc=np.mean(SCORES), scale=reference.sem(SCORES))
    assert found.point == pytest.approx(np.mean(SCORES))
    assert (found.low, found.high) == pytest.approx(expected)


def test_two_values_at_95_percent_reach_12_706_standard_errors():
    found = mean_interval([0.0, 2.0])
    assert found.high - found.point == pytest.approx(12.706, abs=5e-4)


def test_one_value_has_a_point_and_no_interval():
    generator = np.random.default_rng(0)
    for found in (
        mean_interval([0.4]),
        bootstrap_interval([0.4], generator),
        paired_difference([0.5], [0.1]),
    ):
        assert found.point == pytest.approx(0.4)
        assert np.isnan([found.low, found.high]).all()
    assert np.isnan(spread([0.4]))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_bootstrap_interval_is_scipys_percentile_interval(level):
    values = np.random.default_rng(1).gamma(2.0, size=40)
    found = bootstrap_interval(values, np.random.default_rng(2), level, resamples=4000)
    expected = reference.bootstrap(
        (values,),
        np.mean,
        n_resamples=4000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert found.point == pytest.approx(values.mean())
    # Two independent sets of 4000 resamples: a twentieth of the interval is several standard errors.
    assert (found.low, found.high) == pytest.approx(
        tuple(expected), abs=0.05 * (expected.high - expected.low)
    )


def test_the_bootstrap_repeats_with_the_same_generator_state_and_moves_with_another():
    values = np.random.default_rng(1).gamma(2.0, size=40)
    first, again, other = (bootstrap_interval(values, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_the_spread_is_the_sample_standard_deviation():
    assert spread([1.0, 2.0, 3.0, 6.0]) == pytest.approx(np.sqrt(14 / 3))
    assert spread(SCORES) == pytest.approx(reference.tstd(SCORES))


def test_the_paired_difference_is_scipys_paired_t_interval():
    other = [0.401, 0.391, 0.400, 0.407, 0.415]
    found = paired_difference(SCORES, other, level=0.9)
    expected = reference.ttest_rel(SCORES, other).confidence_interval(0.9)
    assert found.point == pytest.approx(np.mean(SCORES) - np.mean(other))
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_equal_pairs_differ_by_nothing():
    assert paired_difference(SCORES, SCORES) == (0, 0, 0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_one_p_value_is_that_value():
    assert holm([0.2]).tolist() == [0.2]


@pytest.mark.parametrize("seed", range(4))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    p = np.random.default_rng(seed).beta(0.5, 3, 6)
    p[5] = p[0]
    # A hypothesis is rejected when Bonferroni rejects every intersection that contains it.
    expected = [
        max(
            min(1.0, size * min(p[list(subset)]))
            for size in range(1, 7)
            for subset in combinations(range(6), size)
            if i in subset
        )
        for i in range(6)
    ]
    assert holm(p) == pytest.approx(expected)


def test_holm_never_exceeds_bonferroni_and_never_undercuts_benjamini_hochberg():
    p = np.random.default_rng(9).random(12) ** 3
    adjusted = holm(p)
    assert (adjusted <= np.minimum(12 * p, 1) + 1e-12).all()
    assert (adjusted >= reference.false_discovery_control(p) - 1e-12).all()


@pytest.mark.parametrize("function", [mean_interval, spread, holm])
def test_no_values_are_refused(function):
    with pytest.raises(StudyError, match=r"of shape \(0,\): a list of at least 1 number is needed"):
        function([])


def test_a_table_in_place_of_a_list_is_refused_with_its_shape():
    with pytest.raises(StudyError, match=r"values of shape \(2, 1\)"):
        mean_interval([[0.1], [0.2]])


def test_a_nan_is_refused_in_place_of_a_nan_mean():
    with pytest.raises(StudyError, match="1 of 3 values are nan or infinite"):
        mean_interval([0.1, np.nan, 0.3])


def test_pairs_of_two_lengths_are_refused():
    with pytest.raises(StudyError, match="3 and 2 values are not pairs"):
        paired_difference([0.1, 0.2, 0.3], [0.1, 0.2])


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_outside_zero_to_one_is_refused(level):
    with pytest.raises(StudyError, match=f"level {level} is not between 0 and 1; use 0.95 for 95 %"):
        mean_interval(SCORES, level)


def test_a_p_value_above_one_is_refused():
    with pytest.raises(StudyError, match=r"p values from 0\.1 to 5: they lie in \[0, 1\]"):
        holm([0.1, 5])


def test_no_resamples_are_refused():
    with pytest.raises(StudyError, match="0 resamples: at least 1 is needed; use 10000"):
        bootstrap_interval(SCORES, np.random.default_rng(0), resamples=0)
