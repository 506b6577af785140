"""Effects against SciPy and hand-worked matrices, and how often verdicts are right in simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from harness.ablate.effects import class_deltas, compare, compare_ladder, scores_of, straddling
from harness.errors import StudyError
from harness.stats import holm, minimum_detectable_difference

SCORES = {
    "baseline": {1: 0.41, 2: 0.40, 3: 0.42, 4: 0.405},
    "up": {1: 0.51, 2: 0.49, 3: 0.53, 4: 0.505},
    "down": {1: 0.21, 2: 0.21, 3: 0.22, 4: 0.20},
    "same": {1: 0.405, 2: 0.41, 3: 0.415, 4: 0.41},
}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def table(*arms, seeds=5, floor=0.01, generator, means=()):
    """Scores of arms whose seeds vary by `floor` around 0.5 + mean."""
    shifts = np.array([*means, *[0.0] * (len(arms) - len(means))])
    draws = generator.normal(0.5, floor, (len(arms), seeds)) + shifts[:, None]
    return {arm: dict(enumerate(row)) for arm, row in zip(arms, draws.tolist(), strict=True)}


def test_an_effect_is_scipys_paired_t_test():
    up, down, same = compare(SCORES, "baseline", rng(), alpha=0.1)
    assert [e.arm for e in (up, down, same)] == ["up", "down", "same"]
    for effect in (up, down, same):
        a, b = (list(SCORES[name].values()) for name in (effect.arm, "baseline"))
        test = reference.ttest_rel(a, b)
        assert (effect.against, effect.n, effect.interval) == ("baseline", 4, "t over seeds")
        assert effect.p == pytest.approx(test.pvalue)
        assert effect.difference == pytest.approx((np.mean(a) - np.mean(b), *test.confidence_interval(0.9)))
        assert effect.score.point == pytest.approx(np.mean(a))
    assert [e.verdict for e in (up, down, same)] == ["better", "worse", "not resolved"]
    assert [e.p_holm for e in (up, down, same)] == pytest.approx(holm([e.p for e in (up, down, same)]).tolist())


def test_the_noise_floor_and_what_can_be_resolved_are_the_studys_own():
    effects = compare(SCORES, "baseline", rng())
    values = np.array([list(s.values()) for s in SCORES.values()])
    floor = np.sqrt(values.var(axis=1, ddof=1).mean())
    assert [e.noise_floor for e in effects] == pytest.approx([floor] * 3)
    deviation = np.sqrt((values[1:] - values[0]).var(axis=1, ddof=1).mean())
    expected = minimum_detectable_difference(deviation, 4, alpha=0.05 / 3)
    assert [e.resolvable for e in effects] == pytest.approx([expected] * 3)


def test_only_seeds_of_both_arms_are_paired_and_the_score_has_them_all():
    scores = {"baseline": {1: 0.4, 2: 0.5, 3: 0.6}, "raced": {3: 0.62, 4: 0.9, 2: 0.51, 1: 0.43}}
    (effect,) = compare(scores, "baseline", rng())
    assert effect.n == 3
    assert effect.difference.point == pytest.approx(0.02)
    assert effect.score.point == pytest.approx((0.62 + 0.9 + 0.51 + 0.43) / 4)


def test_one_seed_without_matrices_has_a_difference_and_nothing_more():
    (effect,) = compare({"baseline": {1: 0.4}, "x": {1: 0.5}}, "baseline", rng())
    assert effect.difference.point == pytest.approx(0.1)
    unknown = [*effect.difference[1:], effect.p, effect.p_holm, effect.g, effect.noise_floor, effect.resolvable]
    assert np.isnan(unknown).all()
    assert (effect.interval, effect.verdict) == ("none", "not resolved")


def test_an_arm_with_one_seed_costs_the_others_no_alpha():
    scores = SCORES | {"late": {1: 0.9}}
    effects = {e.arm: e for e in compare(scores, "baseline", rng())}
    without = {e.arm: e for e in compare(SCORES, "baseline", rng())}
    assert np.isnan(effects["late"].p_holm)
    assert effects["up"].p_holm == without["up"].p_holm
    assert effects["up"].resolvable == without["up"].resolvable


def test_a_ladder_compares_each_rung_with_the_one_before():
    effects = compare_ladder(SCORES, ["baseline", "up", "same"], rng())
    assert [(e.arm, e.against) for e in effects] == [("up", "baseline"), ("same", "up")]
    assert [e.verdict for e in effects] == ["better", "worse"]
    assert [e.p_holm for e in effects] == pytest.approx(holm([e.p for e in effects]).tolist())


# two images, two classes and the column of predictions that are no class
GOOD = np.array([[[8, 0, 0], [0, 4, 0]], [[6, 2, 0], [0, 4, 0]]])
POOR = np.array([[[4, 4, 0], [0, 4, 0]], [[6, 2, 0], [4, 0, 0]]])


def frames(images: int, hit: float, seed: int) -> np.ndarray:
    """Matrices of 100 pixels of each of two classes, about `hit` of them right, some images harder than others."""
    generator = np.random.default_rng(seed)
    right = generator.binomial(100, np.clip(hit + 0.1 * generator.standard_normal((images, 2)), 0, 1))
    found = np.zeros((images, 2, 3), dtype=np.int64)
    found[:, 0, 0], found[:, 1, 1] = right.T
    found[:, 0, 1], found[:, 1, 0] = 100 - right.T
    return found


def test_scores_of_matrices_by_hand():
    # GOOD: classes 14 of 16 and 8 of 10. POOR: 10 of 20 and 4 of 14
    expected = {"good": {1: (14 / 16 + 8 / 10) / 2}, "poor": {1: (10 / 20 + 4 / 14) / 2}}
    found = scores_of({"good": {1: GOOD}, "poor": {1: POOR}})
    assert found["good"][1] == pytest.approx(expected["good"][1])
    assert found["poor"][1] == pytest.approx(expected["poor"][1])


def test_with_few_seeds_the_interval_is_over_the_same_resampled_images():
    matrices = {"baseline": {1: frames(40, 0.6, 1)}, "x": {1: frames(40, 0.7, 2)}}
    scores = scores_of(matrices)
    (effect,) = compare(scores, "baseline", rng(), matrices)
    assert effect.interval == "bootstrap over images"
    assert effect.difference.point == pytest.approx(scores["x"][1] - scores["baseline"][1])

    def difference(indices):
        parts = {arm: {1: m[1][indices.astype(int)]} for arm, m in matrices.items()}
        found = scores_of(parts)
        return found["x"][1] - found["baseline"][1]

    expected = reference.bootstrap(
        (np.arange(40),),
        difference,
        vectorized=False,
        n_resamples=1500,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = expected.high - expected.low
    assert tuple(effect.difference[1:]) == pytest.approx(tuple(expected), abs=0.08 * width)
    assert effect.score.low < effect.score.point < effect.score.high


def test_an_interval_over_images_settles_no_verdict():
    # far apart on every image, but one training each: another seed could turn it
    matrices = {"baseline": {1: frames(40, 0.2, 1)}, "x": {1: frames(40, 0.9, 2)}}
    (effect,) = compare(scores_of(matrices), "baseline", rng(), matrices)
    assert effect.difference.low > 0
    assert effect.verdict == "not resolved"


def test_two_seeds_have_an_interval_over_images_and_a_p_value_over_seeds():
    matrices = {"b": {s: frames(30, 0.6, s) for s in (1, 2)}, "x": {s: frames(30, 0.7, 10 + s) for s in (1, 2)}}
    scores = scores_of(matrices)
    (effect,) = compare(scores, "b", rng(), matrices)
    assert effect.interval == "bootstrap over images"
    assert effect.p == pytest.approx(reference.ttest_rel(list(scores["x"].values()), list(scores["b"].values())).pvalue)


def test_equal_models_differ_by_exactly_nothing_on_every_resample():
    matrices = {"baseline": {1: frames(20, 0.6, 1)}, "x": {1: frames(20, 0.6, 1)}}
    (effect,) = compare(scores_of(matrices), "baseline", rng(), matrices)
    assert effect.difference == (0, 0, 0)


def test_one_image_has_no_interval():
    matrices = {"baseline": {1: POOR[:1]}, "x": {1: GOOD[:1]}}
    (effect,) = compare(scores_of(matrices), "baseline", rng(), matrices)
    assert np.isnan([*effect.difference[1:], *effect.score[1:]]).all()
    assert np.isnan(class_deltas(matrices, "baseline", rng())["x"][0][1:]).all()


def test_with_three_seeds_the_interval_is_over_seeds_although_there_are_matrices():
    matrices = {arm: {s: frames(20, 0.6, 10 * s + i) for s in (1, 2, 3)} for i, arm in enumerate("bx")}
    (effect,) = compare(scores_of(matrices), "b", rng(), matrices)
    assert effect.interval == "t over seeds"


def test_class_deltas_by_hand_and_nan_for_a_class_that_the_truth_lacks():
    # a third class: never true, predicted once by each
    wide = [np.insert(np.pad(m, ((0, 0), (0, 1), (0, 0))), 2, 0, axis=2) for m in (POOR, GOOD)]
    for m in wide:
        m[0, 0, 2] += 1
        m[0, 0, 0] -= 1
    found = class_deltas({"poor": {1: wide[0]}, "good": {1: wide[1]}}, "poor", rng())
    assert list(found) == ["good"]
    assert [e.point for e in found["good"][:2]] == pytest.approx([13 / 16 - 9 / 20, 8 / 10 - 4 / 14])
    assert np.isnan(found["good"][2]).all()
    assert found["good"][0].low <= found["good"][0].point <= found["good"][0].high


def test_class_deltas_are_the_mean_over_shared_seeds():
    matrices = {"poor": {1: POOR, 2: GOOD, 9: GOOD}, "good": {1: GOOD, 2: GOOD, 3: POOR}}
    found = class_deltas(matrices, "poor", rng())["good"]
    assert [e.point for e in found] == pytest.approx([(14 / 16 - 10 / 20) / 2, (8 / 10 - 4 / 14) / 2])


def test_a_rare_class_leaves_the_resamples_without_it_out():
    # class 1 is on the first image only: a third of the resamples lack it
    rare = np.array([[[5, 5, 0], [2, 8, 0]]] + [[[10, 0, 0], [0, 0, 0]]] * 2)
    best = np.array([[[10, 0, 0], [0, 10, 0]]] + [[[10, 0, 0], [0, 0, 0]]] * 2)
    delta = class_deltas({"b": {1: rare}, "x": {1: best}}, "b", rng())["x"][1]
    assert delta == pytest.approx((1 - 8 / 15, 1 - 8 / 15, 1 - 8 / 15))


def test_arms_that_deserve_seeds_are_those_not_resolved_the_nearest_first():
    scores = SCORES | {
        "wide": {1: 0.30, 2: 0.60, 3: 0.50, 4: 0.55},
        "once": {1: 0.5},
        "exact": {1: 0.4101, 2: 0.3999, 3: 0.4201, 4: 0.4049},
    }
    effects = compare(scores, "baseline", rng())
    assert straddling(effects) == ["wide", "same", "exact", "once"]
    assert straddling(effects, negligible=0.001) == ["wide", "same", "once"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_arm_that_may_be_much_better_or_much_worse_is_not_negligible(sign):
    shifts = dict(enumerate((0.01, 0.06, 0.04, 0.025), 1))
    scores = {"baseline": SCORES["baseline"], "x": {s: v + sign * shifts[s] for s, v in SCORES["baseline"].items()}}
    (effect,) = compare(scores, "baseline", rng(), alpha=0.01)
    near, far = sorted([sign * effect.difference.low, sign * effect.difference.high])
    assert -0.05 < near < 0.05 < far
    assert straddling([effect], negligible=0.05) == ["x"]


def test_an_unknown_reference_or_rung_is_refused_with_the_nearest_one():
    with pytest.raises(StudyError, match="arm 'basline' is not among those given; did you mean 'baseline'?"):
        compare(SCORES, "basline", rng())
    with pytest.raises(StudyError, match="arm 'upp' is not among"):
        compare_ladder(SCORES, ["baseline", "upp"], rng())


def test_arms_without_a_shared_seed_are_refused_with_their_seeds():
    with pytest.raises(StudyError, match=r"arm 'x' has seeds \[2\] and 'b' has \[1\]: they share none"):
        compare({"b": {1: 0.4}, "x": {2: 0.4}}, "b", rng())


def test_a_score_by_another_rule_than_its_matrices_is_refused():
    matrices = {"b": {1: GOOD}, "x": {1: POOR}}
    with pytest.raises(StudyError, match="arm 'x', seed 1: the score 0.700000 is not the mIoU 0.392857 of its"):
        compare(scores_of(matrices) | {"x": {1: 0.7}}, "b", rng(), matrices)


def test_missing_matrices_are_refused_with_the_arm_and_the_seed():
    with pytest.raises(StudyError, match="arm 'x', seed 1: no confusion matrices"):
        compare({"b": {1: scores_of({"b": {1: GOOD}})["b"][1]}, "x": {1: 0.4}}, "b", rng(), {"b": {1: GOOD}})


def test_arms_on_different_images_or_classes_are_refused():
    with pytest.raises(StudyError, match="different numbers of images .*'b, seed 1': 2, 'x, seed 1': 1"):
        class_deltas({"b": {1: GOOD}, "x": {1: GOOD[:1]}}, "b", rng())
    with pytest.raises(StudyError, match="arm 'x' has 1 classes and 'b' has 2"):
        class_deltas({"b": {1: GOOD}, "x": {1: GOOD[:, :1, :2]}}, "b", rng())


SIMULATIONS = 600


def test_an_effect_of_three_noise_floors_is_found_with_five_seeds():
    generator = np.random.default_rng(11)
    verdicts = [
        compare(table("b", "x", generator=generator, means=(0, 0.03)), "b", generator)[0].verdict
        for _ in range(SIMULATIONS)
    ]
    # measured 0.95; the noncentral t gives 0.952
    assert verdicts.count("better") / SIMULATIONS >= 0.9
    assert "worse" not in verdicts


def test_an_effect_as_large_as_the_study_can_resolve_is_found_in_about_80_percent():
    generator = np.random.default_rng(12)
    size = minimum_detectable_difference(0.01 * np.sqrt(2), 5, alpha=0.05 / 6)
    found = [
        compare(table("b", *"uvwxyz", generator=generator, means=(0, size)), "b", generator)[0].verdict == "better"
        for _ in range(SIMULATIONS)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("seeds", [3, 5])
def test_six_arms_that_change_nothing_are_resolved_in_at_most_5_percent_of_studies(seeds):
    generator = np.random.default_rng(13)
    studies = (table("b", *"uvwxyz", seeds=seeds, generator=generator) for _ in range(SIMULATIONS))
    false = [any(e.verdict != "not resolved" for e in compare(study, "b", generator)) for study in studies]
    # three standard errors of a rate of 0.05
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_one_arm_that_changes_nothing_is_not_resolved_in_95_percent_of_studies(seeds):
    generator = np.random.default_rng(14)
    quiet = [
        compare(table("b", "x", seeds=seeds, generator=generator), "b", generator)[0].verdict == "not resolved"
        for _ in range(SIMULATIONS)
    ]
    assert np.mean(quiet) == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / SIMULATIONS))
