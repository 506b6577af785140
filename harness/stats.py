"""Statistics of scores: arrays in, a point and its interval out.

Give one value per independent repetition (a seed, a drive). Scores of frames of one drive, or of epochs of
one run, are not independent, and their intervals come out too narrow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from harness.errors import StudyError


class Estimate(NamedTuple):
    """A point with the ends of its interval, in the unit of the values; the ends are nan where n = 1."""

    point: float
    low: float
    high: float


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean with Student's t interval; `values` (n,) independent.

    One value has no spread, so its interval is nan: unknown, not narrow.
    Raises StudyError where the values are empty, not a list or not finite, or the level is not in (0, 1).
    """
    sample = _sample(values, "values")
    _check_level(level)
    point, n = float(sample.mean()), len(sample)
    if n == 1:
        return Estimate(point, np.nan, np.nan)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * spread(sample) / np.sqrt(n)
    return Estimate(point, float(point - half), float(point + half))


def bootstrap_interval(
    values: ArrayLike, generator: np.random.Generator, level: float = 0.95, resamples: int = 10_000
) -> Estimate:
    """Mean with the percentile bootstrap interval; `values` (n,) independent.

    With few values it is too narrow: at level 0.95 it covers a normal mean 84 % of the time with n = 5, 94 %
    with n = 30 (3000 simulated samples each). The ends are nan for one value.
    Raises StudyError as mean_interval does, and where resamples is below 1.
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    sample = _sample(values, "values")
    _check_level(level)
    if resamples < 1:
        raise StudyError(f"{resamples} resamples: at least 1 is needed; use 10000")
    point, n = float(sample.mean()), len(sample)
    if n == 1:
        return Estimate(point, np.nan, np.nan)
    means = sample[generator.integers(0, n, (resamples, n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(point, float(low), float(high))


def spread(values: ArrayLike) -> float:
    """Sample standard deviation (divisor n - 1) of `values` (n,); nan for one value.

    Raises StudyError where the values are empty, not a list or not finite.
    """
    sample = _sample(values, "values")
    return float(sample.std(ddof=1)) if len(sample) > 1 else np.nan


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a - b with Student's t interval of the differences; `a` and `b` (n,) paired in order, by seed.

    Raises StudyError where the lengths differ, and as mean_interval does.
    """
    first, second = _sample(a, "a"), _sample(b, "b")
    if len(first) != len(second):
        raise StudyError(
            f"{len(first)} and {len(second)} values are not pairs; give the same seeds in both, in one order"
        )
    return mean_interval(first - second, level)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p values (m,) for m comparisons by Holm's step-down rule, in the order given, in [0, 1].

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection at most alpha.
    Raises StudyError where the p values are empty, not a list, not finite or not in [0, 1].
    Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """
    p = _sample(p_values, "p values")
    if p.min() < 0 or p.max() > 1:
        raise StudyError(f"p values from {p.min():g} to {p.max():g}: they lie in [0, 1]; give probabilities")
    order = np.argsort(p)
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise StudyError(
            f"{name} of shape {sample.shape}: a list of at least 1 number is needed; give one per seed"
        )
    bad = int((~np.isfinite(sample)).sum())
    if bad:
        raise StudyError(
            f"{bad} of {sample.size} {name} are nan or infinite; leave them out, and say how many"
        )
    return sample


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise StudyError(f"level {level} is not between 0 and 1; use 0.95 for 95 %")
