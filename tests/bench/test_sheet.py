from __future__ import annotations

import csv
import os
import platform
from pathlib import Path

from rich.console import Console

from harness.bench.machine import about, machine_name
from harness.bench.rows import Goal, Measured, Row
from harness.bench.sheet import COLUMNS, on_screen, write_sheet

ROWS = (
    Row("input | sample", "1 ms", "20 ms", Measured(20, 18, 22, 0.95), "x", 12, Goal(10, at_least=True), "one thread"),
    Row("start", "0.2 s", "8 s", Measured(0.2, 0.18, 0.3, 0.9), "s", 5, Goal(0.1, at_least=False), "", "it counts"),
    Row("memory", "5 MiB", "9 MiB", Measured(1.0), "copies", 1),
)


def test_both_files_hold_every_row_and_where_it_was_measured(tmp_path: Path) -> None:
    facts = {"command": "harness bench input", "commit": "abc"}
    paths = write_sheet(tmp_path / "2-cores-no-gpu", "input", "Input", ROWS, facts)
    assert [path.name for path in paths] == ["input.md", "input.csv"]
    text = paths[0].read_text()
    assert text.startswith("# Input\n")
    assert "- command: harness bench input\n" in text
    assert "input \\| sample" in text
    with paths[1].open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [*COLUMNS, "command", "commit"]
    assert [line["what"] for line in lines] == [row.what for row in ROWS]
    assert lines[0]["measured"] == "20 ×" and lines[0]["interval"] == "18 to 22 × (95 %)"
    assert lines[0]["goal"] == "≥ 10 ×" and lines[0]["reached"] == "yes"
    assert lines[1]["reached"] == "no, missed by 100 %: it counts"
    assert lines[2]["interval"] == lines[2]["goal"] == lines[2]["reached"] == "–"


def test_the_screen_shows_every_row_and_its_note() -> None:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))
    console.print(on_screen("Input", ROWS))
    console.file.close()
    text = console.export_text()
    assert "Input" in text and "memory" in text and "1 one thread" in text


def test_a_machine_is_named_by_its_hardware_and_by_neither_host_nor_path() -> None:
    facts = about("harness bench input")
    assert machine_name().split("-cores-")[0].isdigit()
    assert {"command", "commit", "date", "hardware", "versions"} == set(facts)
    everything = " ".join([machine_name(), *facts.values()])
    assert platform.node() not in everything
    assert str(Path.home()) not in everything and str(Path.cwd()) not in everything
