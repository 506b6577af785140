"""The tables of an ablation, from its records alone: effects, rules, classes, cost, factors and runs.

Read from `ablation_tables` down: one function makes one table. Every resample is drawn with the same seed, so
that a rebuilt table is the same file. Neither torch nor ray.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import table as rich_table
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from harness.ablate.designs import SHAPLEY_EXACT, shapley_orders
from harness.ablate.effects import Effect, class_deltas, compare, compare_ladder, scores_of
from harness.ablate.factorial import FactorialEffect, factorial_effects, fraction_of
from harness.ablate.shapley import FactorShare, attribute, interaction_intervals
from harness.config.ablation import Arms, Factorial, Ladder, LeaveOneOut, OneFactor, Shapley, design_arms
from harness.metrics import CONVENTIONS, counts, dataset_counts, iou, miou, score_by_convention
from harness.report.records import AblationRecords
from harness.report.table import Table, write_table
from harness.stats import Estimate, bootstrap_weights, mean_interval, percentile_interval
from harness.store import EpochRow, Record, TrialRow, write_text

Scores = dict[str, dict[int, float]]
BySeed = Mapping[int, NDArray[np.int64]]

#: what a verdict rests on, and what it does not say
VERDICT = (
    "A verdict rests on seeds alone: better or worse where Holm's adjusted p of the paired t test over seeds is at "
    "most 0.05, so that the chance of any false verdict among the comparisons of a table is at most 5 %. Not "
    "resolved is not the same as no effect: a true difference below the smallest resolvable one mostly stays unseen. "
    "An interval over images, given below 3 seeds, says what other frames would change for these trained models, "
    "not what another training would."
)
ONE_SEED = "one seed: nothing can be said about seeds"
NO_TRIAL = "no complete trial"

_DASH = "–"
_OTHER = "other"  # what a taxonomy has and the one it is compared with has not
_RESAMPLES = 2000
_SEEDS_FOR_T = 3
_ROWS_ON_SCREEN = 16
_VISIBLE = 0.00005  # below it a difference prints as 0.0000


def ablation_tables(records: AblationRecords) -> dict[str, Table]:
    """Every table that the design allows, by name; an arm without a complete trial keeps its row, in dashes.

    Raises StudyError where stored matrices do not give the recorded scores, or differ in their images.
    """
    makers: list[Callable[[AblationRecords], Table]] = [_effects_table]
    design = records.settings.ablation.design
    if isinstance(design, Ladder):
        makers.append(_steps_table)
    if isinstance(design, Factorial):
        makers.append(_factorial_table)
    if isinstance(design, Shapley):
        makers += [_shapley_table, _interactions_table]
    makers += [
        _denominator_table, _conventions_table, _per_class_table, _per_class_delta_table, _validation_vs_test_table,
        _cost_table, _runs_table,
    ]  # fmt: skip
    tables = [make(records) for make in makers]
    return {table.name: table for table in tables}


def write_ablation_tables(records: AblationRecords, out: Path) -> list[Path]:
    """Write every table as Markdown, CSV and LaTeX, and index.md, into a folder that is made where needed.

    The same records give the same bytes. Returns the paths written; raises StudyError as ablation_tables does.
    """
    tables = ablation_tables(records)
    out.mkdir(parents=True, exist_ok=True)
    paths = [path for table in tables.values() for path in write_table(table, out)]
    index = out / "index.md"
    write_text(index, _index(records, tables))
    return [*paths, index]


def ablation_summary(records: AblationRecords) -> RenderableType:
    """The effects and the few sentences that matter, for a terminal of 60 columns or more."""
    rows = _against_baseline(records)
    design = records.settings.ablation.design
    parts: list[RenderableType] = [Text(), Text(_headline(records), "bold")]
    if isinstance(design, Shapley):
        columns = ("factor", "value", "interval", "share", "authors' guess")
        parts += [Text(), _factors_on_screen(_shapley_table(records), columns, columns[:2])]
    if isinstance(design, Factorial):
        columns = ("effect", "estimate", "interval", "Holm p", "verdict")
        parts += [Text(), _factors_on_screen(_factorial_table(records), columns, ("effect", "estimate", "verdict"))]
    if len(rows) <= _ROWS_ON_SCREEN:
        parts += [Text(), _effects_on_screen(f"against {records.baseline}", rows, records)]
    if isinstance(design, Ladder):
        parts += [Text(), _effects_on_screen("against the rung before", _against_previous(records), records)]
    return Group(*parts, Text(), *_sentences(records, rows))


# ---------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True)
class _Row:
    """An arm's own score, and its effect or why there is none (`said`, the verdict where there is one)."""

    arm: str
    against: str
    n: int
    score: Estimate | None
    interval: str
    effect: Effect | None
    said: str


