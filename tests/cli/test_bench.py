"""`harness bench`: what it refuses, what it prints and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.bench.machine import machine_name


def test_an_unknown_benchmark_is_refused_with_the_nearest_name(harness, results) -> None:
    said = harness("bench", "inputs")
    assert said.code == 2 and said.out == ""
    assert said.err.count("error: ") == 1
    assert "bench: there is no 'inputs'; did you mean 'input'?" in said.err
    assert not results.exists()


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_runs(harness, tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("")
    said = harness("bench", "loss", "--quick", "--write", file)
    assert said.code == 2 and said.out == ""
    assert f"--write {file}: a file is there; give a folder" in said.err


def test_a_benchmark_whose_package_is_missing_is_refused_by_name(harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.bench.find_spec", lambda package: None if package == "ray" else object())
    said = harness("bench", "trials")
    assert said.code == 2
    assert "bench trials needs ray, not installed here" in said.err


def test_a_quick_run_prints_the_table_and_writes_only_where_it_is_told(harness, results, tmp_path: Path) -> None:
    said = harness("bench", "loss", "--quick")
    assert said.code == 0
    assert "too small to judge by" in said.out and "focal + Dice" in said.out
    assert not results.exists()
    said = harness("bench", "loss", "--quick", "--write", tmp_path / "tables")
    assert said.code == 0
    written = sorted(path.name for path in (tmp_path / "tables" / machine_name()).iterdir())
    assert written == ["loss.csv", "loss.md"]
    text = (tmp_path / "tables" / machine_name() / "loss.md").read_text()
    assert "- command: harness bench loss --quick\n" in text
    assert str(tmp_path) not in text


def test_without_a_gpu_the_gpu_section_writes_nothing(harness, results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = harness("bench", "gpu")
    assert said.code == 0
    assert said.out.strip() == "gpu: torch sees no CUDA device here; nothing is measured"
    assert not results.exists()
