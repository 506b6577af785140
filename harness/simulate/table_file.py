"""The strategy table as Markdown and CSV, with where its numbers come from."""

from __future__ import annotations

import csv
import io
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from harness.simulate.compare import share_text
from harness.simulate.table import FULL_TRIALS, ROWS, TABLE_FAMILIES, WORKERS, Row, run_cells, summarise, table_cells
from harness.store import provenance, write_text

Records = Sequence[dict[str, Any]]


def write_table(path: Path, seeds: int, processes: int, console: Console) -> None:
    """Simulate every strategy on every family with 1, 4 and 16 workers; write `path` and a .csv beside it."""
    started = time.monotonic()
    cells = table_cells(range(seeds))
    with console.status(f"simulating {len(cells)} studies"):
        records = summarise(run_cells(cells, processes))
    write_text(path, table_text(records, seeds, time.monotonic() - started))
    write_text(path.with_suffix(".csv"), csv_text(records))
    console.print(f"{path} and {path.with_suffix('.csv')}", highlight=False, soft_wrap=True)


def csv_text(records: Records) -> str:
    """One line per strategy, family and number of workers."""
    text = io.StringIO()
    columns = [name for name, value in records[0].items() if not isinstance(value, list)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        cells = {name: record[name] for name in columns}
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in cells.items()})
    return text.getvalue()


def table_text(records: Records, seeds: int, seconds: float) -> str:
    """The whole Markdown file."""
    epochs = records[0]["epochs"]
    parts = [
        "# Search strategies on learning-curve black boxes",
        f"""15 parameters, five of them conditional; 30 epochs; {seeds} instances (seeds 0-{seeds - 1}) of each of two
families of curves (`harness/simulate/curves.py`); the same {epochs} epochs ({FULL_TRIALS} full trials' worth) for every
strategy; workers in virtual time. The score is the true one (without validation noise) of the weights with the highest
observed score so far. Settings were not tuned: 12 results, 25 % random, factor 3, grace 1. Variants of them on other
seeds (1000-1005) were not distinguishable.""",
        _where_from(seeds, seconds),
        "## Shares over all families",
        """Share of the epochs until the score is (a) the final best of random search in full, (b) the final best of
`asha` (TPE + stopping ASHA, default not first), paired by instance: median over all instances, and how many of them
never come there.""",
        _shares(records),
        "## Final score, mean (standard error in the last digits)",
        _by_family(records, lambda r: f"{r['final']:.4f} ({r['final_se'] * 1e4:.0f})"),
        "## Share (a) by family: median over instances / of the mean curve",
        _by_family(records, lambda r: _two_shares(r, "a")),
        "## Share (b) by family: median over instances / of the mean curve",
        _by_family(records, lambda r: _two_shares(r, "b")),
    ]
    return "\n\n".join(parts) + "\n"


def _where_from(seeds: int, seconds: float) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("optuna", "numpy"))
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return (
        f"Command `{command}`; commit {provenance()['commit'] or 'unknown'}; seeds 0-{seeds - 1}; "
        f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores ({platform.machine()}), "
        f"{seconds / 60:.0f} minutes."
    )


def _shares(records: Records) -> str:
    head = ["strategy", *(f"({x}) {w} workers" for x in "ab" for w in WORKERS)]
    lines = [[row.name, *(_pooled(records, row, w, x) for x in "ab" for w in WORKERS)] for row in ROWS]
    return _markdown(head, lines)


def _pooled(records: Records, row: Row, workers: int, letter: str) -> str:
    chosen = [r for r in records if (r["strategy"], r["default_first"], r["workers"]) == (*row, workers)]
    each = np.concatenate([r[f"shares_{letter}"] for r in chosen])
    return f"{share_text(float(np.median(each)))} ({np.isinf(each).mean():.0%})"


def _by_family(records: Records, cell: Any) -> str:
    groups = [(f, w) for f in TABLE_FAMILIES for w in WORKERS]
    found = {(r["strategy"], r["default_first"], r["family"], r["workers"]): cell(r) for r in records}
    lines = [[row.name, *(found[row + group] for group in groups)] for row in ROWS]
    return _markdown(["strategy", *(f"{family}, {workers} w" for family, workers in groups)], lines)


def _two_shares(record: dict[str, Any], letter: str) -> str:
    return f"{share_text(record[f'share_{letter}'])} / {share_text(record[f'share_{letter}_of_mean_curve'])}"


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])
