"""Plots of what changes did to the score: differences, ladders, shares, rules, cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.ablate.designs import SHAPLEY_EXACT, shapley_orders
from harness.ablate.effects import Effect, Matrices, Scores, class_deltas, compare, compare_ladder, scores_of
from harness.ablate.shapley import Attribution, attribute
from harness.config.ablation import Arms, Factorial, Ladder, Shapley, design_arms
from harness.metrics import CONVENTIONS
from harness.report.plot_runs import MOST_ROWS
from harness.report.plot_shapes import INK, MUTED, Chart, HeatMap, LeftOut, LineChart, Panel, Point, RowChart, Series, point
from harness.report.plot_style import BLUE, GREY, VERDICTS, VERMILION, interval_text, listed, ordered_colours, short, signed
from harness.report.records import AblationRecords
from harness.stats import Estimate, mean_interval

_OF_THE_GAIN = re.compile(r"(\d+(?:\.\d+)?)\s*% of the (?:total )?gain")
_IN_POINTS = re.compile(r"([+-]0?\.\d+)")
_HOUR = 3600


@dataclass(frozen=True)
class Comparisons:
    """The arms that the design compares, as far as they have complete trials, and how they compare."""

    records: AblationRecords

    @cached_property
    def matrices(self) -> Matrices | None:
        """Matrices of every score, or none."""
        found, scores = self.records.matrices, self.records.scores
        return found if all(set(by_seed) <= set(found.get(arm, {})) for arm, by_seed in scores.items()) else None

    @cached_property
    def scores(self) -> Scores:
        """Dataset mIoU of each trial, the same rule for every arm; the trials' own scores where matrices lack."""
        scores = self.records.scores if self.matrices is None else scores_of(self.matrices)
        return {arm: scores[arm] for arm in self._compared() if arm in scores}

    @cached_property
    def effects(self) -> list[Effect]:
        """Every arm that shares a seed with the baseline against it; none where the baseline has no score."""
        reference = self.records.baseline
        if reference not in self.scores:
            return []
        seeds = set(self.scores[reference])
        kept = {arm: by_seed for arm, by_seed in self.scores.items() if seeds & set(by_seed)}
        return compare(kept, reference, np.random.default_rng(0), self.matrices)

    @cached_property
    def steps(self) -> list[Effect]:
        """Every rung against the one before it that shares a seed with it."""
        rungs: list[str] = []
        for arm, by_seed in self.scores.items():
            if not rungs or set(by_seed) & set(self.scores[rungs[-1]]):
                rungs.append(arm)
        return compare_ladder({arm: self.scores[arm] for arm in rungs}, rungs, np.random.default_rng(0), self.matrices)

    @property
    def is_ladder(self) -> bool:
        return isinstance(self.records.settings.ablation.design, Ladder)

    @property
    def score_title(self) -> str:
        return "validation mIoU, 0–1" if self.matrices else "validation score, 0–1"

    def notes(self, effects: Sequence[Effect]) -> tuple[str, ...]:
        """What the intervals are, and which arms score other classes."""
        kinds = listed(list(dict.fromkeys(_INTERVALS[e.interval] for e in effects)))
        verdict = "Colour: verdict of paired t tests over seeds, Holm's adjustment, at 5 %."
        return (f"95 % intervals: {kinds}. {verdict}", *self._other_classes())

    def _compared(self) -> tuple[str, ...]:
        design = self.records.settings.ablation.design
        return design_arms(design) if isinstance(design, Ladder | Arms) else tuple(self.records.arms)

    def _other_classes(self) -> tuple[str, ...]:
        reference = self.records.classes(self.records.baseline)
        others = [arm for arm in self.scores if self.records.classes(arm) != reference]
        if not others:
            return ()
        return (f"Not of the same classes as {self.records.baseline}, so partly another score: {listed(others)}.",)


_INTERVALS = {
    "t over seeds": "Student's t over paired seeds",
    "bootstrap over images": "bootstrap over images (fewer than 3 seeds)",
    "none": "none (one seed)",
}


def forest(study: Comparisons) -> Chart | LeftOut:
    """Difference of every arm from the baseline, with its interval, over the band of noise between seeds."""
    effects = study.effects
    if not effects:
        return LeftOut("differences", _too_few(study))
    baseline, floor = study.records.baseline, effects[0].noise_floor
    series = [
        Series(verdict, tuple(point(e.arm, e.difference) for e in effects if e.verdict == verdict), colour, "dot")
        for verdict, colour in VERDICTS.items()
    ]
    band = () if np.isnan(floor) else (f"Grey band: ± {floor:.3f}, the standard deviation between seeds.",)
    return RowChart(
        "differences", f"Difference from {baseline}", f"difference in {study.score_title}",
        tuple(e.arm for e in effects), (Panel("", _filled(series)),), reference=0.0, band=floor,
        texts=tuple(signed(e.difference.point) + interval_text(*e.difference[1:]) for e in effects),
        notes=(*band, *study.notes(effects)),
    )  # fmt: skip


