"""Plots of what changes did to the score: differences, ladders, shares, rules, cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.ablate.designs import SHAPLEY_EXACT, shapley_orders
from harness.ablate.effects import class_deltas
from harness.ablate.shapley import Attribution, attribute
from harness.config.ablation import Shapley
from harness.metrics import CONVENTIONS
from harness.report.plot_classes import MOST_ROWS
from harness.report.plot_comparisons import Comparisons
from harness.report.plot_runs import chosen_on_test
from harness.report.plot_shapes import (
    INK,
    MUTED,
    Chart,
    HeatMap,
    LeftOut,
    LineChart,
    Panel,
    Point,
    RowChart,
    Series,
    point,
)
from harness.report.plot_style import (
    BLUE,
    VERDICTS,
    VERMILION,
    interval_text,
    listed,
    ordered_colours,
    short,
    signed,
)
from harness.report.records import AblationRecords
from harness.stats import Estimate, mean_interval

_OF_THE_GAIN = re.compile(r"(\d+(?:\.\d+)?)\s*% of the (?:total )?gain")
_IN_POINTS = re.compile(r"([+-]0?\.\d+)")
_HOUR = 3600
_ALL, _TOTAL = "all factors", "first to last"
_SCORE = "validation mIoU (0–1)"
_VERDICT = "Colour: the verdict of paired t tests over seeds, adjusted by Holm's rule, at 5 %."
_UNKNOWN = Estimate(np.nan, np.nan, np.nan)


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
        "differences",
        f"Difference from {baseline}",
        f"difference in {_SCORE}",
        tuple(e.arm for e in effects),
        (Panel("", _filled(series)),),
        reference=0.0,
        band=floor,
        texts=tuple(_gain_text(e.difference) for e in effects),
        notes=(*band, _VERDICT, *study.notes(effects)),
    )


def waterfall(study: Comparisons) -> Chart | LeftOut:
    """What each rung of a ladder adds to the one before, from the first to the last."""
    if not study.is_ladder:
        return LeftOut("ladder", "the design is no ladder")
    steps = study.steps
    if not steps:
        return LeftOut("ladder", _too_few(study))
    first, start = steps[0].against, mean_interval(list(study.scores[steps[0].against].values()))
    ends = np.cumsum([start.point, *(e.difference.point for e in steps)]).tolist()
    gain = next((e.difference for e in study.effects if e.against == first and e.arm == steps[-1].arm), None)
    rows = (first, *(e.arm for e in steps), *([_TOTAL] if gain else []))
    bars = [(e.verdict, point(e.arm, e.difference, at)) for e, at in zip(steps, ends[:-1], strict=True)]
    series = [
        Series("", _links(rows, ends), MUTED, "connector"),
        *(Series(v, tuple(p for own, p in bars if own == v), colour, "bar") for v, colour in VERDICTS.items()),
        Series("", (point(_TOTAL, gain, start.point),) if gain else (), INK, "bar"),
        Series("", (point(first, start),), INK, "dot"),
    ]
    texts = (
        f"{start.point:.3f}",
        *map(_gain_text, [*(e.difference for e in steps), *([gain] if gain else [])]),
    )
    return RowChart(
        "ladder",
        "What each step adds to the one before",
        _SCORE,
        rows,
        (Panel("", _filled(series)),),
        texts=texts,
        notes=(_VERDICT, *study.notes(steps, study.records.rungs)),
    )


def shapley_bars(study: Comparisons) -> Chart | LeftOut:
    """Each factor's share of the gain from none to all, beside what was guessed."""
    found = _attribution(study)
    if isinstance(found, LeftOut):
        return found
    guesses = {name: f.guess for name, f in study.records.settings.ablation.factors.items() if f.guess}
    gains = {name: guessed_gain(text, found.total.point) for name, text in guesses.items()}
    guessed = tuple(Point(name, gain) for name, gain in gains.items() if gain is not None)
    series = [
        Series("Shapley value", tuple(point(s.factor, s.value) for s in found.shares), BLUE, "bar"),
        Series("", (point(_ALL, found.total),), INK, "bar"),
        Series("authors' guess", guessed, VERMILION, "diamond"),
    ]
    intervals = f"Student's t over {found.n} seeds" if found.n > 1 else "none (one seed)"
    said = "; ".join(f"{name}: {text}" for name, text in guesses.items())
    note = f"95 % intervals: {intervals}. The factors add up to the last bar."
    return RowChart(
        "shapley",
        "What each factor adds, averaged over the orders of adding",
        f"gain in {_SCORE}",
        (*(s.factor for s in found.shares), _ALL),
        (Panel("", _filled(series)),),
        reference=0.0,
        texts=tuple(map(_gain_text, (*(s.value for s in found.shares), found.total))),
        notes=(note, *([f"Authors' guesses: {said}."] if said else [])),
    )


