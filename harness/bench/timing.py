"""Timing two sides against each other on a machine that is never quiet.

Both sides run by turns in one process, so that a slow minute hits both; what is compared is the ratio within
each turn. The first call of each side is a warm-up, timed apart and in no ratio.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from harness.bench.rows import Measured

#: confidence wanted of an interval, 0-1; with five pairs or less no interval of the median has it
LEVEL = 0.95


class Side(NamedTuple):
    """Seconds of the first call, and of each counted one."""

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


class Comparison(NamedTuple):
    """Two sides, timed by turns."""

    ours: Side
    theirs: Side

    @property
    def speedup(self) -> Measured:
        """How many times faster ours is: the median of theirs / ours over the pairs."""
        return median_interval([b / a for a, b in zip(self.ours.seconds, self.theirs.seconds, strict=True)])


def compare(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> Comparison:
    """Time both sides once to warm up and then `pairs` times, by turns, the side that goes first changing."""
    first = seconds_of(ours), seconds_of(theirs)
    taken: list[tuple[float, float]] = []
    for turn in range(pairs):
        if turn % 2:
            other = seconds_of(theirs)
            taken.append((seconds_of(ours), other))
        else:
            taken.append((seconds_of(ours), seconds_of(theirs)))
    mine, peer = zip(*taken, strict=True)
    return Comparison(Side(first[0], mine), Side(first[1], peer))


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call, seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def median_interval(values: Sequence[float], level: float = LEVEL) -> Measured:
    """Median with the order-statistics interval: the narrowest symmetric one that reaches `level`.

    It assumes nothing of the distribution. Where so few values cannot reach the level, the interval is the
    smallest to the largest value, with the confidence that this has: 1 - 2^(1-n).
    David and Nagaraja, Order Statistics (2003), section 7.1.
    """
    ordered = sorted(values)
    n, rank = len(ordered), 0
    if n == 1:
        return Measured(ordered[0])
    while _coverage(n, rank + 1) >= level:
        rank += 1
    return Measured(float(np.median(ordered)), ordered[rank], ordered[n - 1 - rank], _coverage(n, rank))


def _coverage(n: int, rank: int) -> float:
    """Chance that the median lies between the values of `rank` (from 0) from below and from above."""
    if 2 * rank >= n:
        return 0.0
    return 1 - 2 * sum(math.comb(n, k) for k in range(rank + 1)) / 2**n


def ratio_interval(
    above: Sequence[float], below: Sequence[float], generator: np.random.Generator, resamples: int = 10_000
) -> Measured:
    """Ratio of two sums over pairs with its percentile bootstrap interval over the pairs, at 95 %."""
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    point = float(top.sum() / bottom.sum())
    if len(top) == 1:
        return Measured(point)
    drawn = generator.integers(0, len(top), (resamples, len(top)))
    low, high = np.quantile(top[drawn].sum(1) / bottom[drawn].sum(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measured(point, float(low), float(high), LEVEL)
