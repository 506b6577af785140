"""Which parameters matter, with stopped trials counted where they were seen.

Trials of a search end at different epochs. To take a stopped trial's early score for a final one, or to leave it out,
gives wrong importances: the values that were stopped are the ones that the parameters' effects show in. So like is
compared with like: at every rung all trials that came there have a score at the same epoch; importance is computed
for each of these budgets alone, and combined with the numbers of trials as weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial
from scipy.stats import rankdata, spearmanr

from harness.config import Space
from harness.config.space import ChoiceParameter, FloatParameter, IntParameter, Parameter
from harness.report.html.importance_fanova import Grid, fanova
from harness.report.html.search_data import SearchData, SearchTrial
from harness.search.values import Picked, distributions, position

METHODS = ("fANOVA", "PED-ANOVA")
#: trials that a budget needs
LEAST_TRIALS = 10
#: ranks by which the methods differ, from which it is worth a word
RANKS_APART = 3
_CELLS = 16
#: with nine, of 40 studies of pure noise 6 had a parameter above all of them by fANOVA, 5 by PED-ANOVA
_SHUFFLES, _SHUFFLE_TREES = 9, 8
#: PED-ANOVA asks what tells the best tenth from the rest, and wants five trials in it at least
_BEST_SHARE, _BEST_LEAST = 0.1, 5


@dataclass(frozen=True)
class Budget:
    """Trials with their scores after the same training."""

    name: str
    picked: tuple[Picked, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class AtBudget:
    """One parameter's importance at one budget: its share, 0-1, by each of METHODS, among `trials` trials.

    `chance` is the most that any parameter has in several shuffles of the scores, on the same scale, 1 at most.
    """

    budget: str
    trials: int
    share: tuple[float, float]
    chance: tuple[float, float]


@dataclass(frozen=True)
class Importance:
    """One parameter's importance over all budgets; `subset` names the trials that have the parameter, if not all."""

    parameter: str
    subset: str
    budgets: tuple[AtBudget, ...]

    @property
    def share(self) -> tuple[float, float]:
        """Mean over the budgets, each weighted by its trials."""
        return self._mean([one.share for one in self.budgets])

    @property
    def chance(self) -> tuple[float, float]:
        return self._mean([one.chance for one in self.budgets])

    @property
    def above_chance(self) -> bool:
        """Whether either method gives it more than shuffled scores would."""
        return any(share > chance for share, chance in zip(self.share, self.chance, strict=True))

    def _mean(self, pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
        first, second = np.average(pairs, axis=0, weights=[one.trials for one in self.budgets])
        return float(first), float(second)


@dataclass(frozen=True)
class Agreement:
    """How the two methods order the parameters: Spearman's rank correlation, nan for fewer than three."""

    correlation: float
    ranks: Mapping[str, tuple[int, int]]

    @property
    def apart(self) -> dict[str, tuple[int, int]]:
        """The parameters whose ranks differ by RANKS_APART or more."""
        return {name: (a, b) for name, (a, b) in self.ranks.items() if abs(a - b) >= RANKS_APART}


def importances(data: SearchData) -> list[Importance]:
    """The importance of each parameter, the most important first; empty where no budget has enough trials.

    A parameter that exists only with some choices is judged among the trials that have it. The same data give the
    same numbers.
    """
    found = [_at_budget(budget, data.space, data.settings.seed) for budget in budgets(data)]
    names = [name for name in data.parameters if any(name in shares for shares in found)]
    judged = [
        Importance(name, _subset(data.space, name), tuple(shares[name] for shares in found if name in shares))
        for name in names
    ]
    return sorted(judged, key=lambda one: -sum(one.share))


def budgets(data: SearchData) -> list[Budget]:
    """Every rung with the trials that came there, then the end with those that ran to it; LEAST_TRIALS at least."""
    known = [trial for trial in data.trials if trial.picked]
    at_rungs = [
        _budget(f"epoch {rung}", [(t, score) for t in known if (score := t.score_at(rung)) is not None])
        for rung in data.rungs
    ]
    end = _budget("the end", [(t, t.last.score) for t in known if t.state == "complete" and t.last])
    return [budget for budget in (*at_rungs, end) if len(budget.scores) >= LEAST_TRIALS and np.ptp(budget.scores) > 0]


def agreement(found: Sequence[Importance]) -> Agreement:
    """How far the two methods agree."""
    shares = np.array([one.share for one in found]).reshape(-1, 2)
    ranks = np.stack([rankdata(-shares[:, i], method="min") for i in (0, 1)], axis=1).astype(int)
    varies = len(found) >= 3 and bool((np.ptp(shares, axis=0) > 0).all())
    correlation = float(spearmanr(shares[:, 0], shares[:, 1]).statistic) if varies else np.nan
    return Agreement(correlation, {one.parameter: (int(a), int(b)) for one, (a, b) in zip(found, ranks, strict=True)})


def _budget(name: str, scored: list[tuple[SearchTrial, float]]) -> Budget:
    return Budget(name, tuple(t.picked for t, _ in scored), np.array([score for _, score in scored]))


def _at_budget(budget: Budget, space: Space, seed: int) -> dict[str, AtBudget]:
    """The importance of each parameter that enough of the trials have."""
    having: dict[tuple[int, ...], list[str]] = {}
    for name in space.parameters:
        having.setdefault(tuple(i for i, picked in enumerate(budget.picked) if name in picked), []).append(name)
    found: dict[str, AtBudget] = {}
    for rows, names in having.items():
        scores = budget.scores[list(rows)]
        if len(rows) >= LEAST_TRIALS and np.ptp(scores) > 0:
            found |= _among([budget.picked[i] for i in rows], scores, names, space, seed, budget.name)
    return found


def _among(
    picked: list[Picked], scores: NDArray[np.float64], names: list[str], space: Space, seed: int, budget: str
) -> dict[str, AtBudget]:
    """The importance of `names` among trials that have them all, beside every other parameter that all of them have."""
    columns = [name for name in space.parameters if all(name in values for values in picked)]
    judge = _Judge([{name: values[name] for name in columns} for values in picked], space, seed)
    raw = judge.both(scores, trees=32)
    rng = np.random.default_rng(seed)
    shuffled = [judge.both(rng.permutation(scores), _SHUFFLE_TREES) for _ in range(_SHUFFLES)]
    sums = np.maximum(raw.sum(axis=1), 1e-12)
    chance = np.max(shuffled, axis=(0, 2)) / sums
    shares = raw / sums[:, None]
    return {
        name: AtBudget(budget, len(scores), _pair(shares[:, columns.index(name)]), _pair(np.minimum(chance, 1.0)))
        for name in names
    }


class _Judge:
    """Both methods on some trials that all have the same parameters, for one set of scores after another."""

    def __init__(self, picked: list[Picked], space: Space, seed: int) -> None:
        self.names, self.seed = list(picked[0]), seed
        parameters = [space.parameters[name] for name in self.names]
        self.grid = Grid(
            np.array([_cells(parameter) for parameter in parameters]),
            np.array([not isinstance(parameter, ChoiceParameter) for parameter in parameters]),
        )
        self.cells = np.array([[_cell(p, v) for p, v in zip(parameters, one.values(), strict=True)] for one in picked])
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(direction="maximize")
        held = distributions(space, picked[0])
        # the scores come with each question
        self.study.add_trials([create_trial(params=one, distributions=held, value=0.0) for one in picked])

    def both(self, scores: NDArray[np.float64], trees: int) -> NDArray[np.float64]:
        """Importances before any scaling, by method and parameter (2 P)."""
        return np.stack([fanova(self.cells, self.grid, scores, self.seed, trees), self._ped_anova(scores)])

    def _ped_anova(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Watanabe et al., PED-ANOVA, IJCAI 2023: how far the best trials' values differ from all trials' values."""
        quantile = min(0.5, max(_BEST_SHARE, _BEST_LEAST / len(scores)))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        with warnings.catch_warnings():
            # so many equal scores that the best are all: importances of 0, which is right
            warnings.filterwarnings("ignore", "Target and region quantiles select the same")
            # with scores of our own, low counts as good: hence the sign
            warnings.filterwarnings("ignore", ".*achieve low `target` values")
            found = evaluator.evaluate(self.study, self.names, target=lambda trial: -float(scores[trial.number]))
        return np.array([found[name] for name in self.names])


def _cells(parameter: Parameter) -> int:
    if isinstance(parameter, ChoiceParameter):
        return len(parameter.values())
    whole = isinstance(parameter, IntParameter) and not parameter.log
    return min(_CELLS, (parameter.high - parameter.low) // parameter.step + 1) if whole else _CELLS


def _cell(parameter: IntParameter | FloatParameter | ChoiceParameter, value: object) -> int:
    cells = _cells(parameter)
    at = position(parameter, value)
    return round(at * (cells - 1)) if isinstance(parameter, ChoiceParameter) else min(int(at * cells), cells - 1)


def _subset(space: Space, name: str) -> str:
    """The condition under which a parameter exists, in words; empty: always."""
    conditions = space.parameters[name].when.items()
    return " and ".join(f"{other} {' or '.join(map(str, labels))}" for other, labels in conditions)


def _pair(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