def guessed_gain(text: str | None, total: float) -> float | None:
    """The gain that a guess names, as "40 % of the gain" or "+0.13"; none where it names neither."""
    share = _OF_THE_GAIN.search(text or "")
    if share:
        return float(share[1]) / 100 * total
    absolute = _IN_POINTS.search(text or "")
    return float(absolute[1]) if absolute else None


def delta_map(study: Comparisons) -> Chart | LeftOut:
    """IoU of each class of each arm minus the baseline's, where both have the class."""
    reference, records = study.records.baseline, study.records
    arms = [arm for arm in study.scores if arm != reference and _has_deltas(study, arm, reference)]
    if not arms:
        return LeftOut("class_differences", f"no arm has matrices of the same seeds and frames as '{reference}'")
    found = {arm: _deltas(records, arm, reference) for arm in arms}
    measured = {n for own in found.values() for n, e in own.items() if not np.isnan(e.point)}
    names = [n for n in records.classes(reference) if n in measured]
    cells = tuple(tuple(point(n, own.get(n, _UNKNOWN)) for n in names) for own in found.values())
    other = [arm for arm in study.scores if arm not in (reference, *arms)]
    return HeatMap(
        "class_differences",
        f"IoU of each class, difference from {reference}",
        "IoU difference, percentage points",
        tuple(arms),
        tuple(names),
        cells,
        notes=(
            "Bold: the 95 % interval over images leaves out 0 (it says nothing of another training).",
            *([f"Left out: {listed(other)}."] if other else []),
        ),
    )


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
        Series(
            arm,
            tuple(p for name in shown if not np.isnan((p := point(name, found[arm][name])).value)),
            colour,
            "speck",
        )
        for arm, colour in zip(arms, ordered_colours(len(arms)), strict=True)
    ]
    return RowChart(
        "scoring_rules",
        "The same predictions under every scoring rule",
        "validation score (0–1)",
        tuple(shown),
        (Panel("", tuple(series)),),
        texts=tuple(f"best: {short(_best(found, name), 20)}" for name in shown),
        notes=("Mean over seeds. 'miou' is ours.", *chosen_on_test(records, arms)),
    )


def returns(study: Comparisons) -> Chart | LeftOut:
    """Gain over the first rung against what was spent up to each rung."""
    if not study.is_ladder:
        return LeftOut("diminishing_returns", "the design is no ladder")
    if not study.effects:
        return LeftOut("diminishing_returns", _too_few(study))
    first, records = study.records.baseline, study.records
    gains = {first: Estimate(0.0, np.nan, np.nan)} | {
        e.arm: e.difference for e in study.effects if e.arm in (records.rungs or ())
    }
    seconds = np.cumsum([np.mean([t.seconds for t in records.trials[arm].values()]) for arm in gains]).tolist()
    unit, size = ("hours", _HOUR) if seconds[-1] >= 2 * _HOUR else ("minutes", 60)
    points = tuple(Point(s / size, *gain, label=arm) for s, (arm, gain) in zip(seconds, gains.items(), strict=True))
    x_title = f"training and validation so far, {unit}"
    panel = Panel("", (Series("", points, BLUE, "line"),), x_title, f"gain in {_SCORE}")
    return LineChart(
        "diminishing_returns",
        f"Gain over {first} against what it cost",
        (panel,),
        notes=("Cost: mean over seeds, summed from rung to rung.", *study.notes(study.effects, records.rungs)),
    )


