"""The frame of the command line: what it says to those who stopped a study."""

from __future__ import annotations

import os
import shlex
import signal

import pytest

from harness.cli.app import resume_command
from harness.run.worker import TrialRun

HERE = ("--executor", "inprocess")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("harness search", "harness search --name hunt --resume"),
        ("/usr/bin/harness search x.yaml --trials 9", "harness search x.yaml --trials 9 --name hunt --resume"),
        ("harness search --name old x.yaml", "harness search x.yaml --name hunt --resume"),
        ("harness train --name=old e.yaml --resume", "harness train e.yaml --name hunt --resume"),
        ("/lib/harness/__main__.py ablate a.yaml", "python -m harness ablate a.yaml --name hunt --resume"),
    ],
)
def test_the_command_that_goes_on_is_the_one_given_with_the_name_and_resume(words, command):
    assert resume_command(words.split(), "hunt") == command


def test_the_command_that_goes_on_is_quoted_for_a_shell():
    words = ["harness", "search", "my space.yaml", "--set", "data.input_size=[32, 48]"]
    command = resume_command(words, "it's")
    assert shlex.split(command) == [*words, "--name", "it's", "--resume"]


@pytest.mark.parametrize("at_once", [False, True], ids=["once", "twice"])
def test_a_search_that_is_stopped_says_how_to_go_on_and_ends_with_code_130(
    harness, results, space, desert, monkeypatch, at_once
):
    next_row, calls = TrialRun.next_row, iter(range(100))

    def signalled(run):
        if next(calls) == 1:
            for _ in range(1 + at_once):
                os.kill(os.getpid(), signal.SIGINT)
        return next_row(run)

    words = ("search", space, "--data", desert, "--name", "hunt", *HERE)
    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", signalled)
        said = harness(*words)
    assert said.code == 130
    assert f"interrupted; go on with: harness {shlex.join(map(str, words[:4]))}" in said.out
    assert "--executor inprocess --name hunt --resume\n" in said.out
    assert ("best trials" in said.out) is not at_once
    said = harness(*words, "--resume")
    assert said.code == 0 and "interrupted" not in said.out


def test_one_who_stops_a_command_before_its_study_began_is_not_told_to_go_on_with_it(
    harness, results, space, desert, monkeypatch
):
    def ctrl_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.launch.decode_frames", ctrl_c)
    said = harness("search", space, "--data", desert, "--name", "hunt", *HERE)
    assert said.code == 130 and "--resume" not in said.out and not results.exists()


def test_a_signal_that_comes_when_all_is_done_interrupts_nothing(harness, space, desert, monkeypatch):
    next_row, calls = TrialRun.next_row, iter(range(100))

    def signalled(run):
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return next_row(run)

    monkeypatch.setattr(TrialRun, "next_row", signalled)
    said = harness("search", space, "--data", desert, "--name", "hunt", "--trials", "1", *HERE)
    assert said.code == 0 and "interrupted" not in said.out
