"""Shares, and the table's files."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from harness.simulate.table import (
    RANDOM,
    ROWS,
    TABLE_FAMILIES,
    USUAL,
    WORKERS,
    Cell,
    Row,
    share,
    summarise,
    table_cells,
)
from harness.simulate.table_file import csv_text, table_text

INF = float("inf")


@pytest.mark.parametrize(
    ("scores", "target", "found"),
    [([0.1, 0.2, 0.3, 0.4], 0.2, 0.5), ([0.1, 0.2], 0.1, 0.5), ([0.1, 0.2], 0.3, INF), ([0.3, 0.1], 0.2, 0.5)],
)
def test_a_share_counts_epochs_until_the_target_is_reached_for_the_first_time(scores, target, found):
    assert share(np.array(scores), target) == found


def two_instances(row: Row) -> dict[Cell, np.ndarray]:
    curves = {
        RANDOM: ([0.0, 0.1, 0.2, 0.4], [0.0, 0.0, 0.2, 0.2]),
        USUAL: ([0.1, 0.2, 0.5, 0.5], [0.1, 0.1, 0.1, 0.3]),
        row: ([0.4, 0.4, 0.6, 0.6], [0.0, 0.1, 0.1, 0.1]),
    }
    return {Cell(r, "hard", 4, seed): np.array(c[seed]) for r, c in curves.items() for seed in (0, 1)}


def test_a_record_pairs_instances_and_counts_those_that_never_come_there():
    row = Row("promote", True)
    record = next(r for r in summarise(two_instances(row)) if r["strategy"] == "promote")
    assert record["final"] == pytest.approx(0.35)
    assert record["final_se"] == pytest.approx(0.25)
    # instance 0 reaches 0.4 at once and 0.5 at the third epoch; instance 1 neither 0.2 nor 0.3
    assert record["shares_a"] == [0.25, INF] and record["shares_b"] == [0.75, INF]
    assert (record["never_a"], record["never_b"]) == (0.5, 0.5)
    # mean curves: 0.2 0.25 0.35 0.35 against random's final 0.3 and the usual's 0.4
    assert record["share_a_of_mean_curve"] == 0.75 and record["share_b_of_mean_curve"] == INF


def test_the_table_has_twenty_seeds_of_every_strategy_family_and_number_of_workers():
    cells = table_cells(range(20))
    assert len(set(cells)) == len(ROWS) * len(TABLE_FAMILIES) * len(WORKERS) * 20
    assert {RANDOM, USUAL} <= set(ROWS) and len(TABLE_FAMILIES) >= 2


def test_the_files_hold_every_strategy():
    rng = np.random.default_rng(0)
    records = summarise({cell: np.sort(rng.random(5)) for cell in table_cells(range(3))})
    text = table_text(records, 3, 60.0)
    for row in ROWS:
        assert text.count(f"| {row.name} |") == 4
    lines = list(csv.DictReader(io.StringIO(csv_text(records))))
    assert len(lines) == len(ROWS) * len(TABLE_FAMILIES) * len(WORKERS)
    assert {line["seeds"] for line in lines} == {"3"}
