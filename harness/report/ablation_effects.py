"""The effects of an ablation: every arm against the baseline, every rung against the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.ablate.effects import Effect, compare, compare_ladder
from harness.config.ablation import Arms, Ladder, LeaveOneOut, OneFactor, Path, design_arms
from harness.metrics import counts, miou
from harness.report.ablation_shared import (
    DASH,
    NO_TRIAL,
    ONE_SEED,
    VERDICT,
    BySeed,
    Scores,
    generator,
    miou_scores,
    number,
    p_value,
    rule_of,
    same_frames,
    signed,
    span,
    study_table,
)
from harness.report.records import AblationRecords
from harness.report.table import Table
from harness.stats import RESAMPLES, SEEDS_FOR_T, Estimate, bootstrap_weights, mean_interval, percentile_interval

_EFFECT_COLUMNS = (
    "n", "score", "score interval", "difference", "difference interval", "interval from", "p", "Holm p", "g",
    "noise floor", "smallest resolvable", "verdict", "authors' guess",
)  # fmt: skip


@dataclass(frozen=True)
class EffectRow:
    """An arm's own score, and its effect or why there is none (`said`, the verdict where there is one)."""

    arm: str
    against: str
    n: int
    score: Estimate | None
    interval: str
    effect: Effect | None
    said: str


def effects_table(records: AblationRecords) -> Table:
    """Every arm against the baseline, paired over seeds."""
    rows = against_baseline(records)
    factor = isinstance(records.settings.ablation.design, OneFactor | LeaveOneOut)
    columns = ("arm", *(["factor"] if factor else []), *_EFFECT_COLUMNS)
    cells = [(r.arm, *([_factor(records, r.arm)] if factor else []), *_effect_cells(records, r)) for r in rows]
    return study_table(
        records,
        "effects",
        f"Every arm against {records.baseline}",
        columns,
        cells,
        [f"difference: the arm minus {records.baseline}, paired over seeds", *_effect_notes(records, rows)],
    )


def steps_table(records: AblationRecords) -> Table:
    """Every rung of a ladder against the last one before it that can be compared."""
    rows = against_previous(records)
    cells = [(r.arm, r.against, *_effect_cells(records, r)) for r in rows]
    notes = [
        "difference: the rung minus the one named under against, paired over seeds; "
        "a rung that cannot be compared is stepped over",
        *_path_notes(records),
        *_effect_notes(records, rows),
    ]
    columns = ("arm", "against", *_EFFECT_COLUMNS)
    return study_table(records, "steps", "Every rung against the one before", columns, cells, notes)


def against_baseline(records: AblationRecords) -> list[EffectRow]:
    """The rows of every compared arm against the baseline; one that cannot be compared says why."""
    scores, base = miou_scores(records), records.baseline
    why = {arm: _unpaired(records, scores, arm, base) for arm in _compared(records)}
    paired = {arm: scores[arm] for arm, reason in why.items() if not reason}
    found = compare(paired, base, generator(), _matrices_of(records, paired)) if paired else []
    effects = {effect.arm: effect for effect in found}
    return [
        _row(records, scores, arm, "" if arm == base else base, effects.get(arm), reason or "baseline")
        for arm, reason in why.items()
    ]


def against_previous(records: AblationRecords) -> list[EffectRow]:
    """The rows of every rung against the one before; one that cannot be compared is stepped over."""
    scores = miou_scores(records)
    kept: list[str] = []
    why, against = {}, {}
    for rung in records.rungs or ():
        against[rung] = kept[-1] if kept else ""
        why[rung] = _unpaired(records, scores, rung, against[rung] or rung)
        if not why[rung]:
            kept.append(rung)
    paired = {rung: scores[rung] for rung in kept}
    found = compare_ladder(paired, kept, generator(), _matrices_of(records, paired)) if kept else []
    effects = {effect.arm: effect for effect in found}
    first = "first rung" if kept[:1] == list(why)[:1] else "no complete trial of a rung before it"
    return [_row(records, scores, r, against[r], effects.get(r), reason or first) for r, reason in why.items()]


def warnings_of(records: AblationRecords, rows: Sequence[EffectRow]) -> list[str]:
    """What makes a comparison less than it seems."""
    single = [row.arm for row in rows if row.n == 1]
    whole = len(single) == len(rows)
    found = [f"{'every arm' if whole else ', '.join(single)}: {ONE_SEED}"] if single else []
    lost = _without_matrices(records, (row.arm for row in rows))
    if lost:
        found.append(f"{', '.join(lost)}: confusion matrices are missing, so that no interval is over images")
    for row in rows:
        if row.score is not None:
            found += _unlike(records, row.arm, records.baseline)
    aside = [arm for arm in records.arms if arm not in _compared(records)]
    if aside:
        found.append(f"{', '.join(aside)}: trained for the weights that others start from, not compared by the design")
    return found


def _path_notes(records: AblationRecords) -> list[str]:
    design = records.settings.ablation.design
    if not isinstance(design, Path):
        return []
    return [
        f"factors in the order taken: {', '.join(design.steps) or 'none yet'}",
        "a factor was taken because its arm scored highest with these seeds: its difference is too high by that "
        "choice, and its p too small; only other seeds say what a step is worth",
    ]


def _compared(records: AblationRecords) -> list[str]:
    """The arms that the design compares, without those that are there only to start others."""
    design = records.settings.ablation.design
    return list(design_arms(design) if isinstance(design, Ladder | Arms) else records.arms)


def _factor(records: AblationRecords, arm: str) -> str:
    """The one factor by which an arm differs from its baseline."""
    return ", ".join(sorted(records.arms[arm].factors ^ records.arms[records.baseline].factors))


