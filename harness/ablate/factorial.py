"""Two-level factorial designs: which combinations to run, what they confound, and the effects they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from harness.config import did_you_mean
from harness.errors import ConfigError, StudyError
from harness.stats import Estimate, holm_known

Scores = Mapping[str, Mapping[int, float]]

#: up to this many factors a factorial design is laid out
FACTORIAL_MOST = 8

# Minimum-aberration fractions by (factors, halvings), each as words whose product is constant over the runs:
# ABD stands for the generator D = AB. Fries and Hunter, Technometrics 22 (1980); Montgomery, Design and Analysis
# of Experiments, table 8.14. Resolution is the shortest word of the group that they generate.
_WORDS: dict[tuple[int, int], tuple[str, ...]] = {
    (3, 1): ("ABC",),
    (4, 1): ("ABCD",),
    (5, 1): ("ABCDE",),
    (5, 2): ("ABD", "ACE"),
    (6, 1): ("ABCDEF",),
    (6, 2): ("ABCE", "BCDF"),
    (6, 3): ("ABD", "ACE", "BCF"),
    (7, 1): ("ABCDEFG",),
    (7, 2): ("ABCDF", "ABDEG"),
    (7, 3): ("ABCE", "BCDF", "ACDG"),
    (7, 4): ("ABD", "ACE", "BCF", "ABCG"),
    (8, 1): ("ABCDEFGH",),
    (8, 2): ("ABCDG", "ABEFH"),
    (8, 3): ("ABCF", "ABDG", "BCDEH"),
    (8, 4): ("BCDE", "ACDF", "ABCG", "ABDH"),
}


@dataclass(frozen=True)
class Fraction:
    """A regular two-level fraction: `words` is its whole defining relation, empty for the full factorial.

    Of the equivalent fractions it is the one that holds the baseline: a run belongs to it when every word
    has an even number of its factors on.
    """

    factors: tuple[str, ...]
    words: tuple[frozenset[str], ...]

    @property
    def resolution(self) -> int | None:
        """Length of the shortest word; none: full factorial, nothing is confounded.

        III: main effects are confounded with interactions of two. IV: those with each other. V: neither.
        """
        return min(map(len, self.words), default=None)

    def runs(self) -> tuple[frozenset[str], ...]:
        """The combinations of factors that are on, in standard order: none first, the first factor fastest."""
        return tuple(s for s in subsets(self.factors) if all(len(s & word) % 2 == 0 for word in self.words))

    def aliases(self, effect: frozenset[str], order: int = 2) -> tuple[tuple[int, frozenset[str]], ...]:
        """What cannot be told from an effect: (sign, effect of at most `order` factors), shortest first.

        An estimate of `effect` is in truth its own plus sign times each of these.
        """
        found = [((-1) ** len(word), effect ^ word) for word in self.words if len(effect ^ word) <= order]
        return tuple(sorted(found, key=lambda pair: (len(pair[1]), sorted(map(self.factors.index, pair[1])))))


@dataclass(frozen=True)
class FactorialEffect:
    """A main effect (one factor) or an interaction (two): mean with the product of codes at +1 minus at -1.

    For an interaction that is half of what one factor changes in the other's effect. `aliases` are (sign, effect)
    that the arms cannot tell from it: the estimate is its own plus sign times each of them.
    """

    factors: frozenset[str]
    effect: Estimate
    p: float
    p_holm: float
    aliases: tuple[tuple[int, frozenset[str]], ...]


def fraction_of(factors: Sequence[str], halvings: int) -> Fraction:
    """The minimum-aberration 2^(k-p) fraction of k factors, p halvings; 0: the full factorial.

    Raises ConfigError for more than 8 factors, and where a fraction would confound two main effects.
    """
    k = len(factors)
    if k > FACTORIAL_MOST:
        raise ConfigError(
            f"a factorial design of {k} factors is not laid out; take {FACTORIAL_MOST} at most, or kind: shapley"
        )
    if halvings == 0:
        return Fraction(tuple(factors), ())
    if (k, halvings) not in _WORDS:
        most = max((p for n, p in _WORDS if n == k), default=0)
        raise ConfigError(f"design.halvings {halvings} of {k} factors would confound main effects; use {most} at most")
    letters = dict(zip("ABCDEFGH", factors, strict=False))
    generators = [frozenset(letters[letter] for letter in word) for word in _WORDS[k, halvings]]
    return Fraction(tuple(factors), _products(generators))


def factorial_effects(
    scores: Scores, arms: Mapping[str, frozenset[str]], fraction: Fraction, alpha: float = 0.05
) -> list[FactorialEffect]:
    """Main effects and interactions of two by least squares on -1/+1 codes, each seed a block.

    `arms` is arm to the factors that are on. Of effects that the fraction confounds, the first stands for all.
    Effects of three factors and more are taken as nil; where they are not, they widen the intervals. Ends and p
    are nan where no degree of freedom is left. p_holm is over all effects of the call.
    Raises StudyError for scores of an arm that is not in `arms`, and for too few arms to tell the effects apart.
    Box, Hunter and Hunter, Statistics for Experimenters (2005), chapters 5 and 6.
    """
    terms = _separate_terms(fraction)
    coefficients, errors, degrees = _least_squares(scores, arms, fraction.factors, terms)
    effects, errors = 2 * coefficients, 2 * errors
    # 0/0 where a perfect fit leaves an effect of exactly 0
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stdtr(degrees, -np.abs(effects / errors)) if degrees else np.full(len(terms), np.nan)
    half = stdtrit(degrees, 1 - alpha / 2) * errors if degrees else np.full(len(terms), np.nan)
    rows = zip(terms, effects.tolist(), half.tolist(), p.tolist(), holm_known(p).tolist(), strict=True)
    return [
        FactorialEffect(term, Estimate(e, e - h, e + h), p_, holm_, fraction.aliases(term))
        for term, e, h, p_, holm_ in rows
    ]


def subsets(factors: Sequence[str]) -> Iterator[frozenset[str]]:
    """All 2^k subsets in standard order: none first, the first factor fastest."""
    for bits in range(2 ** len(factors)):
        yield frozenset(f for i, f in enumerate(factors) if bits >> i & 1)


def _separate_terms(fraction: Fraction) -> list[frozenset[str]]:
    """Main effects, then interactions of two, of each group of aliases the first."""
    terms: list[frozenset[str]] = []
    for size in (1, 2):
        for term in map(frozenset, combinations(fraction.factors, size)):
            if not any(alias in terms for _, alias in fraction.aliases(term)):
                terms.append(term)
    return terms


def _least_squares(
    scores: Scores, arms: Mapping[str, frozenset[str]], factors: Sequence[str], terms: Sequence[frozenset[str]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Coefficients and standard errors of the terms, and the residual's degrees of freedom."""
    rows = [(arm, seed) for arm, by_seed in scores.items() for seed in by_seed]
    _check_rows(rows, arms)
    x = _design_matrix(rows, arms, factors, terms)
    y = np.array([scores[arm][seed] for arm, seed in rows], dtype=np.float64)
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    if rank < x.shape[1]:
        raise StudyError(
            f"{len(scores)} arms do not tell {len(terms)} effects apart (the rank is {x.shape[1] - rank} short); "
            "run the arms that are missing"
        )
    degrees = len(y) - int(rank)
    variance = float(((y - x @ solution) ** 2).sum()) / degrees if degrees else np.nan
    errors = np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x)))
    return solution[: len(terms)], errors[: len(terms)], degrees


