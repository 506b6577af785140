"""One model over all trials, whatever epoch they reached: the usual Optuna set-up, and the one to beat."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState

from harness.config import Space
from harness.search.shadow import Shadow
from harness.search.values import Outcome, Picked


class OverAllValues:
    """A sampler of Optuna's that sees a complete trial by its best score and a stopped one by its last."""

    def __init__(self, space: Space, make_sampler: Callable[[], BaseSampler]) -> None:
        self.shadow = Shadow(space, make_sampler)
        self.last: dict[int, tuple[int, float]] = {}

    def draw(self, number: int) -> Picked:
        """The sampler's next values."""
        return self.shadow.draw(number)

    def started(self, number: int, picked: Picked) -> None:
        """Its values are kept away from."""
        self.shadow.start(number, picked)

    def reported(self, number: int, epoch: int, score: float) -> None:
        """The last epoch stands for a trial that is stopped there."""
        self.last[number] = (epoch, score)

    def ended(self, number: int, outcome: Outcome, score: float | None) -> None:
        """The sampler sees the trial from now on, unless it failed."""
        epoch, last_score = self.last.pop(number, (0, None))
        picked = self.shadow.under_way[number]
        if outcome == "complete" and score is not None:
            self.shadow.finish(number, picked, score)
        elif outcome == "stopped" and last_score is not None:
            self.shadow.finish(number, picked, last_score, TrialState.PRUNED, epoch)
        else:
            self.shadow.drop(number)


def tpe_values(space: Space, seed: int) -> OverAllValues:
    """Tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011)."""
    seeds = itertools.count(seed, _STRIDE)
    return OverAllValues(space, lambda: TPESampler(seed=next(seeds) % 2**32))


def gp_values(space: Space, seed: int) -> OverAllValues:
    """A Gaussian process."""
    seeds = itertools.count(seed, _STRIDE)
    return OverAllValues(space, lambda: GPSampler(seed=next(seeds) % 2**32))


#: between the seeds of one source's samplers; a prime, so that no two small seeds meet
_STRIDE = 1_000_003