def waterfall(study: Comparisons) -> Chart | LeftOut:
    """What each rung of a ladder adds to the one before, from the first to the last."""
    if not study.is_ladder:
        return LeftOut("ladder", "the design is no ladder")
    if len(study.scores) < 2 or not study.steps:
        return LeftOut("ladder", _too_few(study))
    steps, first = study.steps, study.steps[0].against
    start = mean_interval(list(study.scores[first].values()))
    ends = np.cumsum([start.point, *(e.difference.point for e in steps)]).tolist()
    bars = {v: tuple(point(e.arm, e.difference, s) for e, s in zip(steps, ends, strict=False) if e.verdict == v) for v in VERDICTS}
    total = "total gain"
    rows = (first, *(e.arm for e in steps), total)
    series = [Series(verdict, points, VERDICTS[verdict], "bar") for verdict, points in bars.items()]
    links = [p for i, end in enumerate(ends) for p in (Point(rows[i], end), Point(rows[i + 1], end))]
    gain = next((e.difference for e in study.effects if e.arm == steps[-1].arm), None)
    whole = () if gain is None else (Series(total, (point(total, gain, start.point),), MUTED, "bar"),)
    return RowChart(
        "ladder", "What each step adds", study.score_title, rows if whole else rows[:-1],
        (Panel("", (Series("", tuple(links if whole else links[:-2]), MUTED, "connector"), *_filled(series), *whole,
                    Series(first, (point(first, start),), INK, "dot"))),),
        texts=(f"{start.point:.3f}", *(signed(e.difference.point) for e in steps), *([signed(gain.point)] if gain else [])),
        notes=study.notes(steps),
    )  # fmt: skip


def shapley_bars(study: Comparisons) -> Chart | LeftOut:
    """Each factor's share of the gain from none to all, beside what was guessed."""
    ablation = study.records.settings.ablation
    found = _attribution(study)
    if isinstance(found, LeftOut):
        return found
    guesses = {name: factor.guess for name, factor in ablation.factors.items()}
    bars = tuple(point(s.factor, s.value) for s in found.shares)
    total = (point("all factors", found.total),)
    guessed = tuple(
        Point(name, value) for name, text in guesses.items() if (value := guessed_gain(text, found.total.point)) is not None
    )
    notes = [
        f"95 % intervals: {'Student' + chr(39) + 's t over ' + str(found.n) + ' seeds' if found.n > 1 else 'none (one seed)'}. "
        "The bars of the factors add up to the last one.",
        *([f"Guesses of the authors: {'; '.join(f'{k}: {v}' for k, v in guesses.items() if v)}."] if any(guesses.values()) else []),
    ]
    series = [Series("Shapley value", bars, BLUE, "bar"), Series("all factors", total, MUTED, "bar")]
    return RowChart(
        "shapley", "What each factor adds, averaged over the orders of adding", f"gain in {study.score_title}",
        (*(s.factor for s in found.shares), "all factors"),
        (Panel("", _filled([*series, Series("guess", guessed, VERMILION, "diamond")])),), reference=0.0,
        texts=tuple(signed(e.point) + interval_text(*e[1:]) for e in (*(s.value for s in found.shares), found.total)),
        notes=tuple(notes),
    )  # fmt: skip


def guessed_gain(text: str | None, total: float) -> float | None:
    """The gain that a guess names, as "40 % of the gain" or "+0.13"; none where it names neither."""
    share = _OF_THE_GAIN.search(text or "")
    if share:
        return float(share[1]) / 100 * total
    absolute = _IN_POINTS.search(text or "")
    return float(absolute[1]) if absolute else None


def delta_map(study: Comparisons) -> Chart | LeftOut:
    """IoU of each class of each arm minus the baseline's."""
    reference, records = study.records.baseline, study.records
    if reference not in records.matrices:
        return LeftOut("class_differences", f"baseline '{reference}' has no confusion matrices")
    names, seeds = records.classes(reference), set(records.matrices[reference])
    same = {a: m for a, m in records.matrices.items() if a in study.scores and records.classes(a) == names and seeds & set(m)}
    if len(same) < 2:
        return LeftOut("class_differences", "no other arm has confusion matrices of the baseline's classes and seeds")
    deltas = class_deltas(same, reference, np.random.default_rng(0))
    present = [i for i in range(len(names)) if any(not np.isnan(own[i].point) for own in deltas.values())]
    cells = tuple(tuple(point(names[i], own[i]) for i in present) for own in deltas.values())
    other = [arm for arm in study.scores if arm not in same]
    return HeatMap(
        "class_differences", f"IoU of each class, difference from {reference}", "IoU difference, percentage points",
        tuple(deltas), tuple(names[i] for i in present), cells,
        notes=(
            "Bold: the 95 % interval over images (not over seeds) leaves out 0.",
            *([f"Left out, other classes or no matrices: {listed(other)}."] if other else []),
        ),
    )  # fmt: skip


