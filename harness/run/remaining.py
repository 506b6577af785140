"""How many epochs a study still needs."""

from __future__ import annotations

from collections.abc import Sequence


def epochs_left(
    under_way: Sequence[tuple[int, int]],
    unstarted: int,
    epochs: int,
    rungs: Sequence[tuple[int, int, int]],
    factor: int,
    pauses: bool,
) -> float:
    """Epochs that the trials under way and those not started will train, if 1/factor of them go on at each rung.

    Trials that fail, or end by their own patience, need fewer.

    Args:
        under_way: epochs finished, and planned, of each trial that runs.
        epochs: of a trial that nothing stops.
        rungs: rising; epoch, how many have reached it, and how many of those went on.
        pauses: whether a rung's share counts all that ever reached it, or only those still to come.
    """
    left, entering, begin = 0.0, float(unstarted), 0
    for end, reached, passed in [*rungs, (epochs, 0, 0)]:
        last = end == epochs
        inside = [(done, of) for done, of in under_way if begin <= done and (last or done < end)]
        left += entering * (end - begin) + sum(max(0, (of if last else min(of, end)) - done) for done, of in inside)
        arriving = entering + len(inside)
        entering = max(0.0, _share(reached + arriving, factor) - passed) if pauses else arriving / factor
        begin = end
    return left


def _share(trials: float, factor: int) -> float:
    """How many of a rung go on in the end: the best go on even where there are fewer than `factor`."""
    return max(1.0, trials // factor) if trials else 0.0
