"""Statistics of scores: arrays in, a point and its interval out.

Give one value per independent repetition (a seed, a drive). Scores of frames of one drive, or of epochs of
one run, are not independent, and their intervals come out too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, nctdtrinc, stdtr, stdtrit

from harness.errors import StudyError

#: pairs of seeds from which on an interval is Student's t, and not one over images
SEEDS_FOR_T = 3
#: of a bootstrap over images
RESAMPLES = 2000


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


def bootstrap_weights(items: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """How often each of `items` things is drawn in each resample: (resamples, items), every row sums to `items`.

    One set of weights serves all that was measured on the same things: `weights @ counts` with `counts`
    (items, ...) sums each resample, so that a score of sums (dataset mIoU) is resampled image by image, and two
    arms by the same images. Frames of one drive resemble each other, and such intervals come out too narrow.
    Raises StudyError where there is nothing to draw from, or resamples is below 1.
    """
    if items < 1 or resamples < 1:
        raise StudyError(f"{items} items and {resamples} resamples: at least 1 of each is needed")
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def percentile_interval(point: float, draws: ArrayLike, level: float = 0.95) -> Estimate:
    """A point with the percentile interval of its bootstrap draws (resamples,).

    Draws that are nan (a class that no drawn image holds) are left out; the ends are nan where all are.
    Raises StudyError where the level is not in (0, 1).
    """
    _check_level(level)
    known = np.asarray(draws, dtype=np.float64)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Estimate(float(point), np.nan, np.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(point), float(low), float(high))


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
    first, second = _pairs(a, b)
    return mean_interval(first - second, level)


def paired_p_value(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p value, in [0, 1], of Student's paired t test of `a` against `b` (n,), paired in order.

    One pair has no p value: nan. Differences that are all the same have 0, or 1 where they are all 0.
    Raises StudyError as paired_difference does.
    """
    first, second = _pairs(a, b)
    difference, n = first - second, len(first)
    if n == 1:
        return np.nan
    deviation, mean = spread(difference), float(difference.mean())
    if deviation == 0:
        return float(mean == 0)
    return float(2 * stdtr(n - 1, -abs(mean) / (deviation / np.sqrt(n))))


def pooled_deviation(groups: Iterable[ArrayLike]) -> float:
    """Standard deviation within groups, pooled over groups (n_i,), each with its own mean.

    Of scores by arm it is the noise floor: what another seed alone changes. nan where no group has two values.
    Raises StudyError where a group is empty, not a list or not finite.
    """
    samples = [_sample(group, "values of a group") for group in groups]
    degrees = sum(len(sample) - 1 for sample in samples)
    squares = sum(float(((sample - sample.mean()) ** 2).sum()) for sample in samples)
    return float(np.sqrt(squares / degrees)) if degrees else np.nan


def hedges_correction(degrees: int) -> float:
    """Factor that takes the small-sample bias out of a standardised difference; nan below 2 degrees of freedom.

    Hedges, Distribution theory for Glass's estimator of effect size, J. Educ. Statist. 6 (1981).
    """
    if degrees < 2:
        return np.nan
    return float(np.sqrt(2 / degrees) * np.exp(gammaln(degrees / 2) - gammaln((degrees - 1) / 2)))


def hedges_g(a: ArrayLike, b: ArrayLike) -> float:
    """Hedges' g_av of `a` against `b` (n,) paired: mean difference in units of their average spread, unbiased.

    The unit is the root of the mean of the two variances, so the number compares with unpaired studies and
    does not grow because seeds happen to move both arms together, as d_z does; the correction has 2 (n - 1)
    degrees of freedom. nan for one pair, and where neither varies.
    Raises StudyError as paired_difference does.
    Lakens, Calculating and reporting effect sizes, Front. Psychol. 4:863 (2013).
    """
    first, second = _pairs(a, b)
    unit = pooled_deviation([first, second])
    if not unit > 0:
        return np.nan
    return float((first - second).mean() / unit * hedges_correction(2 * (len(first) - 1)))


def minimum_detectable_difference(deviation: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean difference that a two-sided paired t test of n pairs finds with the given power.

    `deviation` is the standard deviation of the differences, and the result is in its unit. The chance of
    significance on the wrong side, below 1e-4, is left out. nan for one pair or an unknown deviation.
    Raises StudyError where alpha or power is not in (0, 1) or power is not above alpha.
    Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2, by the noncentral t.
    """
    if not 0 < alpha < power < 1:
        raise StudyError(f"alpha {alpha} and power {power}: 0 < alpha < power < 1; use 0.05 and 0.8")
    if n < 2:
        return np.nan
    critical = stdtrit(n - 1, 1 - alpha / 2)
    return float(nctdtrinc(n - 1, 1 - power, critical) * deviation / np.sqrt(n))


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


def holm_known(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm over the p values (m,) that are known: a nan is no test, counts for none and stays nan.

    Raises StudyError where a p value is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = holm(p[known])
    return adjusted


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _sample(a, "a"), _sample(b, "b")
    if len(first) != len(second):
        raise StudyError(
            f"{len(first)} and {len(second)} values are not pairs; give the same seeds in both, in one order"
        )
    return first, second


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise StudyError(f"{name} of shape {sample.shape}: a list of at least 1 number is needed; give one per seed")
    bad = int((~np.isfinite(sample)).sum())
    if bad:
        raise StudyError(f"{bad} of {sample.size} {name} are nan or infinite; leave them out, and say how many")
    return sample


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise StudyError(f"level {level} is not between 0 and 1; use 0.95 for 95 %")
