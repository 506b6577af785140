"""What the scoring rule does to an ablation: the gains under several rules, and the same predictions under each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.metrics import CONVENTIONS, dataset_counts, iou, miou, score_by_convention
from harness.report.ablation_shared import (
    DASH,
    NO_TRIAL,
    BySeed,
    number,
    percent,
    same_frames,
    signed,
    study_table,
    why_missing,
)
from harness.report.records import AblationRecords
from harness.report.table import Table

_VISIBLE = 0.00005  # below it a difference prints as 0.0000


class _Scored(NamedTuple):
    """A trial under two rules: its classes, the IoU of those with a union, and which of them the truth holds."""

    union: float
    truth: float
    names: tuple[str, ...]
    ious: dict[str, float]
    true: tuple[str, ...]


@dataclass(frozen=True)
class Gain:
    """A gain under several rules, mean over the `seeds` that two arms share.

    `union` is under union_present, `truth` under miou, `same` over the classes in the truth of both. `denominator`
    is what union_present gains where only the averaged classes change, and no prediction of the other arm does.
    `gone` are the classes that the arm no longer predicts; `averaged` how many classes each rule averages.
    """

    gone: tuple[str, ...]
    split: str
    seeds: int
    union: float
    truth: float
    same: float
    denominator: float
    averaged: tuple[str, str]

    @property
    def share(self) -> float:
        """Share of the gain under union_present that is only the change of denominator; nan for no gain."""
        return self.denominator / self.union if abs(self.union) >= _VISIBLE else math.nan


def denominator_table(records: AblationRecords) -> Table:
    """How much of each arm's gain is only that the rule averages other classes."""
    columns = (
        "arm", "against", "no longer predicted", "frames", "seeds", "classes averaged by union_present",
        "classes averaged by miou", "gain under union_present", "gain under miou", "gain over the same classes",
        "change of denominator", "its share",
    )  # fmt: skip
    cells = [_gain_cells(records, *pair) for pair in gain_pairs(records)]
    notes = [
        f"union_present: {CONVENTIONS['union_present'].definition}",
        f"miou: {CONVENTIONS['miou'].definition}",
        "gain over the same classes: over those that the truth of both arms holds, matched by name; within one "
        "taxonomy it is the gain under miou",
        "change of denominator: what union_present gains if every prediction of the arm under against stays as it "
        "is and only the averaged classes become this arm's; its share: of the gain under union_present",
        "mean over the seeds of both arms; an arm that stops predicting classes is also set against the arm whose "
        "weights it starts from",
    ]
    return study_table(records, "denominator", "How much of a gain is the scoring rule", columns, cells, notes)


def conventions_table(records: AblationRecords) -> Table:
    """Every arm's predictions under every scoring rule."""
    cells = []
    for arm in records.arms:
        split, by_seed = _best_split(records, arm)
        if not by_seed:
            cells.append((arm, why_missing(records, arm), "0", *[DASH] * len(CONVENTIONS)))
            continue
        scored = [score_by_convention(m, records.classes(arm)) for m in by_seed.values()]
        means = (np.mean([values[rule] for values in scored]) for rule in CONVENTIONS)
        cells.append((arm, split, str(len(by_seed)), *map(number, means)))
    notes = [
        "one set of predictions an arm, the best epoch's; mean over seeds; numbers of different columns, or of "
        "different frames, are not comparable",
        *(f"{name}: {convention.definition}" for name, convention in CONVENTIONS.items()),
    ]
    columns = ("arm", "frames", "seeds", *CONVENTIONS)
    return study_table(records, "conventions", "The same predictions under every scoring rule", columns, cells, notes)


def gain_pairs(records: AblationRecords) -> list[tuple[str, str]]:
    """An arm and what it is set against: the baseline, and its start where it stops predicting some of its classes."""
    pairs = []
    for name, arm in records.arms.items():
        if len(arm.start) == 1 and _gone(records, name, arm.start[0]):
            pairs.append((name, arm.start[0]))
        if name != records.baseline:
            pairs.append((name, records.baseline))
    return list(dict.fromkeys(pairs))


