"""`harness simulate` as a program."""

from __future__ import annotations


def test_a_space_is_simulated_with_every_strategy_and_factor_asked_for(harness, space):
    said = harness(
        "simulate", space, "--seeds", 1, "--trials", 4, "--strategy", "promote", "--strategy", "random_asha",
        "--factor", 2, "--factor", 3, "--workers", 2,
    )  # fmt: skip
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert [line[0] for line in lines if "default" in line] == ["promote,"] * 2 + ["random_asha,"] * 2
    assert "final score: true score" in said.out and "hours" not in said.out


def test_the_calls_are_timed_on_disk(harness, space):
    said = harness("simulate", space, "--seeds", 1, "--trials", 3, "--strategy", "promote", "--on-disk")
    assert "milliseconds of a call" in said.out and "on_epoch" in said.out


def test_what_is_neither_a_file_nor_a_study_is_refused(harness):
    said = harness("simulate", "nonsuch")
    assert said.code == 2 and "study 'nonsuch' does not exist" in said.err


def test_an_unknown_strategy_is_refused_with_the_nearest_one(harness, space):
    said = harness("simulate", space, "--strategy", "promot")
    assert said.code == 2 and "'promot' is not a choice; did you mean 'promote'?" in said.err


def test_a_table_needs_a_file_to_be_written_to(harness, tmp_path):
    assert "give --write FILE.md" in harness("simulate", "--table").err
    assert "goes with --table" in harness("simulate", "--write", tmp_path / "t.md").err
