"""Effects: from the scores of arms to statements about them.

Every comparison is paired over seeds, and its verdict rests on seeds alone: "better" and "worse" are said where
Holm's adjusted p value of the paired t test is at most alpha, so that the chance of any false one among the
comparisons of a call is at most alpha. An interval over images, shown where there are fewer than 3 seeds, says
what other frames would change for these trained models, not what another training would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.config import did_you_mean
from harness.errors import StudyError
from harness.metrics import Counts, counts, iou, miou
from harness.stats import (
    RESAMPLES,
    SEEDS_FOR_T,
    Estimate,
    bootstrap_weights,
    hedges_g,
    holm_known,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    paired_p_value,
    percentile_interval,
    pooled_deviation,
)

Scores = Mapping[str, Mapping[int, float]]
Matrices = Mapping[str, Mapping[int, NDArray[np.integer]]]
IntervalKind = Literal["t over seeds", "bootstrap over images", "none"]
Verdict = Literal["better", "worse", "not resolved"]

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Effect:
    """What an arm did to the score against another arm, with `n` pairs of seeds; scores as given, 0-1.

    `score` is the arm's own and `difference` arm minus `against`, both with the interval that `interval` names.
    `p` and `p_holm` are nan for one pair, `g` is Hedges' g_av. `noise_floor` is the deviation between seeds,
    pooled over all arms; `resolvable` the smallest true difference that the study finds in 80 % of cases at
    Holm's strictest step.
    """

    arm: str
    against: str
    n: int
    score: Estimate
    difference: Estimate
    interval: IntervalKind
    p: float
    p_holm: float
    g: float
    noise_floor: float
    resolvable: float
    verdict: Verdict


class _Pair(NamedTuple):
    """Scores of two arms (n,) at the seeds that they share."""

    arm: str
    against: str
    seeds: tuple[int, ...]
    a: NDArray[np.float64]
    b: NDArray[np.float64]


class _Images:
    """One set of image resamples (resamples, N) for all arms, so that arms are compared on the same images."""

    def __init__(self, matrices: Matrices, generator: np.random.Generator) -> None:
        self.matrices = matrices
        self.weights = bootstrap_weights(_image_count(matrices), RESAMPLES, generator)
        if self.weights.shape[1] == 1:
            # one image says nothing of others: unknown, not certain
            self.weights[:] = np.nan

    def of(self, arm: str, seed: int) -> NDArray[np.integer]:
        """The matrices (N, C, C+1) of one trial."""
        if seed not in self.matrices.get(arm, {}):
            raise StudyError(f"arm '{arm}', seed {seed}: no confusion matrices; give them for every score or for none")
        return self.matrices[arm][seed]

    def counts(self, arm: str, seed: int) -> Counts:
        """Counts (resamples, C) of each resample's summed matrices."""
        return Counts(*(self.weights @ part for part in counts(self.of(arm, seed))))

    def mious(self, arm: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Dataset mIoU (resamples,), mean over seeds."""
        return np.mean([miou(self.counts(arm, seed)) for seed in seeds], axis=0)

    def ious(self, arm: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """IoU (resamples, C), mean over seeds; nan where the truth of the resample lacks the class."""
        return np.mean([_present_iou(self.counts(arm, seed)) for seed in seeds], axis=0)


def scores_of(matrices: Matrices) -> dict[str, dict[int, float]]:
    """Dataset mIoU of every trial from its matrices: the same rule for arms that were scored by several."""
    return {
        arm: {seed: float(miou(counts(m.sum(axis=0)))) for seed, m in by_seed.items()}
        for arm, by_seed in matrices.items()
    }


def compare(
    scores: Scores,
    reference: str,
    generator: np.random.Generator,
    matrices: Matrices | None = None,
    alpha: float = 0.05,
) -> list[Effect]:
    """Every other arm against the reference, in the order of `scores`.

    `scores` is arm to seed to score, `matrices` likewise (N, C, C+1) of the same images in the same order.
    Raises StudyError where the reference is not there, an arm has no score or shares no seed with its reference,
    or a score is not the dataset mIoU of its matrices.
    """
    _check_known([reference], scores)
    pairs = [(arm, reference) for arm in scores if arm != reference]
    return _effects(scores, pairs, generator, matrices, alpha)


def compare_ladder(
    scores: Scores,
    rungs: Sequence[str],
    generator: np.random.Generator,
    matrices: Matrices | None = None,
    alpha: float = 0.05,
) -> list[Effect]:
    """Every rung against the one before it; otherwise as compare, which gives the first rung as reference."""
    _check_known(rungs, scores)
    pairs = [(arm, against) for against, arm in pairwise(rungs)]
    return _effects(scores, pairs, generator, matrices, alpha)


def straddling(effects: Iterable[Effect], negligible: float = 0.0) -> list[str]:
    """The arms that deserve further seeds (their reference does too), the smallest p first, unknown last.

    Those not resolved, but for those whose interval lies within +-negligible: too small to matter either way.
    Looking again after each new seed spends alpha several times, so a raced verdict is to be confirmed by one
    comparison with fresh seeds.
    """
    open_ = [e for e in effects if e.verdict == "not resolved" and not _within(e.difference, negligible)]
    return [e.arm for e in sorted(open_, key=lambda e: np.inf if np.isnan(e.p) else e.p)]


def class_deltas(
    matrices: Matrices, reference: str, generator: np.random.Generator, alpha: float = 0.05
) -> dict[str, list[Estimate]]:
    """IoU of each class (C,) of each other arm minus the reference's, mean over shared seeds, 0-1.

    Intervals are bootstrapped over images. A class that the truth lacks is nan.
    Raises StudyError where arms differ in images or classes, or share no seed.
    """
    _check_known([reference], matrices)
    images = _Images(matrices, generator)
    _check_same_classes(matrices, reference)
    return {arm: _class_delta(images, arm, reference, alpha) for arm in matrices if arm != reference}


def _effects(
    scores: Scores,
    pairs: Sequence[tuple[str, str]],
    generator: np.random.Generator,
    matrices: Matrices | None,
    alpha: float,
) -> list[Effect]:
    matched = [_match(scores, arm, against) for arm, against in pairs]
    images = None if matrices is None else _Images(matrices, generator)
    if images:
        _check_rule(scores, images)
    p = np.array([paired_p_value(m.a, m.b) for m in matched])
    adjusted = holm_known(p)
    floor = pooled_deviation(list(by_seed.values()) for by_seed in scores.values())
    deviation = pooled_deviation(m.a - m.b for m in matched)
    strictest = alpha / max(1, int(np.isfinite(p).sum()))
    found = []
    for m, own_p, p_holm in zip(matched, p.tolist(), adjusted.tolist(), strict=True):
        score, difference, kind = _intervals(m, scores, images, 1 - alpha)
        found.append(
            Effect(
                arm=m.arm,
                against=m.against,
                n=len(m.seeds),
                score=score,
                difference=difference,
                interval=kind,
                p=own_p,
                p_holm=p_holm,
                g=hedges_g(m.a, m.b),
                noise_floor=floor,
                resolvable=minimum_detectable_difference(deviation, len(m.seeds), strictest),
                verdict=_verdict(difference.point, p_holm, alpha),
            )
        )
    return found


def _match(scores: Scores, arm: str, against: str) -> _Pair:
    seeds = _shared_seeds(scores, arm, against)
    a, b = (np.array([scores[name][seed] for seed in seeds], dtype=np.float64) for name in (arm, against))
    return _Pair(arm, against, seeds, a, b)


def _shared_seeds(by_arm: Scores | Matrices, arm: str, against: str) -> tuple[int, ...]:
    seeds = tuple(sorted(set(by_arm[arm]) & set(by_arm[against])))
    if not seeds:
        found = {name: sorted(by_arm[name]) for name in (arm, against)}
        raise StudyError(
            f"arm '{arm}' has seeds {found[arm]} and '{against}' has {found[against]}: they share none, "
            "and there is no pair; run both with the same seeds, or leave the arm out"
        )
    return seeds


def _intervals(
    pair: _Pair, scores: Scores, images: _Images | None, level: float
) -> tuple[Estimate, Estimate, IntervalKind]:
    n = len(pair.seeds)
    if images and n < SEEDS_FOR_T:
        own, other = images.mious(pair.arm, pair.seeds), images.mious(pair.against, pair.seeds)
        score = percentile_interval(float(pair.a.mean()), own, level)
        difference = percentile_interval(float((pair.a - pair.b).mean()), own - other, level)
        return score, difference, "bootstrap over images"
    score = mean_interval(list(scores[pair.arm].values()), level)
    return score, paired_difference(pair.a, pair.b, level), "t over seeds" if n > 1 else "none"


def _verdict(difference: float, p_holm: float, alpha: float) -> Verdict:
    # written so that an unknown p resolves nothing
    if not p_holm <= alpha:
        return "not resolved"
    return "better" if difference > 0 else "worse"


def _within(difference: Estimate, negligible: float) -> bool:
    return -negligible < difference.low and difference.high < negligible


def _class_delta(images: _Images, arm: str, reference: str, alpha: float) -> list[Estimate]:
    seeds = _shared_seeds(images.matrices, arm, reference)
    point = _mean_iou(images, arm, seeds) - _mean_iou(images, reference, seeds)
    draws = images.ious(arm, seeds) - images.ious(reference, seeds)
    return [
        # a class that is absent in all images is absent in every draw
        percentile_interval(value, column, 1 - alpha)
        for value, column in zip(point.tolist(), draws.T, strict=True)
    ]


def _mean_iou(images: _Images, arm: str, seeds: Sequence[int]) -> NDArray[np.float64]:
    return np.mean([_present_iou(counts(images.of(arm, seed).sum(axis=0))) for seed in seeds], axis=0)


def _present_iou(c: Counts) -> NDArray[np.float64]:
    """IoU (..., C); nan where the truth lacks the class, also where it is predicted."""
    return np.where(c.truth > 0, iou(c), np.nan)


def _check_known(names: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise StudyError(f"arm '{name}' is not among those given{did_you_mean(name, known)}")


def _image_count(matrices: Matrices) -> int:
    found = {f"{arm}, seed {seed}": len(m) for arm, by_seed in matrices.items() for seed, m in by_seed.items()}
    if len(set(found.values())) != 1:
        raise StudyError(f"arms scored on different numbers of images cannot be resampled together: {found}")
    return next(iter(found.values()))


def _check_same_classes(matrices: Matrices, reference: str) -> None:
    shapes = {arm: m.shape[1] for arm, by_seed in matrices.items() for m in by_seed.values()}
    other = next((arm for arm in shapes if shapes[arm] != shapes[reference]), None)
    if other:
        raise StudyError(
            f"arm '{other}' has {shapes[other]} classes and '{reference}' has {shapes[reference]}; "
            "their IoUs do not pair: leave the arm out"
        )


def _check_rule(scores: Scores, images: _Images) -> None:
    for arm, by_seed in scores.items():
        for seed, score in by_seed.items():
            found = float(miou(counts(images.of(arm, seed).sum(axis=0))))
            if not abs(found - score) <= _ROUNDING:
                raise StudyError(
                    f"arm '{arm}', seed {seed}: the score {score:.6f} is not the mIoU {found:.6f} of its matrices; "
                    "take the scores from scores_of(matrices), or leave the matrices out"
                )