def gain_of(records: AblationRecords, arm: str, against: str) -> Gain | None:
    """An arm's gain on the frames, test before validation, that both were scored on; None where there are none."""
    for split, matrices in (("test", records.test_matrices), ("val", records.matrices)):
        own, other = matrices.get(arm, {}), matrices.get(against, {})
        seeds = sorted(set(own) & set(other))
        if seeds and same_frames(records, arm, against, split):
            a, b = ([_scored(m[s], records.classes(n)) for s in seeds] for m, n in ((own, arm), (other, against)))
            pairs = list(zip(a, b, strict=True))
            return Gain(
                gone=_gone(records, arm, against),
                split=_split(records, arm, split),
                seeds=len(seeds),
                union=_mean(x.union - y.union for x, y in pairs),
                truth=_mean(x.truth - y.truth for x, y in pairs),
                same=_mean(_same_class_gain(x, y) for x, y in pairs),
                denominator=_mean(_reaveraged(y, x) - y.union for x, y in pairs),
                averaged=(
                    f"{_mean(len(y.ious) for y in b):.3g} → {_mean(len(x.ious) for x in a):.3g}",
                    f"{_mean(len(y.true) for y in b):.3g} → {_mean(len(x.true) for x in a):.3g}",
                ),
            )
    return None


def _gone(records: AblationRecords, arm: str, against: str) -> tuple[str, ...]:
    """Classes that an arm no longer predicts: suppressed, or not in its taxonomy; only what is known is said."""
    own, other = (records.arms[name].experiment.evaluation.suppress for name in (arm, against))
    gone = [name for name in own if name not in other]
    if arm in records.trials and against in records.trials:
        gone += [name for name in records.classes(against) if name not in records.classes(arm) and name not in other]
    return tuple(dict.fromkeys(gone))


def _gain_cells(records: AblationRecords, arm: str, against: str) -> tuple[str, ...]:
    gone, gain = ", ".join(_gone(records, arm, against)), gain_of(records, arm, against)
    if gain is None:
        without = [name for name in (arm, against) if name not in records.trials]
        why = f"{NO_TRIAL} of {without[0]}" if without else "none in common"
        return (arm, against, gone, why, *[DASH] * 8)
    gains = map(signed, (gain.union, gain.truth, gain.same, gain.denominator))
    return (arm, against, gone, gain.split, str(gain.seeds), *gain.averaged, *gains, percent(gain.share))


def _scored(matrices: NDArray[np.int64], names: tuple[str, ...]) -> _Scored:
    c = dataset_counts(matrices)
    ious = {n: float(value) for n, value, union in zip(names, iou(c), c.union, strict=True) if union}
    true = tuple(name for name, pixels in zip(names, c.truth, strict=True) if pixels)
    return _Scored(CONVENTIONS["union_present"](matrices, names), float(miou(c)), names, ious, true)


def _same_class_gain(own: _Scored, other: _Scored) -> float:
    return _mean(own.ious[name] - other.ious[name] for name in other.true if name in own.true)


def _reaveraged(scored: _Scored, averager: _Scored) -> float:
    """A trial's own IoUs, averaged over the classes that another trial averages."""
    # neither true nor predicted here, predicted there: a class that scores 0 wherever it is averaged
    return _mean(scored.ious.get(name, 0.0) for name in averager.ious if name in scored.names)


def _best_split(records: AblationRecords, arm: str) -> tuple[str, BySeed]:
    if arm in records.test_matrices:
        return "test", records.test_matrices[arm]
    return _split(records, arm, "val"), records.matrices.get(arm, {})


def _split(records: AblationRecords, arm: str, split: str) -> str:
    """The frames' name; what validated an arm that chooses on the test frames is not called validation."""
    chosen_on_it = split == "val" and records.arms[arm].experiment.protocol.select_on_test
    return "test, chosen on it" if chosen_on_it else split


def _mean(values: Iterable[float]) -> float:
    """Mean; nan of nothing."""
    known = list(values)
    return float(np.mean(known)) if known else math.nan