def _links(rows: Sequence[str], ends: Sequence[float]) -> tuple[Point, ...]:
    """Where each bar ends and the next begins, in pairs."""
    return tuple(Point(row, end) for i, end in enumerate(ends[:-1]) for row in rows[i : i + 2])


def _gain_text(gain: Estimate) -> str:
    return signed(gain.point) + interval_text(gain.low, gain.high)


def _filled(series: Sequence[Series]) -> tuple[Series, ...]:
    return tuple(s for s in series if s.points)


def _too_few(study: Comparisons) -> str:
    known = listed([f"'{arm}'" for arm in study.scores]) if study.scores else "none"
    needed = f"two arms with complete trials of one seed, '{study.records.baseline}' among them"
    return f"needs {needed}; complete: {known}"


def _attribution(study: Comparisons) -> Attribution | LeftOut:
    ablation = study.records.settings.ablation
    design, factors = ablation.design, list(ablation.factors)
    if not isinstance(design, Shapley):
        return LeftOut("shapley", "the design is no shapley")
    orders = shapley_orders(factors, design.permutations) if len(factors) > SHAPLEY_EXACT else None
    missing = [arm for arm in study.records.arms if arm not in study.scores]
    if missing:
        return LeftOut("shapley", f"{len(missing)} arms have no complete trial, the first '{missing[0]}'")
    if not set.intersection(*(set(by_seed) for by_seed in study.scores.values())):
        return LeftOut("shapley", "no seed is complete for every combination of factors")
    scores = {study.records.arms[arm].factors: by_seed for arm, by_seed in study.scores.items()}
    return attribute(scores, factors, np.random.default_rng(0), orders)


def _has_deltas(study: Comparisons, arm: str, reference: str) -> bool:
    matrices = study.records.matrices
    return study.pairs(arm, reference) and bool(set(matrices.get(arm, ())) & set(matrices.get(reference, ())))


def _deltas(records: AblationRecords, arm: str, reference: str) -> dict[str, Estimate]:
    """IoU minus the reference's of the classes that both have; all others are lumped into one that is dropped."""
    shared = [name for name in records.classes(reference) if name in records.classes(arm)]
    lumped = {
        a: {
            seed: _lump(m, [shared.index(n) if n in shared else len(shared) for n in records.classes(a)], len(shared))
            for seed, m in records.matrices[a].items()
        }
        for a in (reference, arm)
    }
    found = class_deltas(lumped, reference, np.random.default_rng(0))[arm]
    return dict(zip(shared, found[: len(shared)], strict=True))


def _lump(matrices: NDArray[np.int64], places: Sequence[int], rest: int) -> NDArray[np.int64]:
    """Matrices (N, C, C+1) with class i moved to places[i], of 0 to `rest`; IoUs of unmerged classes stay."""
    onto = np.zeros((len(places) + 1, rest + 2), np.int64)
    onto[np.arange(len(places) + 1), [*places, rest + 1]] = 1
    return onto[:-1, :-1].T @ matrices @ onto


def _by_rule(records: AblationRecords, arm: str) -> dict[str, Estimate]:
    """Score under every convention, mean over seeds; nan where the rule does not apply."""
    names = records.classes(arm)
    values = {k: np.array([rule(m, names) for m in records.matrices[arm].values()]) for k, rule in CONVENTIONS.items()}
    return {k: _UNKNOWN if np.isnan(v).any() else mean_interval(v) for k, v in values.items()}


def _best(found: Mapping[str, Mapping[str, Estimate]], rule: str) -> str:
    scored = {arm: own[rule].point for arm, own in found.items() if not np.isnan(own[rule].point)}
    return max(scored, key=scored.__getitem__)
