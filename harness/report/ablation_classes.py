"""The classes of an ablation: IoU by class, against the baseline, and on validation against test frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.ablate.effects import class_deltas, scores_of
from harness.metrics import dataset_counts, iou
from harness.report.ablation_shared import (
    DASH,
    BySeed,
    generator,
    number,
    same_frames,
    signed,
    span,
    study_table,
    why_missing,
)
from harness.report.records import AblationRecords
from harness.report.table import Table
from harness.stats import Estimate


def per_class_table(records: AblationRecords) -> Table:
    """IoU of every class in every arm."""
    ious = {arm: _mean_ious(records.matrices.get(arm, {}), records, arm) for arm in records.arms}
    scores = {arm: float(np.mean(list(values.values()))) for arm, values in scores_of(records.matrices).items()}
    cells = [(n, *(_class_cell(records, arm, n, ious[arm]) for arm in ious)) for n in _class_names(records)]
    cells.append(("mIoU", *(number(scores.get(arm, math.nan)) for arm in ious)))
    notes = ["IoU over the validation frames, mean over seeds", *_class_notes(records)]
    return study_table(records, "per_class", "IoU of every class", ("class", *ious), cells, notes)


def per_class_delta_table(records: AblationRecords) -> Table:
    """IoU of every class minus the baseline's, with intervals over images."""
    arms = [arm for arm in records.arms if arm != records.baseline]
    deltas = {arm: _deltas(records, arm) for arm in arms}
    cells = [(name, *(_delta_cell(records, arm, name, deltas[arm]) for arm in arms)) for name in _class_names(records)]
    notes = [
        f"IoU minus {records.baseline}'s over the validation frames, mean over the seeds of both; in brackets the 95 % "
        "interval over images: what other frames would change, not what another training would; no verdict is made "
        "of it",
        *_class_notes(records),
    ]
    title = f"IoU of every class against {records.baseline}"
    return study_table(records, "per_class_delta", title, ("class", *arms), cells, notes)


def validation_vs_test_table(records: AblationRecords) -> Table:
    """IoU of every class on the validation and the test frames, of the arms scored on both."""
    cells = [row for arm in records.arms for row in _gap_rows(records, arm)]
    without = [arm for arm in records.arms if arm not in records.test_matrices]
    notes = ["IoU of the best epoch, mean over the seeds scored on both; gap: test minus validation"]
    notes += [
        f"{arm}: its best epoch was chosen on the test frames, so that both columns are theirs"
        for arm in records.test_matrices
        if records.arms[arm].experiment.protocol.select_on_test
    ]
    if without:
        notes.append(f"no test frames were scored (evaluation.score_test) for: {', '.join(without)}")
    columns = ("arm", "class", "seeds", "validation", "test", "gap")
    return study_table(records, "validation_vs_test", "Validation against test", columns, cells, notes)


def _class_notes(records: AblationRecords) -> list[str]:
    missing = [f"{arm}: {why_missing(records, arm)}" for arm in records.arms if arm not in records.matrices]
    return [
        "blank: the arm's taxonomy has no class of that name; dash: the truth holds none, or nothing was measured; "
        "a class of the same name may hold other raw ids in another taxonomy",
        *missing,
    ]


def _class_names(records: AblationRecords) -> list[str]:
    """The baseline's classes, then those of other taxonomies."""
    arms = sorted(records.trials, key=lambda arm: arm != records.baseline)
    return list(dict.fromkeys(name for arm in arms for name in records.classes(arm)))


def _mean_ious(by_seed: BySeed, records: AblationRecords, arm: str) -> dict[str, float]:
    """IoU by class name, mean over seeds; nan where the truth lacks the class, empty without matrices."""
    if not by_seed:
        return {}
    found = []
    for matrices in by_seed.values():
        c = dataset_counts(matrices)
        found.append(np.where(c.truth > 0, iou(c), np.nan))
    return dict(zip(records.classes(arm), np.mean(found, axis=0).tolist(), strict=True))


def _class_cell(records: AblationRecords, arm: str, name: str, ious: Mapping[str, float]) -> str:
    return "" if _lacks(records, arm, name) else number(ious.get(name, math.nan))


def _delta_cell(records: AblationRecords, arm: str, name: str, deltas: Mapping[str, Estimate]) -> str:
    if any(_lacks(records, a, name) for a in (arm, records.baseline)):
        return ""
    delta = deltas.get(name)
    if delta is None or math.isnan(delta.point):
        return DASH
    return f"{signed(delta.point)} ({span(delta, signed)})"


def _lacks(records: AblationRecords, arm: str, name: str) -> bool:
    return arm in records.trials and name not in records.classes(arm)


def _deltas(records: AblationRecords, arm: str) -> dict[str, Estimate]:
    """IoU minus the baseline's of the classes that both taxonomies name; empty where nothing can be paired."""
    base = records.baseline
    own, other = records.matrices.get(arm, {}), records.matrices.get(base, {})
    if not set(own) & set(other) or not same_frames(records, arm, base, "val"):
        return {}
    shared = [name for name in records.classes(base) if name in records.classes(arm)]
    lumped = {
        name: {seed: _lump(m, records.classes(name), shared) for seed, m in by_seed.items()}
        for name, by_seed in ((base, other), (arm, own))
    }
    # the last is what was lumped together
    return dict(zip(shared, class_deltas(lumped, base, generator())[arm][:-1], strict=True))


def _lump(matrices: NDArray[np.int64], names: Sequence[str], shared: Sequence[str]) -> NDArray[np.int64]:
    """Matrices (N, C, C+1) of the shared classes and one more for all others: the shared IoUs stay as they are."""
    place = [*(shared.index(n) if n in shared else len(shared) for n in names), len(shared) + 1]
    onto = np.zeros((len(place), len(shared) + 2), np.int64)
    onto[np.arange(len(place)), place] = 1
    return onto[:-1, :-1].T @ matrices @ onto


def _gap_rows(records: AblationRecords, arm: str) -> list[tuple[str, ...]]:
    val, test = records.matrices.get(arm, {}), records.test_matrices.get(arm, {})
    seeds = sorted(set(val) & set(test))
    if not seeds:
        return []
    both = [{seed: m[seed] for seed in seeds} for m in (val, test)]
    before, after = (_mean_ious(m, records, arm) for m in both)
    means = [float(np.mean(list(scores_of({arm: m})[arm].values()))) for m in both]
    rows = [(name, before[name], after[name]) for name in before] + [("mIoU", *means)]
    return [(arm, name, str(len(seeds)), number(v), number(t), signed(t - v)) for name, v, t in rows]
