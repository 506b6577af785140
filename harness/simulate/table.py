"""Strategies against each other: the same epochs for all, on many instances of curves, in virtual time.

Every figure is about the *true* score (without validation noise) of the weights that the study would hand over:
those of the highest score observed so far. A share is a number of epochs over those of the whole study, paired by
instance: how many a strategy needs until its score is that which (a) random search in full, (b) TPE with stopping
ASHA, its default not tried first, has at the very end.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from harness.config import Space, apply_overrides
from harness.config.space import SearchConfig, Strategy
from harness.simulate.black_box import black_box_space
from harness.simulate.curves import Curves, Family, ParametricCurves
from harness.simulate.executor import simulate

#: full-budget trials that the epochs of the table would pay for
FULL_TRIALS = 80
WORKERS = (1, 4, 16)
#: the hardest saturating family and the other functional form; the other two cost as much again and say less
TABLE_FAMILIES: tuple[Family, ...] = ("hard", "power")
_ENDLESS = 10**6


class Row(NamedTuple):
    """One line of the table: a strategy, with the default Experiment first or not."""

    strategy: Strategy
    default_first: bool

    @property
    def name(self) -> str:
        return f"{self.strategy}, default first" if self.default_first else self.strategy


RANDOM, USUAL = Row("random", False), Row("asha", False)
ROWS = (
    RANDOM, Row("random_asha", False), USUAL, Row("promote", False),
    Row("asha", True), Row("model_asha", True), Row("promote", True),
)  # fmt: skip


class Cell(NamedTuple):
    """One simulated study of the table."""

    row: Row
    family: Family
    workers: int
    seed: int


def with_search(space: Space, **search: Any) -> Space:
    """A space with other search settings."""
    return space.model_copy(update={"search": apply_overrides(space.search, search)})


def run_cell(cell: Cell) -> np.ndarray:
    """True score after each epoch."""
    curves = ParametricCurves(black_box_space(), cell.family, cell.seed)
    return trace_of(curves, cell.row, cell.workers, cell.seed)


def trace_of(curves: Curves, row: Row, workers: int, seed: int, search: SearchConfig | None = None) -> np.ndarray:
    """True score after each epoch of FULL_TRIALS full trials' worth."""
    space = curves.space if search is None else curves.space.model_copy(update={"search": search})
    space = with_search(space, strategy=row.strategy, default_first=row.default_first, trials=_ENDLESS)
    epochs = FULL_TRIALS * space.experiment.training.epochs
    return np.array(simulate(space, curves, workers, seed, max_epochs=epochs).true)


def run_cells(cells: Sequence[Cell], processes: int) -> dict[Cell, np.ndarray]:
    """Every cell's scores, several processes at once."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return dict(zip(cells, pool.map(run_cell, cells, chunksize=4), strict=True))


def table_cells(seeds: Iterable[int]) -> list[Cell]:
    """The cells of the committed table."""
    seeds = list(seeds)
    return [Cell(r, f, w, s) for f in TABLE_FAMILIES for w in WORKERS for r in ROWS for s in seeds]


def summarise(scores: dict[Cell, np.ndarray]) -> list[dict[str, Any]]:
    """One record per row, family and number of workers."""
    groups = dict.fromkeys((c.row, c.family, c.workers) for c in scores)
    return [_record(scores, *group) for group in groups]


def _record(scores: dict[Cell, np.ndarray], row: Row, family: str, workers: int) -> dict[str, Any]:
    seeds = sorted({c.seed for c in scores if (c.family, c.workers) == (family, workers)})

    def of(other: Row) -> np.ndarray:
        return np.array([scores[Cell(other, family, workers, seed)] for seed in seeds])

    curves, final = of(row), of(row)[:, -1]
    record: dict[str, Any] = {"strategy": row.strategy, "default_first": row.default_first}
    record |= {"family": family, "workers": workers, "seeds": len(seeds), "epochs": curves.shape[1]}
    record |= {"final": final.mean(), "final_se": final.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0.0}
    for letter, reference in (("a", RANDOM), ("b", USUAL)):
        targets = of(reference)[:, -1]
        each = np.array([share(curve, target) for curve, target in zip(curves, targets, strict=True)])
        record |= {
            f"share_{letter}": float(np.median(each)),
            f"never_{letter}": float(np.mean(np.isinf(each))),
            f"share_{letter}_of_mean_curve": share(curves.mean(0), targets.mean()),
            f"shares_{letter}": each.tolist(),
        }
    return record


def share(scores: np.ndarray, target: float) -> float:
    """Share of the epochs until the score is the target's; inf where it never is."""
    reached = np.flatnonzero(scores >= target)
    return float("inf") if not len(reached) else (reached[0] + 1) / len(scores)