_EFFECT_COLUMNS = (
    "n", "score", "score interval", "difference", "difference interval", "interval from", "p", "Holm p", "g",
    "noise floor", "smallest resolvable", "verdict", "authors' guess",
)  # fmt: skip


def _effects_table(records: AblationRecords) -> Table:
    rows = _against_baseline(records)
    factor = isinstance(records.settings.ablation.design, OneFactor | LeaveOneOut)
    columns = ("arm", *(["factor"] if factor else []), *_EFFECT_COLUMNS)
    cells = [(r.arm, *([_factor(records, r.arm)] if factor else []), *_effect_cells(records, r)) for r in rows]
    return _table(
        records,
        "effects",
        f"Every arm against {records.baseline}",
        columns,
        cells,
        [f"difference: the arm minus {records.baseline}, paired over seeds", *_effect_notes(records, rows)],
    )


def _steps_table(records: AblationRecords) -> Table:
    rows = _against_previous(records)
    cells = [(r.arm, r.against, *_effect_cells(records, r)) for r in rows]
    notes = [
        "difference: the rung minus the one named under against, paired over seeds; "
        "a rung that cannot be compared is stepped over",
        *_effect_notes(records, rows),
    ]
    columns = ("arm", "against", *_EFFECT_COLUMNS)
    return _table(records, "steps", "Every rung against the one before", columns, cells, notes)


def _against_baseline(records: AblationRecords) -> list[_Row]:
    scores, base = _scores(records), records.baseline
    why = {arm: _unpaired(records, scores, arm, base) for arm in _compared(records)}
    paired = {arm: scores[arm] for arm, reason in why.items() if not reason}
    found = compare(paired, base, _generator(), _matrices_of(records, paired)) if paired else []
    effects = {effect.arm: effect for effect in found}
    return [
        _row(records, scores, arm, "" if arm == base else base, effects.get(arm), reason or "baseline")
        for arm, reason in why.items()
    ]


def _against_previous(records: AblationRecords) -> list[_Row]:
    scores = _scores(records)
    kept: list[str] = []
    why, against = {}, {}
    for rung in _compared(records):
        against[rung] = kept[-1] if kept else ""
        why[rung] = _unpaired(records, scores, rung, against[rung] or rung)
        if not why[rung]:
            kept.append(rung)
    paired = {rung: scores[rung] for rung in kept}
    found = compare_ladder(paired, kept, _generator(), _matrices_of(records, paired)) if kept else []
    effects = {effect.arm: effect for effect in found}
    first = "first rung" if kept[:1] == list(why)[:1] else "no complete trial of a rung before it"
    return [_row(records, scores, r, against[r], effects.get(r), reason or first) for r, reason in why.items()]


def _scores(records: AblationRecords) -> Scores:
    """Dataset mIoU of every complete trial; what a team's rule scored is scored anew from its matrices."""
    anew = scores_of(records.matrices)
    own = {a: s if _rule(records, a) == "miou" else anew.get(a, {}) for a, s in records.scores.items()}
    return {arm: by_seed for arm, by_seed in own.items() if by_seed}


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
            return f"no confusion matrices{of}, and {_rule(records, name)} is another rule than miou"
    if not _same_frames(records, arm, against, "val"):
        return f"scored on other frames than {against}"
    return "" if set(scores[arm]) & set(scores[against]) else f"shares no seed with {against}"


def _row(records: AblationRecords, scores: Scores, arm: str, against: str, effect: Effect | None, said: str) -> _Row:
    if effect:
        return _Row(arm, against, effect.n, effect.score, effect.interval, effect, effect.verdict)
    if arm not in scores:
        return _Row(arm, against, 0, None, "", None, said)
    score, kind = _own_score(scores[arm], records.matrices.get(arm, {}))
    return _Row(arm, against, len(scores[arm]), score, kind, None, said)


def _own_score(by_seed: Mapping[int, float], matrices: BySeed) -> tuple[Estimate, str]:
    """An arm's score by itself, with the interval that its effect would have."""
    values = list(by_seed.values())
    if len(values) >= _SEEDS_FOR_T or not set(by_seed) <= set(matrices):
        return mean_interval(values), "t over seeds" if len(values) > 1 else "none"
    draws = [_resampled_miou(matrices[seed]) for seed in by_seed]
    return percentile_interval(float(np.mean(values)), np.mean(draws, axis=0)), "bootstrap over images"


