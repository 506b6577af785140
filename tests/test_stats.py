"""Statistics against SciPy, hand-worked cases and the definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as reference

from harness.errors import StudyError
from harness.stats import (
    bootstrap_weights,
    hedges_correction,
    hedges_g,
    holm,
    holm_known,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    paired_p_value,
    percentile_interval,
    pooled_deviation,
    spread,
)

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
    for found in (mean_interval([0.4]), paired_difference([0.5], [0.1])):
        assert found.point == pytest.approx(0.4)
        assert np.isnan([found.low, found.high]).all()
    assert np.isnan(spread([0.4]))


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


def test_the_paired_p_value_is_scipys():
    other = [0.401, 0.391, 0.400, 0.407, 0.415]
    assert paired_p_value(SCORES, other) == pytest.approx(reference.ttest_rel(SCORES, other).pvalue)
    assert paired_p_value(SCORES[:2], other[:2]) == pytest.approx(reference.ttest_rel(SCORES[:2], other[:2]).pvalue)


def test_the_paired_p_value_agrees_with_the_interval_at_its_own_level():
    p = paired_p_value(SCORES, [0.40] * 5)
    assert paired_difference(SCORES, [0.40] * 5, 1 - p).low == pytest.approx(0, abs=1e-12)


def test_pairs_that_all_differ_alike_have_p_0_or_1_and_one_pair_has_none():
    assert paired_p_value([1.0, 2.0], [1.0, 2.0]) == 1
    assert paired_p_value([1.5, 2.5], [1.0, 2.0]) == 0
    assert np.isnan(paired_p_value([1.0], [0.0]))


def test_the_pooled_deviation_by_hand_and_as_the_residual_of_an_analysis_of_variance():
    # sums of squares 2 and 8 with 2 and 1 degrees of freedom; one value adds nothing
    assert pooled_deviation([[1, 2, 3], [0, 4], [7]]) == pytest.approx(np.sqrt(10 / 3))
    groups = np.random.default_rng(0).normal(size=(4, 6))
    between = 6 * ((groups.mean(axis=1) - groups.mean()) ** 2).sum() / 3
    assert between / pooled_deviation(groups) ** 2 == pytest.approx(reference.f_oneway(*groups).statistic)
    assert np.isnan(pooled_deviation([[1], [2]]))


def test_the_hedges_correction_by_hand_and_near_hedges_own_approximation():
    # gamma(1) / gamma(1/2), and sqrt(1/2) gamma(2) / gamma(3/2)
    assert hedges_correction(2) == pytest.approx(1 / np.sqrt(np.pi))
    assert hedges_correction(4) == pytest.approx(np.sqrt(2 / np.pi))
    for degrees in (10, 20, 50):
        assert hedges_correction(degrees) == pytest.approx(1 - 3 / (4 * degrees - 1), abs=5e-4)


def test_hedges_g_by_hand():
    # means 3 and 2, both variances 1, correction for 4 degrees of freedom
    assert hedges_g([2, 3, 4], [2, 1, 3]) == pytest.approx(np.sqrt(2 / np.pi))
    assert np.isnan(hedges_correction(1))
    assert np.isnan(hedges_g([2.0], [1.0])) and np.isnan(hedges_g([2.0, 2.0], [1.0, 1.0]))


def test_hedges_g_is_unbiased():
    a, b = np.random.default_rng(3).normal(size=(2, 4000, 4)) + np.array([1.5, 0.0])[:, None, None]
    found = [hedges_g(x, y) for x, y in zip(a, b, strict=True)]
    assert np.mean(found) == pytest.approx(1.5, abs=4 * np.std(found) / np.sqrt(4000))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.05 / 6, 0.8), (0.01, 0.9)])
def test_the_minimum_detectable_difference_has_its_power_by_the_noncentral_t(n, alpha, power):
    found = minimum_detectable_difference(0.02, n, alpha, power)
    critical = reference.t.isf(alpha / 2, n - 1)
    assert reference.nct.sf(critical, n - 1, found / 0.02 * np.sqrt(n)) == pytest.approx(power, abs=1e-4)


def test_the_minimum_detectable_difference_of_34_pairs_is_half_a_deviation():
    # Faul et al., G*Power 3 (2007): d_z 0.5, alpha 0.05, power 0.8 needs 34 pairs, and 33 are too few
    assert minimum_detectable_difference(1.0, 34) < 0.5 < minimum_detectable_difference(1.0, 33)
    assert np.isnan(minimum_detectable_difference(1.0, 1)) and np.isnan(minimum_detectable_difference(np.nan, 5))


def test_bootstrap_weights_draw_each_thing_as_often_as_chance_does():
    weights = bootstrap_weights(20, 3000, np.random.default_rng(0))
    assert weights.shape == (3000, 20)
    assert (weights.sum(axis=1) == 20).all() and (weights >= 0).all()
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.01)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_weights_give_scipys_percentile_interval(level):
    values = np.random.default_rng(1).gamma(2.0, size=40)
    draws = bootstrap_weights(40, 20_000, np.random.default_rng(2)) @ values / 40
    found = percentile_interval(values.mean(), draws, level)
    expected = reference.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert found.point == pytest.approx(values.mean())
    # two independent sets of resamples: a twenty-fifth of the interval is several standard errors
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.04 * (expected.high - expected.low))


def test_bootstrap_weights_repeat_with_the_same_generator_state_and_move_with_another():
    first, again, other = (bootstrap_weights(40, 10, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


def test_the_percentile_interval_leaves_draws_without_a_value_out():
    assert percentile_interval(2.0, [np.nan, 1.0, 2.0, 3.0, np.nan], 0.5) == pytest.approx((2.0, 1.5, 2.5))
    assert np.isnan(percentile_interval(np.nan, [np.nan])[1:]).all()


def test_holm_leaves_tests_that_there_were_not_out():
    found = holm_known([0.01, np.nan, 0.04])
    assert found[[0, 2]] == pytest.approx(holm([0.01, 0.04]))
    assert np.isnan(found[1])
    assert np.isnan(holm_known([np.nan, np.nan])).all()


@pytest.mark.parametrize("function", [paired_p_value, hedges_g])
def test_tests_of_pairs_of_two_lengths_are_refused(function):
    with pytest.raises(StudyError, match="3 and 2 values are not pairs"):
        function([0.1, 0.2, 0.3], [0.1, 0.2])


@pytest.mark.parametrize(("alpha", "power"), [(0, 0.8), (0.05, 1), (0.5, 0.4)])
def test_a_power_that_is_not_above_alpha_is_refused(alpha, power):
    with pytest.raises(StudyError, match=f"alpha {alpha} and power {power}: 0 < alpha < power < 1"):
        minimum_detectable_difference(0.01, 5, alpha, power)


@pytest.mark.parametrize(("items", "resamples"), [(0, 10), (10, 0)])
def test_weights_of_nothing_and_no_resamples_are_refused(items, resamples):
    with pytest.raises(StudyError, match=f"{items} items and {resamples} resamples: at least 1 of each is needed"):
        bootstrap_weights(items, resamples, np.random.default_rng(0))
