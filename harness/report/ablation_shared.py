"""What the tables of an ablation share: scores, the frame of a table, and numbers as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.ablate.effects import scores_of
from harness.report.records import AblationRecords
from harness.report.table import Table
from harness.stats import Estimate

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
DASH = "–"


def study_table(
    records: AblationRecords,
    name: str,
    title: str,
    columns: Sequence[str],
    cells: Iterable[tuple[str, ...]],
    notes: Sequence[str],
) -> Table:
    """A table with the study's provenance as its last note."""
    asked = records.settings
    raced = f", raced to at most {asked.race}" if asked.race else ""
    source = (
        f"study {records.folder.name}, {asked.ablation.design.kind} at scale {asked.scale}, "
        f"seeds {asked.seeds}{raced}, "
        f"data set {asked.dataset}"
    )
    return Table(name, title, tuple(columns), tuple(cells), (*notes, source))


def generator() -> np.random.Generator:
    """Always the same draws, so that a rebuilt table is the same file."""
    return np.random.default_rng(0)


def miou_scores(records: AblationRecords) -> Scores:
    """Dataset mIoU of every complete trial; what a team's rule scored is scored anew from its matrices."""
    anew = scores_of(records.matrices)
    own = {a: s if rule_of(records, a) == "miou" else anew.get(a, {}) for a, s in records.scores.items()}
    return {arm: by_seed for arm, by_seed in own.items() if by_seed}


def rule_of(records: AblationRecords, arm: str) -> str:
    """The rule by which an arm chooses its best epoch."""
    return records.arms[arm].experiment.protocol.score


def same_frames(records: AblationRecords, arm: str, against: str, split: str) -> bool:
    """Whether two arms were scored on the same frames of a split."""
    a, b = (records.arms[name].experiment for name in (arm, against))
    same = (a.data.root, a.data.synthetic) == (b.data.root, b.data.synthetic)
    return same and (split == "test" or a.protocol.select_on_test == b.protocol.select_on_test)


def why_missing(records: AblationRecords, arm: str) -> str:
    """Why an arm has no numbers of its matrices."""
    return "no confusion matrices" if arm in records.trials else NO_TRIAL


def number(value: float) -> str:
    """Four decimals; a dash for nan."""
    return DASH if math.isnan(value) else f"{value:.4f}"


def signed(value: float, digits: int = 4) -> str:
    """With its sign, but for what prints as nothing but zeros."""
    if math.isnan(value):
        return DASH
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def percent(value: float) -> str:
    """A share as a percentage; a dash for nan."""
    # the sum makes -0.0 a plain 0
    return DASH if math.isnan(value) else f"{round(100 * value, 1) + 0.0:.1f} %"


def p_value(value: float) -> str:
    """A p value; a dash for nan."""
    return "<0.0001" if value < 0.0001 else number(value)


def span(estimate: Estimate, show: Callable[[float], str]) -> str:
    """An interval, its ends shown by `show`; a dash where there is none."""
    return DASH if math.isnan(estimate.low) else f"{show(estimate.low)} to {show(estimate.high)}"