def rules(study: Comparisons) -> Chart | LeftOut:
    """The same predictions under every scoring rule."""
    records = study.records
    arms = [arm for arm in study.scores if arm in records.matrices]
    if not arms:
        return LeftOut("scoring_rules", "no arm has validation confusion matrices")
    if len(arms) > MOST_ROWS:
        return LeftOut("scoring_rules", f"{len(arms)} arms are too many dots in a row")
    found = {arm: _by_rule(records, arm) for arm in arms}
    shown = [name for name in CONVENTIONS if any(not np.isnan(own[name].point) for own in found.values())]
    series = [
        Series(arm, tuple(point(name, found[arm][name]) for name in shown if not np.isnan(found[arm][name].point)), colour, "dot")
        for arm, colour in zip(arms, ordered_colours(len(arms)), strict=True)
    ]
    return RowChart(
        "scoring_rules", "The same predictions under every scoring rule", "validation score, 0–1", tuple(shown),
        (Panel("", tuple(series)),), texts=tuple(f"best: {short(_best(found, name))}" for name in shown),
        notes=("Mean over seeds. 'miou' is ours; each rule's definition: harness score.",),
    )  # fmt: skip


def returns(study: Comparisons) -> Chart | LeftOut:
    """Gain over the first rung against what was spent up to each rung."""
    if not study.is_ladder:
        return LeftOut("diminishing_returns", "the design is no ladder")
    if len(study.effects) < 1:
        return LeftOut("diminishing_returns", _too_few(study))
    first = study.records.baseline
    gains = {first: Estimate(0.0, np.nan, np.nan)} | {e.arm: e.difference for e in study.effects}
    seconds = np.cumsum([np.mean([t.seconds for t in study.records.trials[arm].values()]) for arm in gains])
    unit, size = ("hours", _HOUR) if seconds[-1] >= 2 * _HOUR else ("minutes", 60)
    points = tuple(point(s / size, gain, label=arm) for s, (arm, gain) in zip(seconds.tolist(), gains.items(), strict=True))
    points = tuple(Point(p.at, p.value, p.low, p.high, label=p.label) for p in points)
    panel = Panel("", (Series("gain", points, BLUE, "line"),), f"training and validation so far, {unit}, mean over seeds",
                  f"gain in {study.score_title}")  # fmt: skip
    return LineChart("diminishing_returns", f"Gain over {first} against what it cost", (panel,), notes=study.notes(study.effects)[:1])


def _filled(series: Sequence[Series]) -> tuple[Series, ...]:
    return tuple(s for s in series if s.points)


def _too_few(study: Comparisons) -> str:
    known = listed([f"'{arm}'" for arm in study.scores]) if study.scores else "none"
    return f"two arms with complete trials of one seed are needed, '{study.records.baseline}' among them; complete: {known}"


def _attribution(study: Comparisons) -> Attribution | LeftOut:
    ablation = study.records.settings.ablation
    design, factors = ablation.design, list(ablation.factors)
    if not (isinstance(design, Shapley) or isinstance(design, Factorial) and design.halvings == 0):
        return LeftOut("shapley", "the design does not run every combination of factors")
    sampled = isinstance(design, Shapley) and len(factors) > SHAPLEY_EXACT
    orders = shapley_orders(factors, design.permutations) if sampled else None
    missing = [arm for arm in study.records.arms if arm not in study.scores]
    if missing:
        return LeftOut("shapley", f"{len(missing)} combinations of factors have no complete trial, the first '{missing[0]}'")
    if not set.intersection(*(set(by_seed) for by_seed in study.scores.values())):
        return LeftOut("shapley", "no seed is complete for every combination of factors")
    scores = {study.records.arms[arm].factors: by_seed for arm, by_seed in study.scores.items()}
    return attribute(scores, factors, np.random.default_rng(0), orders)


def _by_rule(records: AblationRecords, arm: str) -> dict[str, Estimate]:
    """Score under every convention, mean over seeds; nan where the rule does not apply."""
    names = records.classes(arm)
    values = {k: np.array([rule(m, names) for m in records.matrices[arm].values()]) for k, rule in CONVENTIONS.items()}
    return {k: Estimate(np.nan, np.nan, np.nan) if np.isnan(v).any() else mean_interval(v) for k, v in values.items()}


def _best(found: Mapping[str, Mapping[str, Estimate]], rule: str) -> str:
    scored = {arm: own[rule].point for arm, own in found.items() if not np.isnan(own[rule].point)}
    return max(scored, key=scored.__getitem__)
