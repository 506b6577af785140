"""Failed trials stand under their cause, with the values that did it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.report.failures import by_cause, failures, only_theirs
from harness.store import StudyFolder, TrialRow


def row(number: int, error: str | None, **picked: Any) -> TrialRow:
    return TrialRow(
        trial=f"{number:012x}-s0", number=number, outcome="complete" if error is None else "failed", seed=0,
        picked=picked, score=None if error else 0.5, best_epoch=None, epochs=2, seconds=1.0, error=error,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


def shown(folder: StudyFolder, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(failures(folder), soft_wrap=True)
    return console.file.getvalue()


def numbers(causes: list[list[TrialRow]]) -> list[list[int]]:
    return [[row.number for row in trials] for trials in causes]


def test_where_no_trial_failed_there_is_nothing_to_show(folder):
    assert failures(folder) is None
    folder.trials.append(row(0, None))
    assert failures(folder) is None


def test_trials_of_one_cause_stand_together_the_commonest_cause_first():
    rows = [row(0, "no mask"), row(1, "out of memory"), row(2, "no mask"), row(3, "no disk"), row(4, "out of memory"),
            row(5, "out of memory")]  # fmt: skip
    assert numbers(by_cause(rows)) == [[1, 4, 5], [0, 2], [3]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB.", "CUDA out of memory. Tried to allocate 1,536.5 MiB."),
        ("trial 000000000000-s0: the loss is not finite", "trial 000000000001-s0: the loss is not finite"),
        ("epoch 1, batch 3: total nan, rates {'head': 0.01}", "epoch 12, batch 1: total inf, rates {'head': 1e-05}"),
        ("batch_size 9 leaves no batch of 6 frames\nsecond line", "batch_size 16 leaves no batch of 6 frames"),
    ],
    ids=["bytes", "own id", "not finite", "first line"],
)
def test_lines_that_differ_in_ids_and_numbers_alone_are_one_cause(one, other):
    assert numbers(by_cause([row(0, one), row(1, other)])) == [[0, 1]]


@pytest.mark.parametrize(
    ("one", "other"),
    [("arm 'a1' failed", "arm 'a2' failed"), ("no file x.png", "no file y.png"), ("KeyError: 'x'", "ValueError: 'x'")],
)
def test_lines_with_other_words_are_two_causes(one, other):
    assert len(by_cause([row(0, one), row(1, other)])) == 2


def test_the_values_that_did_it_are_those_of_all_that_failed_and_of_none_that_went_well():
    failed = [row(1, "x", head="big", batch=8, lr=0.1), row(2, "x", head="big", batch=8, lr=0.2)]
    well = [row(0, None, head="small", batch=8, lr=0.1)]
    assert only_theirs(failed, well) == {"head": "big"}
    assert only_theirs(failed, []) == {"head": "big", "batch": 8}
    assert only_theirs(failed[:1], well) == {}
    assert only_theirs([*failed, row(3, "x", batch=8)], well) == {}


def test_a_cause_is_shown_with_trials_values_what_they_share_and_what_to_do(folder):
    folder.trials.append(row(0, None, head="linear", lr=0.001))
    folder.trials.append(row(1, "[/red] is no markup: size 270 of [bold]", head="uper", lr=0.0123456))
    folder.trials.append(row(2, "[/red] is no markup: size 271 of [bold]", head="uper", lr=0.5))
    said = shown(folder)
    assert "2 of 3 trials failed" in said
    assert "2 × [/red] is no markup: size 270 of [bold]" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["trial", "1", "seed", "0", "2", "epochs", "head=uper", "lr=0.01235"] in lines
    assert ["trial", "2", "seed", "0", "2", "epochs", "head=uper", "lr=0.5"] in lines
    assert "all of them, and no trial that went well: head=uper" in said
    assert f"{folder.run('000000000001-s0').path}/error.txt" in said
    assert f"harness rerun {folder.path} 1" in said


def test_of_many_trials_the_first_five_are_shown_and_the_rest_counted(folder):
    for number in range(8):
        folder.trials.append(row(number, "out of memory", batch=number))
    said = shown(folder)
    assert "8 × out of memory" in said and "and 3 more" in said
    assert "batch=4" in said and "batch=5" not in said


def test_a_failure_without_a_message_is_said_to_have_none(folder):
    folder.trials.append(row(0, None).model_copy(update={"outcome": "failed", "error": ""}))
    assert "1 × no cause was recorded" in shown(folder)


def test_control_characters_of_errors_and_values_are_spelt_out(folder):
    for number in range(2):
        folder.trials.append(row(number, "the \x1b[2Jloss\x07\nsecond line", lr=0.5, head="st\x1b]0;ack"))
    text = shown(folder)
    assert r"the \x1b[2Jloss\x07" in text and r"head=st\x1b]0;ack" in text
    assert all(c.isprintable() or c == "\n" for c in text)
