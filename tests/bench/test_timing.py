from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from harness.bench.timing import Comparison, Side, compare, median_interval, ratio_interval


def test_sides_run_by_turns_after_one_warm_up_each_and_the_first_of_a_pair_changes() -> None:
    calls: list[str] = []
    result = compare(lambda: calls.append("ours"), lambda: calls.append("theirs"), pairs=3)
    assert calls == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert len(result.ours.seconds) == len(result.theirs.seconds) == 3


def test_a_speedup_is_the_median_of_the_ratios_within_pairs_without_the_warm_up() -> None:
    result = Comparison(Side(100.0, (1.0, 2.0, 4.0)), Side(100.0, (3.0, 8.0, 8.0)))
    assert result.speedup.point == 3.0  # of 3, 4 and 2
    assert (result.speedup.low, result.speedup.high) == (2.0, 4.0)


@pytest.mark.parametrize("n", [2, 5, 6, 8, 9, 17, 30])
def test_the_interval_of_a_median_is_the_narrowest_that_reaches_95_percent_or_the_whole_range(n: int) -> None:
    found = median_interval(list(range(n)))
    # P(rank <= Binomial(n, 1/2) - 1 <= n - 2 - rank): the median lies above `rank` values and below as many
    coverage = [binom(n, 0.5).cdf(n - 1 - rank) - binom(n, 0.5).cdf(rank) for rank in range((n + 1) // 2)]
    enough = [rank for rank, chance in enumerate(coverage) if chance >= 0.95]
    rank = max(enough, default=0)
    assert (found.low, found.high) == (rank, n - 1 - rank)
    assert found.level == pytest.approx(coverage[rank])


def test_one_value_has_no_interval() -> None:
    found = median_interval([3.0])
    assert found.point == 3.0 and np.isnan(found.low) and np.isnan(found.level)


def test_a_ratio_of_sums_lies_within_its_bootstrap_interval() -> None:
    found = ratio_interval([10.0, 20.0, 30.0], [1.0, 1.0, 1.0], np.random.default_rng(0))
    assert found.point == 20.0
    assert 10.0 <= found.low < 20.0 < found.high <= 30.0
    same = ratio_interval([4.0, 4.0], [2.0, 2.0], np.random.default_rng(0))
    assert (same.low, same.point, same.high) == (2.0, 2.0, 2.0)
    assert np.isnan(ratio_interval([4.0], [2.0], np.random.default_rng(0)).low)
