"""Shapley values: each factor's fair share of the gain from none to all, and what pairs add.

A value function maps every set of factors that are on to a score. Shapley values are linear in it, so those of
the mean score are the mean of those of each seed, and intervals come from one value per seed.
Shapley, A value for n-person games (1953).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from harness.ablate.designs import prefixes
from harness.ablate.factorial import subsets
from harness.errors import StudyError
from harness.stats import RESAMPLES, Estimate, bootstrap_weights, mean_interval, percentile_interval, spread

Subset = frozenset[str]
SubsetScores = Mapping[Subset, Mapping[int, float]]

_NOTHING = 1e-9


@dataclass(frozen=True)
class FactorShare:
    """A factor's Shapley value, in the unit of the score, and its share of the total gain (may be below 0).

    `value` has Student's t interval over seeds, `share` the joint bootstrap's over seeds, too narrow with few.
    `share` is nan where the total gain is not told from 0: a share of nothing has no meaning.
    `order_error` is the standard error that comes from drawing orders of factors; 0 where all subsets were run,
    nan where fewer than two pairs of orders were drawn.
    """

    factor: str
    value: Estimate
    share: Estimate
    order_error: float


@dataclass(frozen=True)
class Attribution:
    """The total gain from none to all, with Student's t interval over `n` seeds, and how factors share in it."""

    n: int
    total: Estimate
    shares: tuple[FactorShare, ...]


def shapley(values: Mapping[Subset, float], factors: Sequence[str]) -> dict[str, float]:
    """Exact Shapley value of each factor from the values of all 2^k subsets; they sum to the total gain.

    Raises StudyError where a subset is missing.
    """
    _check_subsets(values, subsets(factors))
    return {f: sum(w * (values[s | {f}] - values[s]) for s, w in _others(factors, [f])) for f in factors}


def shapley_sampled(values: Mapping[Subset, float], orders: Sequence[Sequence[str]]) -> dict[str, float]:
    """Shapley values estimated as the mean gain of adding each factor in the given orders.

    They sum to the total gain exactly; each is unbiased over random orders.
    Raises StudyError where a prefix of an order is missing.
    Castro, Gomez and Tejada, Polynomial calculation of the Shapley value, Comput. Oper. Res. 36 (2009).
    """
    _check_subsets(values, (s for order in orders for s in prefixes(order)))
    return {f: float(np.mean([_gain(values, order, f) for order in orders])) for f in orders[0]}


def interactions(values: Mapping[Subset, float], factors: Sequence[str]) -> dict[Subset, float]:
    """Pairwise Shapley interaction index: what two factors add together beyond what each adds alone.

    Raises StudyError where a subset is missing.
    Grabisch and Roubens, An axiomatic approach to the concept of interaction, Int. J. Game Theory 28 (1999).
    """
    _check_subsets(values, subsets(factors))
    return {
        frozenset([i, j]): sum(
            w * (values[s | {i, j}] - values[s | {i}] - values[s | {j}] + values[s])
            for s, w in _others(factors, [i, j])
        )
        for i, j in combinations(factors, 2)
    }


def attribute(
    scores: SubsetScores,
    factors: Sequence[str],
    generator: np.random.Generator,
    orders: Sequence[Sequence[str]] | None = None,
    alpha: float = 0.05,
) -> Attribution:
    """Shapley values and shares with intervals from scores by subset and seed.

    `orders` is what the design drew where not every subset was run. Only seeds that every subset has are used.
    Raises StudyError where a subset is missing, or no seed is in all of them.
    """
    by_seed = _by_seed(scores)
    none, every = frozenset(), frozenset(factors)
    _check_subsets(scores, [none, every])
    total = np.array([values[every] - values[none] for values in by_seed])
    found = [shapley(v, factors) if orders is None else shapley_sampled(v, orders) for v in by_seed]
    values = np.array([[phi[f] for f in factors] for phi in found])
    shares = _shares(values, total, generator, 1 - alpha)
    mean_scores = {s: float(np.mean([v[s] for v in by_seed])) for s in by_seed[0]}
    rows = [
        FactorShare(f, mean_interval(values[:, i], 1 - alpha), shares[i], _order_error(mean_scores, orders, f))
        for i, f in enumerate(factors)
    ]
    return Attribution(len(by_seed), mean_interval(total, 1 - alpha), tuple(rows))


def interaction_intervals(scores: SubsetScores, factors: Sequence[str], alpha: float = 0.05) -> dict[Subset, Estimate]:
    """Pairwise interaction indices with Student's t intervals over the seeds that every subset has.

    Raises StudyError as attribute does.
    """
    found = [interactions(values, factors) for values in _by_seed(scores)]
    return {pair: mean_interval([index[pair] for index in found], 1 - alpha) for pair in found[0]}


def _others(factors: Sequence[str], players: Sequence[str]) -> Iterable[tuple[Subset, float]]:
    """Every subset of the other factors with its weight: 1 over how many there are of its size, and of sizes."""
    rest = [f for f in factors if f not in players]
    m = len(rest)
    for s in subsets(rest):
        yield s, factorial(len(s)) * factorial(m - len(s)) / factorial(m + 1)


def _gain(values: Mapping[Subset, float], order: Sequence[str], factor: str) -> float:
    before = frozenset(order[: list(order).index(factor)])
    return values[before | {factor}] - values[before]


def _by_seed(scores: SubsetScores) -> list[dict[Subset, float]]:
    """A value function for each seed that every subset has."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in scores.values()))) if scores else []
    if not seeds:
        raise StudyError(f"{len(scores)} subsets of factors have no seed in common; run them all with the same seeds")
    return [{s: by_seed[seed] for s, by_seed in scores.items()} for seed in seeds]


def _shares(
    values: NDArray[np.float64], total: NDArray[np.float64], generator: np.random.Generator, level: float
) -> list[Estimate]:
    """Share of the total (n,) of each factor's values (n, k): a ratio of means, its seeds drawn jointly."""
    gain = mean_interval(total, level)
    if abs(gain.point) < _NOTHING or gain.low <= 0 <= gain.high:
        return [Estimate(np.nan, np.nan, np.nan)] * values.shape[1]
    points = values.mean(axis=0) / gain.point
    if len(total) == 1:
        return [Estimate(point, np.nan, np.nan) for point in points.tolist()]
    weights = bootstrap_weights(len(total), RESAMPLES, generator)
    sums = weights @ total
    # a resample without a gain has no share; it is left out
    draws = (weights @ values) / np.where(sums == 0, np.nan, sums)[:, None]
    return [percentile_interval(point, column, level) for point, column in zip(points.tolist(), draws.T, strict=True)]


def _order_error(values: Mapping[Subset, float], orders: Sequence[Sequence[str]] | None, factor: str) -> float:
    """Standard error over antithetic pairs of orders, whose two members are not independent."""
    if orders is None:
        return 0.0
    gains = np.array([_gain(values, order, factor) for order in orders])
    pairs = [gains[i : i + 2].mean() for i in range(0, len(gains), 2)]
    return spread(pairs) / np.sqrt(len(pairs))


def _check_subsets(values: Mapping[Subset, object], needed: Iterable[Subset]) -> None:
    missing = [s for s in dict.fromkeys(needed) if s not in values]
    if missing:
        raise StudyError(
            f"{len(missing)} subsets of factors have no score, the first {{{', '.join(sorted(missing[0]))}}}; "
            "run the arms that are missing"
        )
