"""One model over all trials, whatever epoch they reached: the usual Optuna set-up, and the one to beat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState

from harness.config import Space
from harness.search.shadow import Shadow
from harness.search.values import Outcome, Picked, draws_of, random_pick

#: trials that Optuna's samplers draw at random before they model anything
STARTUP = 10


class OverAllValues:
    """A sampler of Optuna's that sees a complete trial by its best score and a stopped one by its last.

    Optuna's samplers know no priors: where the space has some, the random draws that they begin with are made here.
    """

    def __init__(self, space: Space, seed: int, make_sampler: Callable[[], BaseSampler]) -> None:
        self.space, self.seed = space, seed
        self.shadow = Shadow(space, make_sampler)
        self.last: dict[int, tuple[int, float]] = {}
        self._has_priors = any(parameter.prior is not None for parameter in space.parameters.values())

    def draw(self, number: int) -> Picked:
        """The sampler's next values."""
        if not (self._has_priors and number < STARTUP):
            return self.shadow.draw(number)
        picked = random_pick(self.space, draws_of(self.seed, number))
        self.started(number, picked)
        return picked

    def started(self, number: int, picked: Picked) -> None:
        """Its values are kept away from."""
        self.shadow.start(number, picked)

    def reported(self, number: int, epoch: int, score: float) -> None:
        """The last epoch stands for a trial that is stopped there."""
        self.last[number] = (epoch, score)

    def costs(self, number: int, cost: float) -> None:
        """Never called: it knows one objective."""

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

    def infeasible(self, number: int) -> None:
        """The sampler sees a trial that violates a constraint."""
        self.last.pop(number, None)
        self.shadow.refuse(number, self.shadow.under_way[number])


def tpe_values(space: Space, seed: int, started: int = 0) -> OverAllValues:
    """Tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011), from trial `started` on."""
    seeds = _seeds(seed, started)
    return OverAllValues(space, seed, lambda: TPESampler(n_startup_trials=STARTUP, seed=next(seeds)))


def gp_values(space: Space, seed: int, started: int = 0) -> OverAllValues:
    """A Gaussian process, from trial `started` on."""
    seeds = _seeds(seed, started)
    return OverAllValues(space, seed, lambda: GPSampler(n_startup_trials=STARTUP, seed=next(seeds)))


def _seeds(seed: int, started: int) -> Iterator[int]:
    """Of one source's samplers, which keep their random state to themselves: a resumed one has others."""
    return (found % 2**32 for found in itertools.count(seed + started, _STRIDE))


#: between the seeds of one source's samplers; a prime, so that no two small seeds meet
_STRIDE = 1_000_003