def _resampled_miou(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dataset mIoU (resamples,) of images (N, C, C+1) drawn anew; nan for one image, which says nothing of others."""
    if len(matrices) == 1:
        return np.full(_RESAMPLES, np.nan)
    weights = bootstrap_weights(len(matrices), _RESAMPLES, _generator())
    c = counts(matrices)
    return miou(type(c)(*(weights @ part for part in c)))


def _effect_cells(records: AblationRecords, row: _Row) -> tuple[str, ...]:
    guess = records.arms[row.arm].guess or ""
    if row.score is None:
        return ("0", *[_DASH] * (len(_EFFECT_COLUMNS) - 3), row.said, guess)
    own = (str(row.n), _number(row.score.point), _span(row.score, _number))
    e = row.effect
    if e is None:
        # nothing to say of a reference; a dash where something is missing
        gap = "" if row.arm == records.baseline or not row.against else _DASH
        return (*own, gap, gap, row.interval, *[gap] * 5, row.said, guess)
    difference = (_signed(e.difference.point), _span(e.difference, _signed), e.interval)
    tests = (_p(e.p), _p(e.p_holm), _signed(e.g, 2), _number(e.noise_floor), _number(e.resolvable))
    return (*own, *difference, *tests, e.verdict, guess)


def _effect_notes(records: AblationRecords, rows: Sequence[_Row]) -> list[str]:
    return [
        "score: dataset mIoU of the best epoch on the validation frames; intervals are of 95 %; p, Holm p: paired t "
        "test over seeds, Holm over the comparisons of this table; g: Hedges' g_av; noise floor: deviation between "
        "seeds of one arm, pooled over arms; smallest resolvable: true difference found in 80 % of cases",
        VERDICT,
        *_warnings(records, rows),
    ]


def _warnings(records: AblationRecords, rows: Sequence[_Row]) -> list[str]:
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
    aside = [arm for arm in records.arms if arm not in {row.arm for row in rows}]
    if aside:
        found.append(f"{', '.join(aside)}: trained for the weights that others start from, not compared by the design")
    return found


def _unlike(records: AblationRecords, arm: str, base: str) -> list[str]:
    """In what an arm is scored otherwise than the baseline."""
    own = records.arms[arm].experiment
    found = []
    if _rule(records, arm) != "miou":
        found.append(f"{arm}: its best epoch was chosen by {_rule(records, arm)}; its score here is mIoU all the same")
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


# ------------------------------------------------------------------------------------------------ rules


class _Scored(NamedTuple):
    """A trial under two rules: its classes, the IoU of those with a union, and which of them the truth holds."""

    union: float
    truth: float
    names: tuple[str, ...]
    ious: dict[str, float]
    true: tuple[str, ...]


@dataclass(frozen=True)
class _Gain:
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


def _denominator_table(records: AblationRecords) -> Table:
    columns = (
        "arm", "against", "no longer predicted", "frames", "seeds", "classes averaged by union_present",
        "classes averaged by miou", "gain under union_present", "gain under miou", "gain over the same classes",
        "change of denominator", "its share",
    )  # fmt: skip
    cells = [_gain_cells(records, *pair) for pair in _gain_pairs(records)]
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
    return _table(records, "denominator", "How much of a gain is the scoring rule", columns, cells, notes)


def _gain_pairs(records: AblationRecords) -> list[tuple[str, str]]:
    pairs = []
    for name, arm in records.arms.items():
        if len(arm.start) == 1 and _gone(records, name, arm.start[0]):
            pairs.append((name, arm.start[0]))
        if name != records.baseline:
            pairs.append((name, records.baseline))
    return list(dict.fromkeys(pairs))


def _gone(records: AblationRecords, arm: str, against: str) -> tuple[str, ...]:
    """Classes that an arm no longer predicts: suppressed, or not in its taxonomy; only what is known is said."""
    own, other = (records.arms[name].experiment.evaluation.suppress for name in (arm, against))
    gone = [name for name in own if name not in other]
    if arm in records.trials and against in records.trials:
        gone += [name for name in records.classes(against) if name not in records.classes(arm) and name not in other]
    return tuple(dict.fromkeys(gone))


def _gain_cells(records: AblationRecords, arm: str, against: str) -> tuple[str, ...]:
    gone, gain = ", ".join(_gone(records, arm, against)), _gain(records, arm, against)
    if gain is None:
        without = [name for name in (arm, against) if name not in records.trials]
        why = f"{NO_TRIAL} of {without[0]}" if without else "none in common"
        return (arm, against, gone, why, *[_DASH] * 8)
    gains = map(_signed, (gain.union, gain.truth, gain.same, gain.denominator))
    return (arm, against, gone, gain.split, str(gain.seeds), *gain.averaged, *gains, _percent(gain.share))


def _gain(records: AblationRecords, arm: str, against: str) -> _Gain | None:
    """An arm's gain on the frames, test before validation, that both were scored on; None where there are none."""
    for split, matrices in (("test", records.test_matrices), ("val", records.matrices)):
        own, other = matrices.get(arm, {}), matrices.get(against, {})
        seeds = sorted(set(own) & set(other))
        if seeds and _same_frames(records, arm, against, split):
            a, b = ([_scored(m[s], records.classes(n)) for s in seeds] for m, n in ((own, arm), (other, against)))
            pairs = list(zip(a, b, strict=True))
            return _Gain(
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


def _conventions_table(records: AblationRecords) -> Table:
    cells = []
    for arm in records.arms:
        split, by_seed = _best_split(records, arm)
        if not by_seed:
            cells.append((arm, _missing(records, arm), "0", *[_DASH] * len(CONVENTIONS)))
            continue
        scored = [score_by_convention(m, records.classes(arm)) for m in by_seed.values()]
        means = (np.mean([values[rule] for values in scored]) for rule in CONVENTIONS)
        cells.append((arm, split, str(len(by_seed)), *map(_number, means)))
    notes = [
        "one set of predictions an arm, the best epoch's; mean over seeds; numbers of different columns, or of "
        "different frames, are not comparable",
        *(f"{name}: {convention.definition}" for name, convention in CONVENTIONS.items()),
    ]
    columns = ("arm", "frames", "seeds", *CONVENTIONS)
    return _table(records, "conventions", "The same predictions under every scoring rule", columns, cells, notes)


def _best_split(records: AblationRecords, arm: str) -> tuple[str, BySeed]:
    if arm in records.test_matrices:
        return "test", records.test_matrices[arm]
    return _split(records, arm, "val"), records.matrices.get(arm, {})


# ---------------------------------------------------------------------------------------------- classes


def _per_class_table(records: AblationRecords) -> Table:
    ious = {arm: _mean_ious(records.matrices.get(arm, {}), records, arm) for arm in records.arms}
    scores = {arm: float(np.mean(list(values.values()))) for arm, values in scores_of(records.matrices).items()}
    cells = [(n, *(_class_cell(records, arm, n, ious[arm]) for arm in ious)) for n in _class_names(records)]
    cells.append(("mIoU", *(_number(scores.get(arm, math.nan)) for arm in ious)))
    notes = ["IoU over the validation frames, mean over seeds", *_class_notes(records)]
    return _table(records, "per_class", "IoU of every class", ("class", *ious), cells, notes)


def _per_class_delta_table(records: AblationRecords) -> Table:
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
    return _table(records, "per_class_delta", title, ("class", *arms), cells, notes)


def _class_notes(records: AblationRecords) -> list[str]:
    missing = [f"{arm}: {_missing(records, arm)}" for arm in records.arms if arm not in records.matrices]
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
    return "" if _lacks(records, arm, name) else _number(ious.get(name, math.nan))


def _delta_cell(records: AblationRecords, arm: str, name: str, deltas: Mapping[str, Estimate]) -> str:
    if any(_lacks(records, a, name) for a in (arm, records.baseline)):
        return ""
    delta = deltas.get(name)
    if delta is None or math.isnan(delta.point):
        return _DASH
    return f"{_signed(delta.point)} ({_span(delta, _signed)})"


def _lacks(records: AblationRecords, arm: str, name: str) -> bool:
    return arm in records.trials and name not in records.classes(arm)


def _deltas(records: AblationRecords, arm: str) -> dict[str, Estimate]:
    """IoU minus the baseline's of the classes that both taxonomies name; empty where nothing can be paired."""
    base = records.baseline
    own, other = records.matrices.get(arm, {}), records.matrices.get(base, {})
    if not set(own) & set(other) or not _same_frames(records, arm, base, "val"):
        return {}
    shared = [name for name in records.classes(base) if name in records.classes(arm)]
    lumped = {
        name: {seed: _lump(m, records.classes(name), shared) for seed, m in by_seed.items()}
        for name, by_seed in ((base, other), (arm, own))
    }
    # the last is what was lumped together
    return dict(zip(shared, class_deltas(lumped, base, _generator())[arm][:-1], strict=True))


def _lump(matrices: NDArray[np.int64], names: Sequence[str], shared: Sequence[str]) -> NDArray[np.int64]:
    """Matrices (N, C, C+1) of the shared classes and one more for all others: the shared IoUs stay as they are."""
    place = [*(shared.index(n) if n in shared else len(shared) for n in names), len(shared) + 1]
    onto = np.zeros((len(place), len(shared) + 2), np.int64)
    onto[np.arange(len(place)), place] = 1
    return onto[:-1, :-1].T @ matrices @ onto


def _validation_vs_test_table(records: AblationRecords) -> Table:
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
    return _table(records, "validation_vs_test", "Validation against test", columns, cells, notes)


def _gap_rows(records: AblationRecords, arm: str) -> list[tuple[str, ...]]:
    val, test = records.matrices.get(arm, {}), records.test_matrices.get(arm, {})
    seeds = sorted(set(val) & set(test))
    if not seeds:
        return []
    both = [{seed: m[seed] for seed in seeds} for m in (val, test)]
    before, after = (_mean_ious(m, records, arm) for m in both)
    means = [float(np.mean(list(scores_of({arm: m})[arm].values()))) for m in both]
    rows = [(name, before[name], after[name]) for name in before] + [("mIoU", *means)]
    return [(arm, name, str(len(seeds)), _number(v), _number(t), _signed(t - v)) for name, v, t in rows]


# ------------------------------------------------------------------------------------------------- cost


def _cost_table(records: AblationRecords) -> Table:
    cells = [_cost_cells(records, arm) for arm in records.arms]
    cells.append(_total_cells(records))
    notes = [
        "complete trials only; hours: wall-clock of training and validation, of one GPU or, where the device is a "
        "CPU, of one CPU process: GPU-hours or CPU-hours; the weights that an arm starts from are not counted again",
        "seconds per epoch: training and validation; ms per image: a validation pass, loading and loss included, every "
        "view of test-time augmentation counted; peak memory: the most that one trial had allocated on its GPU",
    ]
    timed = [arm for arm in records.trials if records.arms[arm].experiment.training.score_training_set]
    if timed:
        notes.append(f"{', '.join(timed)}: the training set was scored in that time too: ms per image is unknown")
    columns = (
        "arm", "trials", "epochs", "hours", "device", "seconds per epoch", "parameters", "ms per image", "peak MB",
    )  # fmt: skip
    return _table(records, "cost", "What every arm cost", columns, cells, notes)


def _cost_cells(records: AblationRecords, arm: str) -> tuple[str, ...]:
    trials = list(records.trials.get(arm, {}).values())
    if not trials:
        return (arm, f"0 of {records.settings.seeds}", *[_DASH] * 7)
    rows = [row for of_seed in records.epochs[arm].values() for row in of_seed]
    trained = [row.train_seconds + row.val_seconds for row in rows if row.epoch > 0]
    # 0: rows written before parameters were counted
    parameters = max(row.parameters for row in rows)
    peaks = [row.peak_memory_mb for row in rows if row.peak_memory_mb is not None]
    return (
        arm,
        f"{len(trials)} of {max(records.settings.seeds, len(trials))}",
        *_time_cells(trials, rows),
        f"{np.mean(trained):.2f}" if trained else _DASH,
        f"{parameters:,}" if parameters else _DASH,
        _milliseconds(records, arm),
        f"{max(peaks):.0f}" if peaks else _DASH,
    )


def _total_cells(records: AblationRecords) -> tuple[str, ...]:
    trials = [trial for by_seed in records.trials.values() for trial in by_seed.values()]
    rows = [row for by_seed in records.epochs.values() for of_seed in by_seed.values() for row in of_seed]
    asked = max(records.settings.seeds * len(records.arms), len(trials))
    times = _time_cells(trials, rows) if trials else [_DASH] * 3
    return ("all", f"{len(trials)} of {asked}", *times, "", "", "", "")


def _time_cells(trials: Sequence[TrialRow], rows: Sequence[EpochRow]) -> tuple[str, str, str]:
    """Epochs, hours and the device."""
    on_gpu = {row.peak_memory_mb is not None for row in rows}
    device = "GPU and CPU" if len(on_gpu) > 1 else "GPU" if True in on_gpu else "CPU"
    return str(sum(t.epochs for t in trials)), f"{sum(t.seconds for t in trials) / 3600:.4f}", device


def _milliseconds(records: AblationRecords, arm: str) -> str:
    by_seed = records.matrices.get(arm, {})
    if not by_seed or records.arms[arm].experiment.training.score_training_set:
        return _DASH
    rows = [(row.val_seconds, len(m)) for seed, m in by_seed.items() for row in records.epochs[arm][seed]]
    return f"{1000 * sum(s for s, _ in rows) / sum(n for _, n in rows):.1f}"


# ---------------------------------------------------------------------------------------------- factors


def _shapley_table(records: AblationRecords) -> Table:
    ablation, factors = records.settings.ablation, list(records.settings.ablation.factors)
    columns = ("factor", "value", "interval", "share", "share interval", "order error", "authors' guess")
    guesses = {name: factor.guess or "" for name, factor in ablation.factors.items()}
    title, why = "Each factor's fair share of the gain (Shapley)", _incomplete(records)
    if why:
        cells = [(name, *[_DASH] * 5, guesses[name]) for name in factors]
        return _table(records, "shapley", title, columns, cells, [why])
    sampled = len(factors) > SHAPLEY_EXACT
    orders = shapley_orders(factors, ablation.design.permutations) if sampled else None
    found = attribute(_by_subset(records), factors, _generator(), orders)
    cells = [_share_cells(share, guesses[share.factor]) for share in found.shares]
    whole = "" if math.isnan(found.shares[0].share.point) else "100.0 %"
    total = (_signed(found.total.point), _span(found.total, _signed))
    cells.append(("total gain", *total, whole, "", "", ""))
    notes = [
        f"the values sum to the total gain from no factor to all, {total[0]}, over {found.n} seed(s); value interval: "
        "Student's t over seeds; share interval: bootstrap over seeds, too narrow with few",
        "a share is left out where the total gain is not told from 0",
        f"estimated from {len(orders)} orders of factors" if orders else "every subset was run: no order error",
        *([ONE_SEED] if found.n == 1 else []),
    ]
    return _table(records, "shapley", title, columns, cells, notes)


def _share_cells(share: FactorShare, guess: str) -> tuple[str, ...]:
    value = (_signed(share.value.point), _span(share.value, _signed))
    part = (_percent(share.share.point), _span(share.share, _percent))
    return (share.factor, *value, *part, _number(share.order_error), guess)


def _interactions_table(records: AblationRecords) -> Table:
    factors = list(records.settings.ablation.factors)
    why = _incomplete(records)
    if len(factors) > SHAPLEY_EXACT:
        why = f"interactions need every subset; above {SHAPLEY_EXACT} factors only some are run"
    found = {} if why else interaction_intervals(_by_subset(records), factors)
    cells = [(_product(pair, factors), _signed(e.point), _span(e, _signed)) for pair, e in found.items()]
    notes = [
        "what two factors add together beyond what each adds alone; 95 % interval, Student's t over seeds",
        *([why] if why else []),
    ]
    columns = ("factors", "interaction", "interval")
    return _table(records, "interactions", "Interactions of two factors", columns, cells, notes)


def _factorial_table(records: AblationRecords) -> Table:
    ablation, factors = records.settings.ablation, list(records.settings.ablation.factors)
    columns = ("effect", "estimate", "interval", "p", "Holm p", "verdict", "aliases", "authors' guess")
    fraction, why = fraction_of(factors, ablation.design.halvings), _incomplete(records)
    arms = {name: arm.factors for name, arm in records.arms.items()}
    found = [] if why else factorial_effects(_scores(records), arms, fraction)
    cells = [_factorial_cells(effect, factors, _guess_of(records, effect.factors)) for effect in found]
    if why:
        cells = [(name, *[_DASH] * 6, ablation.factors[name].guess or "") for name in factors]
    kind = f"a fraction of resolution {fraction.resolution}" if fraction.words else "the full factorial: no aliases"
    notes = [
        "main effect: mean score with the factor on minus with it off; interaction: half of what one factor changes "
        "in the other's effect; 95 % interval by least squares, seeds as blocks; Holm over the effects of this table",
        f"{kind}; an estimate is the effect plus its aliases, with their signs",
        *([why] if why else []),
    ]
    return _table(records, "factorial", "Main effects and interactions of two", columns, cells, notes)


def _factorial_cells(effect: FactorialEffect, factors: Sequence[str], guess: str) -> tuple[str, ...]:
    e = effect.effect
    verdict = "not resolved" if not effect.p_holm <= 0.05 else "better" if e.point > 0 else "worse"
    aliases = ", ".join(f"{'+' if sign > 0 else '-'}{_product(alias, factors)}" for sign, alias in effect.aliases)
    numbers = (_signed(e.point), _span(e, _signed), _p(effect.p), _p(effect.p_holm))
    return (_product(effect.factors, factors), *numbers, verdict, aliases, guess)


def _incomplete(records: AblationRecords) -> str:
    """Why the factors' effects cannot be told; empty where they can."""
    scores = _scores(records)
    missing = [arm for arm in records.arms if arm not in scores]
    if missing:
        return f"{NO_TRIAL} of {', '.join(missing)}: the factors' effects need every arm of the design"
    common = set.intersection(*(set(by_seed) for by_seed in scores.values()))
    return "" if common else "no seed is complete in every arm: the factors' effects need one"


def _by_subset(records: AblationRecords) -> dict[frozenset[str], dict[int, float]]:
    return {records.arms[arm].factors: by_seed for arm, by_seed in _scores(records).items()}


def _factor(records: AblationRecords, arm: str) -> str:
    """The one factor by which an arm differs from its baseline."""
    return ", ".join(sorted(records.arms[arm].factors ^ records.arms[records.baseline].factors))


def _guess_of(records: AblationRecords, names: frozenset[str]) -> str:
    return records.settings.ablation.factors[next(iter(names))].guess or "" if len(names) == 1 else ""


def _product(names: frozenset[str], factors: Sequence[str]) -> str:
    return " × ".join(name for name in factors if name in names)


# ------------------------------------------------------------------------------------------------- runs


def _runs_table(records: AblationRecords) -> Table:
    cells = [
        (t.trial, arm, str(seed), _number(t.score), str(t.best_epoch), str(t.epochs), f"{t.seconds:.1f}")
        for arm, by_seed in records.trials.items()
        for seed, t in by_seed.items()
    ]
    failed = [row for row in Record(records.folder).ended.values() if row.outcome == "failed"]
    notes = [
        "score: the best epoch's, as it was recorded; epoch 0: the weights that the training started from",
        *(f"{arm}: {NO_TRIAL}" for arm in records.arms if arm not in records.trials),
        *(f"failed: {row.trial} ({row.picked.get('arm')}, seed {row.seed}): {row.error}" for row in failed),
    ]
    columns = ("trial", "arm", "seed", "score", "best epoch", "epochs", "seconds")
    return _table(records, "runs", "Every complete trial", columns, cells, notes)


# ------------------------------------------------------------------------------------- index and screen

_WIDE = 90  # columns of a terminal from which a table shows everything
_WORDS = ("arm", "factor", "effect", "verdict", "guess", "authors' guess")


@dataclass(frozen=True)
class _Fitting:
    """A table for a wide terminal, and one of fewer columns."""

    title: str
    wide: rich_table.Table
    narrow: rich_table.Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, "bold")
        yield self.wide if options.max_width >= _WIDE else self.narrow


def _index(records: AblationRecords, tables: Mapping[str, Table]) -> str:
    asked = records.settings
    lines = [
        f"# Ablation {records.folder.name}",
        "",
        f"- design: {asked.ablation.design.kind}, baseline {records.baseline}",
        f"- arms: {', '.join(records.arms)}",
        f"- scale: {asked.scale}",
        f"- seeds: {asked.seeds} of every arm; complete trials: {sum(map(len, records.trials.values()))} of "
        f"{asked.seeds * len(records.arms)}",
        f"- data set: fingerprint {asked.dataset}",
        f"- commit: {_commit(records)}",
        "",
        VERDICT,
        "",
        *(f"- {note}" for note in _warnings(records, _against_baseline(records))),
        *(f"- {arm}: {NO_TRIAL}" for arm in records.arms if arm not in records.trials),
        "",
        *(f"- [{table.name}]({table.name}.md): {table.title}" for table in tables.values()),
    ]
    return "\n".join(lines) + "\n"


def _commit(records: AblationRecords) -> str:
    path = records.folder.provenance
    if not path.exists():
        return f"unknown, {path.name} is missing"
    return json.loads(path.read_text())["commit"] or "unknown, not a git checkout"


def _headline(records: AblationRecords) -> str:
    asked = records.settings
    return f"{records.folder.name}: {asked.ablation.design.kind}, scale {asked.scale}, seeds {asked.seeds}"


def _effects_on_screen(title: str, rows: Sequence[_Row], records: AblationRecords) -> _Fitting:
    guesses = any(records.arms[row.arm].guess for row in rows)
    wide = _grid(["arm", "n", "mIoU", "gain", "95 % interval", "Holm p", "verdict"] + ["guess"] * guesses)
    narrow = _grid(["arm", "mIoU", "gain", "verdict"])
    styles = {"better": "green", "worse": "red"}
    for row in rows:
        e = row.effect
        score = _number(row.score.point) if row.score else _DASH
        gain, *rest = [_signed(e.difference.point), _span(e.difference, _signed), _p(e.p_holm)] if e else [""] * 3
        verdict = Text(row.said, styles.get(row.said, "dim"))
        guess = [Text(records.arms[row.arm].guess or "", "dim")] * guesses
        wide.add_row(*map(Text, (row.arm, str(row.n), score, gain, *rest)), verdict, *guess)
        narrow.add_row(*map(Text, (row.arm, score, gain)), verdict)
    return _Fitting(title, wide, narrow)


def _factors_on_screen(table: Table, wide: Sequence[str], narrow: Sequence[str]) -> _Fitting:
    """Some columns of a table of factors."""
    grids = []
    for columns in (wide, narrow):
        grid = _grid(columns)
        for row in table.rows:
            grid.add_row(*(Text(row[table.columns.index(column)]) for column in columns))
        grids.append(grid)
    return _Fitting(table.title, *grids)


def _grid(columns: Sequence[str]) -> rich_table.Table:
    """An empty table in which words may wrap and numbers may not."""
    table = rich_table.Table(box=None, pad_edge=False)
    for column in columns:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _sentences(records: AblationRecords, rows: Sequence[_Row]) -> list[Text]:
    effects = [row.effect for row in rows if row.effect]
    found = [Text(_resolved(effects), "bold")] if effects else []
    tested = [e for e in effects if not math.isnan(e.resolvable)]
    if tested:
        least, most = (_number(f(e.resolvable for e in tested)) for f in (min, max))
        found.append(
            Text(
                f"Another seed alone moves a score by {_number(tested[0].noise_floor)} (noise floor); the smallest "
                f"difference that this study resolves is {least if least == most else f'{least} to {most}'}."
            )
        )
    found += [Text(f"{note}.", "yellow") for note in _warnings(records, rows)]
    found += [Text(sentence, "yellow") for sentence in _denominator_sentences(records)]
    if any(e.interval == "bootstrap over images" for e in effects):
        found.append(Text("Intervals are over images: other frames, not another training.", "dim"))
    rests = "Verdicts: paired t test over seeds, Holm's p at most 0.05. Not resolved is not no effect."
    return [*found, Text(rests, "dim")]


def _resolved(effects: Sequence[Effect]) -> str:
    words = [(word, [e.arm for e in effects if e.verdict == word]) for word in ("better", "worse")]
    said = [f"{word}: {', '.join(arms)}" for word, arms in words if arms]
    left = sum(e.verdict == "not resolved" for e in effects)
    return "; ".join([*said, f"not resolved: {left} of {len(effects)}"])


def _denominator_sentences(records: AblationRecords) -> list[str]:
    gains = [(*pair, gain) for pair in _gain_pairs(records) if (gain := _gain(records, *pair)) and gain.gone]
    return [
        f"{arm} against {against}, {gain.split} frames: {_signed(gain.union)} under union_present, "
        f"{_signed(gain.same)} over the same classes; {_percent(gain.share)} is only the change of denominator."
        for arm, against, gain in gains
        if not math.isnan(gain.share)
    ]


# ----------------------------------------------------------------------------------------------- shared


def _table(
    records: AblationRecords,
    name: str,
    title: str,
    columns: Sequence[str],
    cells: Iterable[tuple[str, ...]],
    notes: Sequence[str],
) -> Table:
    """A table with the study's provenance as its last note."""
    asked = records.settings
    source = (
        f"study {records.folder.name}, {asked.ablation.design.kind} at scale {asked.scale}, seeds {asked.seeds}, "
        f"data set {asked.dataset}"
    )
    return Table(name, title, tuple(columns), tuple(cells), (*notes, source))


def _generator() -> np.random.Generator:
    """Always the same draws, so that a rebuilt table is the same file."""
    return np.random.default_rng(0)


def _compared(records: AblationRecords) -> list[str]:
    """The arms that the design compares, without those that are there only to start others."""
    design = records.settings.ablation.design
    return list(design_arms(design) if isinstance(design, Ladder | Arms) else records.arms)


def _rule(records: AblationRecords, arm: str) -> str:
    return records.arms[arm].experiment.protocol.score


def _split(records: AblationRecords, arm: str, split: str) -> str:
    """The frames' name; what validated an arm that chooses on the test frames is not called validation."""
    chosen_on_it = split == "val" and records.arms[arm].experiment.protocol.select_on_test
    return "test, chosen on it" if chosen_on_it else split


def _same_frames(records: AblationRecords, arm: str, against: str, split: str) -> bool:
    a, b = (records.arms[name].experiment for name in (arm, against))
    same = (a.data.root, a.data.synthetic) == (b.data.root, b.data.synthetic)
    return same and (split == "test" or a.protocol.select_on_test == b.protocol.select_on_test)


def _missing(records: AblationRecords, arm: str) -> str:
    return "no confusion matrices" if arm in records.trials else NO_TRIAL


def _mean(values: Iterable[float]) -> float:
    """Mean; nan of nothing."""
    known = list(values)
    return float(np.mean(known)) if known else math.nan


def _number(value: float) -> str:
    return _DASH if math.isnan(value) else f"{value:.4f}"


def _signed(value: float, digits: int = 4) -> str:
    """With its sign, but for what prints as nothing but zeros."""
    if math.isnan(value):
        return _DASH
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def _percent(value: float) -> str:
    # the sum makes -0.0 a plain 0
    return _DASH if math.isnan(value) else f"{round(100 * value, 1) + 0.0:.1f} %"


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else _number(value)


def _span(estimate: Estimate, show: Callable[[float], str]) -> str:
    return _DASH if math.isnan(estimate.low) else f"{show(estimate.low)} to {show(estimate.high)}"