def _matrices_of(records: AblationRecords, scores: Scores) -> dict[str, BySeed] | None:
    """The matrices of every score; none where one is missing."""
    if _without_matrices(records, scores):
        return None
    return {arm: {seed: records.matrices[arm][seed] for seed in by_seed} for arm, by_seed in scores.items()}


def _without_matrices(records: AblationRecords, arms: Iterable[str]) -> list[str]:
    """The arms with a complete trial that has no stored matrices."""
    return [arm for arm in arms if set(records.trials.get(arm, ())) - set(records.matrices.get(arm, ()))]


def _unpaired(records: AblationRecords, scores: Scores, arm: str, against: str) -> str:
    """Why an arm cannot be compared; empty where it can."""
    for name, of in ((arm, ""), (against, f" of {against}")):
        if name not in records.trials:
            return NO_TRIAL + of
        if name not in scores:
            return f"no confusion matrices{of}, and {rule_of(records, name)} is another rule than miou"
    if not same_frames(records, arm, against, "val"):
        return f"scored on other frames than {against}"
    return "" if set(scores[arm]) & set(scores[against]) else f"shares no seed with {against}"


def _row(
    records: AblationRecords, scores: Scores, arm: str, against: str, effect: Effect | None, said: str
) -> EffectRow:
    if effect:
        return EffectRow(arm, against, effect.n, effect.score, effect.interval, effect, effect.verdict)
    if arm not in scores:
        return EffectRow(arm, against, 0, None, "", None, said)
    score, kind = _own_score(scores[arm], records.matrices.get(arm, {}))
    return EffectRow(arm, against, len(scores[arm]), score, kind, None, said)


def _own_score(by_seed: Mapping[int, float], matrices: BySeed) -> tuple[Estimate, str]:
    """An arm's score by itself, with the interval that its effect would have."""
    values = list(by_seed.values())
    if len(values) >= SEEDS_FOR_T or not set(by_seed) <= set(matrices):
        return mean_interval(values), "t over seeds" if len(values) > 1 else "none"
    draws = [_resampled_miou(matrices[seed]) for seed in by_seed]
    return percentile_interval(float(np.mean(values)), np.mean(draws, axis=0)), "bootstrap over images"


def _resampled_miou(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dataset mIoU (resamples,) of images (N, C, C+1) drawn anew; nan for one image, which says nothing of others."""
    if len(matrices) == 1:
        return np.full(RESAMPLES, np.nan)
    weights = bootstrap_weights(len(matrices), RESAMPLES, generator())
    c = counts(matrices)
    return miou(type(c)(*(weights @ part for part in c)))


def _effect_cells(records: AblationRecords, row: EffectRow) -> tuple[str, ...]:
    guess = records.arms[row.arm].guess or ""
    if row.score is None:
        return ("0", *[DASH] * (len(_EFFECT_COLUMNS) - 3), row.said, guess)
    own = (str(row.n), number(row.score.point), span(row.score, number))
    e = row.effect
    if e is None:
        # nothing to say of a reference; a dash where something is missing
        gap = "" if row.arm == records.baseline or not row.against else DASH
        return (*own, gap, gap, row.interval, *[gap] * 5, row.said, guess)
    difference = (signed(e.difference.point), span(e.difference, signed), e.interval)
    tests = (p_value(e.p), p_value(e.p_holm), signed(e.g, 2), number(e.noise_floor), number(e.resolvable))
    return (*own, *difference, *tests, e.verdict, guess)


#: what a race costs its verdicts
RACED = (
    "raced: arms that were not resolved got further seeds, with a look at the scores after each; every look spends "
    "some of the error rate, so more than 5 % of such studies find a difference where there is none: confirm it with "
    "new seeds"
)


def _effect_notes(records: AblationRecords, rows: Sequence[EffectRow]) -> list[str]:
    return [
        "score: dataset mIoU of the best epoch on the validation frames; intervals are of 95 %; p, Holm p: paired t "
        "test over seeds, Holm over the comparisons of this table; g: Hedges' g_av; noise floor: deviation between "
        "seeds of one arm, pooled over arms; smallest resolvable: true difference found in 80 % of cases",
        VERDICT,
        *([RACED] if records.settings.race else []),
        *warnings_of(records, rows),
    ]


def _unlike(records: AblationRecords, arm: str, base: str) -> list[str]:
    """In what an arm is scored otherwise than the baseline."""
    own = records.arms[arm].experiment
    found = []
    if rule_of(records, arm) != "miou":
        found.append(
            f"{arm}: its best epoch was chosen by {rule_of(records, arm)}; its score here is mIoU all the same"
        )
    if own.protocol.select_on_test:
        found.append(f"{arm}: its best epoch was chosen on the test frames, and its score is theirs")
    raster = records.arms[base].experiment.evaluation.raster
    if own.evaluation.raster != raster:
        found.append(f"{arm}: scored at the {own.evaluation.raster} raster, {base} at the {raster} one")
    if base in records.trials and set(records.classes(arm)) != set(records.classes(base)):
        found.append(
            f"{arm}: its taxonomy has other classes than {base}'s ({_class_change(records, arm, base)}); part of its "
            "difference is the change of classes, see the table denominator"
        )
    return found


def _class_change(records: AblationRecords, arm: str, base: str) -> str:
    own, other = records.classes(arm), records.classes(base)
    signs = [f"without {n}" for n in other if n not in own] + [f"with {n}" for n in own if n not in other]
    return ", ".join(signs)