def _design_matrix(
    rows: Sequence[tuple[str, int]],
    arms: Mapping[str, frozenset[str]],
    factors: Sequence[str],
    terms: Sequence[frozenset[str]],
) -> NDArray[np.float64]:
    """A column of -1/+1 for each term, then one of 0/1 for each seed, which stand in for the intercept."""
    codes = {arm: {f: 1.0 if f in on else -1.0 for f in factors} for arm, on in arms.items()}
    seeds = sorted({seed for _, seed in rows})
    return np.array(
        [
            [*(np.prod([codes[arm][f] for f in term]) for term in terms), *(float(seed == s) for s in seeds)]
            for arm, seed in rows
        ]
    )


def _check_rows(rows: Sequence[tuple[str, int]], arms: Mapping[str, frozenset[str]]) -> None:
    if not rows:
        raise StudyError("no arm has a score, and there is no effect to estimate; run the study first")
    unknown = next((arm for arm, _ in rows if arm not in arms), None)
    if unknown:
        raise StudyError(f"arm '{unknown}' is not in the design{did_you_mean(unknown, arms)}")


def _products(generators: Sequence[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Every product of generators; a factor squared is 1, so a product is a symmetric difference."""
    words = []
    for n in range(1, len(generators) + 1):
        for chosen in combinations(generators, n):
            word: frozenset[str] = frozenset()
            for generator in chosen:
                word ^= generator
            words.append(word)
    return tuple(words)
