"""Shapley values against the axioms and a hand-worked game."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from harness.ablate.designs import prefixes, shapley_orders
from harness.ablate.factorial import subsets
from harness.ablate.shapley import attribute, interaction_intervals, interactions, shapley, shapley_sampled
from harness.errors import StudyError

NAMES = ("a", "b", "c", "d")


def game(seed: int, factors=NAMES) -> dict[frozenset[str], float]:
    generator = np.random.default_rng(seed)
    return {s: float(generator.normal()) for s in subsets(factors)}


def gloves() -> dict[frozenset[str], float]:
    """a and b hold a left glove, c the right one: a pair is worth 1."""
    return {s: float("c" in s and len(s) > 1) for s in subsets("abc")}


def test_the_glove_game_by_hand():
    assert shapley(gloves(), "abc") == pytest.approx({"a": 1 / 6, "b": 1 / 6, "c": 4 / 6})


@pytest.mark.parametrize("seed", range(3))
def test_values_are_the_mean_gain_over_all_orders(seed):
    values = game(seed)
    orders = list(permutations(NAMES))
    expected = {
        f: np.mean([values[frozenset(o[: o.index(f) + 1])] - values[frozenset(o[: o.index(f)])] for o in orders])
        for f in NAMES
    }
    assert shapley(values, NAMES) == pytest.approx(expected)
    assert shapley_sampled(values, orders) == pytest.approx(expected)


def test_values_sum_to_the_total_gain_exact_or_sampled():
    values = game(1)
    total = values[frozenset(NAMES)] - values[frozenset()]
    assert sum(shapley(values, NAMES).values()) == pytest.approx(total)
    assert sum(shapley_sampled(values, shapley_orders(NAMES, 3)).values()) == pytest.approx(total)


def test_a_factor_that_never_changes_anything_has_0():
    values = game(2)
    values = {s: values[s - {"d"}] for s in values}
    assert shapley(values, NAMES)["d"] == 0
    assert shapley_sampled(values, shapley_orders(NAMES, 4))["d"] == 0


def test_two_factors_that_do_the_same_have_the_same():
    swap = {"a": "b", "b": "a"}
    values = game(3)
    values = {s: values[s] + values[frozenset(swap.get(f, f) for f in s)] for s in values}
    found = shapley(values, NAMES)
    assert found["a"] == pytest.approx(found["b"])
    assert found["a"] != pytest.approx(found["c"])


def test_values_of_a_sum_are_the_sum_of_the_values():
    one, two = game(4), game(5)
    both = shapley({s: one[s] + 2 * two[s] for s in one}, NAMES)
    assert both == pytest.approx({f: shapley(one, NAMES)[f] + 2 * shapley(two, NAMES)[f] for f in NAMES})


def test_more_sampled_orders_come_nearer_to_the_exact_values():
    factors = tuple("abcdefg")
    values, far = game(6, factors), {}
    exact = shapley(values, factors)
    for n in (2, 400):
        sampled = shapley_sampled(values, shapley_orders(factors, n))
        far[n] = max(abs(sampled[f] - exact[f]) for f in factors)
    assert far[400] < 0.25 < far[2]


def test_the_interaction_of_two_factors_is_what_they_add_together():
    values = {s: 3.0 * ("a" in s) + 2.0 * ({"a", "b"} <= s) for s in subsets(NAMES)}
    found = interactions(values, NAMES)
    assert found == pytest.approx({frozenset(p): 2.0 * (p == ("a", "b")) for p in combinations(NAMES, 2)})


def test_the_interaction_in_a_game_of_three_by_hand():
    # I(a, c) = (v(ac) - v(a) - v(c) + v()) / 2 + (v(abc) - v(ab) - v(bc) + v(b)) / 2
    assert interactions(gloves(), "abc") == pytest.approx(
        {frozenset("ac"): (1 + 0) / 2, frozenset("bc"): (1 + 0) / 2, frozenset("ab"): (0 + -1) / 2}
    )


def scores(rule, seeds=range(5), noise=0.01, names=NAMES, random=0):
    generator = np.random.default_rng(random)
    return {s: {seed: rule(s) + noise * generator.standard_normal() for seed in seeds} for s in subsets(names)}


def additive(s: frozenset[str]) -> float:
    return 0.3 + 0.4 * ("a" in s) + 0.2 * ("b" in s) - 0.1 * ("c" in s)


def test_shares_of_an_additive_study_are_those_that_were_planted():
    found = attribute(scores(additive), NAMES, np.random.default_rng(1))
    assert found.n == 5
    assert found.total.point == pytest.approx(0.5, abs=0.03)
    for row, value in zip(found.shares, (0.4, 0.2, -0.1, 0.0), strict=True):
        assert row.value.low < row.value.point < row.value.high
        assert row.value.point == pytest.approx(value, abs=0.02)
        assert row.share.point == pytest.approx(value / 0.5, abs=0.06)
        assert row.share.low < row.share.point < row.share.high
        assert row.order_error == 0
    assert sum(row.share.point for row in found.shares) == pytest.approx(1)


def test_values_of_the_mean_score_are_the_mean_of_those_of_each_seed():
    table = scores(additive, noise=0.3)
    found = attribute(table, NAMES, np.random.default_rng(1))
    mean = shapley({s: float(np.mean(list(v.values()))) for s, v in table.items()}, NAMES)
    assert {row.factor: row.value.point for row in found.shares} == pytest.approx(mean)


def test_there_are_no_shares_of_a_gain_that_is_not_told_from_0():
    level = scores(lambda s: 0.1 * ("a" in s) - 0.1 * ("b" in s))
    found = attribute(level, NAMES, np.random.default_rng(1))
    assert found.total.low < 0 < found.total.high
    assert np.isnan([row.share for row in found.shares]).all()
    assert found.shares[0].value.low > 0.05
    nothing = attribute(scores(lambda s: 0.5, seeds=[1], noise=0), NAMES, np.random.default_rng(1))
    assert np.isnan([row.share for row in nothing.shares]).all()


def test_one_seed_has_points_and_no_intervals():
    found = attribute(scores(additive, seeds=[7], noise=0), NAMES, np.random.default_rng(1))
    assert found.shares[0].value.point == pytest.approx(0.4)
    assert found.shares[0].share.point == pytest.approx(0.8)
    assert np.isnan([*found.shares[0].value[1:], *found.shares[0].share[1:], *found.total[1:]]).all()


def test_only_seeds_that_every_subset_has_are_used():
    table = scores(additive)
    table[frozenset("a")][99] = 1000.0
    del table[frozenset("b")][0]
    assert attribute(table, NAMES, np.random.default_rng(1)).n == 4


def test_sampled_orders_add_an_error_of_their_own():
    names = tuple("abcdefg")
    table = scores(lambda s: additive(s) + 0.2 * ({"a", "b"} <= s), names=names, noise=0)
    orders = shapley_orders(names, 12)
    needed = {s for order in orders for s in prefixes(order)}
    found = attribute({s: table[s] for s in needed}, names, np.random.default_rng(1), orders)
    errors = {row.factor: row.order_error for row in found.shares}
    # an order and its reverse give a and b half of what they do together each: the pairs agree exactly
    assert errors == pytest.approx(dict.fromkeys(names, 0.0), abs=1e-12)
    triple = scores(lambda s: float(frozenset("abc") <= s), names=names, noise=0)
    found = attribute({s: triple[s] for s in needed}, names, np.random.default_rng(1), orders)
    gains = np.array([[set(o[: o.index("a")]) >= {"b", "c"} for o in orders]]).reshape(6, 2).mean(axis=1)
    assert gains.std() > 0
    assert found.shares[0].order_error == pytest.approx(gains.std(ddof=1) / np.sqrt(6))
    one_pair = attribute(table, names, np.random.default_rng(1), orders[:2])
    assert np.isnan(one_pair.shares[0].order_error)


def test_interactions_have_intervals_over_seeds():
    found = interaction_intervals(scores(lambda s: additive(s) + 0.1 * ({"a", "b"} <= s)), NAMES)
    together = found[frozenset("ab")]
    assert 0 < together.low < 0.1 < together.high
    assert found[frozenset("cd")].low < 0 < found[frozenset("cd")].high


def test_a_missing_subset_is_refused():
    values = gloves()
    del values[frozenset("bc")]
    for function in (shapley, interactions):
        with pytest.raises(StudyError, match=r"1 subsets of factors have no score, the first \{b, c\}"):
            function(values, "abc")
    with pytest.raises(StudyError, match=r"the first \{b, c\}"):
        shapley_sampled(values, ["cba"])


def test_subsets_without_a_common_seed_are_refused():
    table = {s: {len(s): 0.5} for s in subsets("ab")}
    with pytest.raises(StudyError, match="4 subsets of factors have no seed in common"):
        attribute(table, "ab", np.random.default_rng(0))


def test_intervals_of_values_cover_in_95_percent_of_studies_of_three_seeds():
    hits = []
    for random in range(250):
        table = scores(additive, seeds=range(3), noise=0.1, names="abc", random=random)
        found = attribute(table, "abc", np.random.default_rng(1))
        hits += [r.value.low <= v <= r.value.high for r, v in zip(found.shares, (0.4, 0.2, -0.1), strict=True)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)
