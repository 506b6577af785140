"""How a snapshot looks on terminals of any size."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from harness.config.space import SearchConfig
from harness.run.dashboard import about, clock, frame, short, sparkline
from harness.run.gpu_memory import GpuMemory
from harness.run.plan import Plan
from harness.run.snapshot import Best, RungShown, RunningTrial, Snapshot
from harness.store import TrialRow

PICKED = {"lr": 0.00123456, "head": "linear", "dice": 0.5, "weight_decay": 1.5e-4, "batch": 16}
FAILED = TrialRow(
    trial="c0ffee-s0",
    number=5,
    outcome="failed",
    seed=0,
    picked=PICKED,
    score=None,
    best_epoch=None,
    epochs=0,
    seconds=0.0,
    error="the loss became nan at step 12 " * 10,
)
SNAPSHOT = Snapshot(
    plan=Plan("hunt", "search", 60, 27, search=SearchConfig(trials=60)),
    status="running",
    running=tuple(RunningTrial(f"{n:012x}-s0", n, PICKED, n, 27, tuple(k / 50 for k in range(n))) for n in (0, 12, 26)),
    waiting=4,
    complete=3,
    stopped=20,
    failed=2,
    best=Best("00000000000a-s0", 10, 0.61234, 9, PICKED),
    rungs=(RungShown(1, 30, 4, 10, 0.41), RungShown(3, 0, 0, 0, None)),
    last_failure=FAILED,
    seconds=3725.0,
    left=745.0,
    gpus=(GpuMemory(0, 23.44, 140.4),),
)


def drawn(snapshot: Snapshot, width: int = 100, height: int = 40, note: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(frame(snapshot, width, height, note))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0.3], "▁"), ([0.0, 1.0], "▁█"), ([1.0, 0.5, 0.0], "█▄▁"), ([0.2, 0.2], "▁▁")],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest_value(values, bars):
    assert sparkline(values) == bars


def test_a_long_sparkline_keeps_its_ends_and_fits():
    bars = sparkline([k / 300 for k in range(301)], 10)
    assert len(bars) == 10
    assert bars[0] == "▁" and bars[-1] == "█"
    assert list(bars) == sorted(bars)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "under a minute"),
        (40, "about 1 min"),
        (745, "about 12 min"),
        (5940, "about 99 min"),
        (6600, "about 1 h 50 min"),
        (7190, "about 2 h"),
        (10 * 3600, "about 10 h"),
        (3 * 86400, "about 3 days"),
    ],
)
def test_a_time_is_given_as_exactly_as_it_is_known(seconds, words):
    assert about(seconds) == words


def test_a_clock_shows_hours_only_where_there_are_any():
    assert (clock(59), clock(61.9), clock(3725)) == ("0:59", "1:01", "1:02:05")


def test_picked_values_are_short():
    assert short(PICKED) == "lr=0.00123  head=linear  dice=0.5  weight_decay=0.00015  batch=16"


def test_everything_there_is_to_know_is_in_the_frame():
    lines = drawn(SNAPSHOT, 140)
    text = "\n".join(lines)
    assert lines[0] == "hunt  search by promote  1:02:05  about 12 min left"
    assert "25 of 60 trials ended · 3 complete · 20 stopped early · 2 failed · 3 running · 4 waiting" in lines
    assert "best 0.6123  trial 10, epoch 9  lr=0.00123  head=linear  dice=0.5  weight_decay=0.00015  batch=16" in lines
    early = drawn(replace(SNAPSHOT, best=replace(SNAPSHOT.best, stopped=True)), 140)
    assert any(line.startswith("best 0.6123  trial 10, epoch 9, stopped early  lr=") for line in early)
    assert ["epoch", "1", "30", "4", "10", "16", "0.4100"] in [line.split() for line in lines]
    assert ["epoch", "3", "–", "–", "–", "–", "–"] in [line.split() for line in lines]
    assert "GPU 0 23.4 of 140 GiB" in lines
    assert "trial 5 failed: the loss became nan" in text
    assert ["0", "000000000000-s0", "0/27", "starting", "lr=0.00123"] in [line.split()[:5] for line in lines]
    assert ["26", "00000000001a-s0", "26/27", "0.5000"] in [line.split()[:4] for line in lines]


@pytest.mark.parametrize("width", [20, 40, 80, 109, 110, 140, 400])
@pytest.mark.parametrize("height", [1, 24, 60])
def test_no_line_is_wider_than_the_terminal(width, height):
    assert max(cell_len(line) for line in drawn(SNAPSHOT, width, height)) <= width


@pytest.mark.parametrize("height", [20, 24, 40, 60])
def test_a_frame_of_many_running_trials_is_no_higher_than_the_terminal_and_says_how_many_are_left_out(height):
    many = replace(SNAPSHOT, running=tuple(RunningTrial(f"{n}-s0", n, PICKED, 1, 9, (0.5,)) for n in range(100)))
    lines = drawn(many, 100, height)
    assert len(lines) < height
    shown = sum("1/9" in line for line in lines)
    assert shown >= 2
    assert lines[-1] == f"and {100 - shown} more"


def test_a_line_that_does_not_fit_is_cut_and_says_so():
    line = next(line for line in drawn(SNAPSHOT, 60) if line.startswith("trial 5 failed"))
    assert len(line) == 60 and line.endswith("…")


def test_the_bar_shows_each_outcomes_share():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    console.print(frame(SNAPSHOT, 60, 40))
    bar = console.file.getvalue().splitlines()[1]
    # 3 + 20 + 2 of 60 on 60 columns: green, yellow, bold red
    for count, code in ((3, "32"), (20, "33"), (2, "1;31")):
        assert f"\x1b[{code}m{'━' * count}\x1b[0m" in bar
    assert bar.count("━") == 60


def test_an_empty_study_is_drawn_without_a_best_rungs_or_trials():
    empty = Snapshot(Plan("new", "training", None, 9), "running", (), 0, 0, 0, 0, None, (), None, None, None)
    lines = drawn(empty)
    assert lines[0] == "new  training"
    assert lines[2:] == ["0 trials ended"]


def test_the_most_there_can_be_is_called_so():
    path = replace(SNAPSHOT, plan=Plan("walk", "ablation", 60, 9, at_most=True))
    lines = drawn(path)
    assert lines[0].endswith("at most about 12 min left")
    assert lines[2].startswith("25 of at most 60 trials ended")


def test_a_study_that_stopped_shows_no_time_left_and_what_to_do():
    stopped = replace(SNAPSHOT, status="stopped", running=(), left=None, seconds=None)
    lines = drawn(stopped, note="no process drives it; go on with --resume")
    assert lines[0] == "hunt  search by promote  stopped"
    assert lines[2].endswith("4 under way when it stopped")
    assert lines[-1] == "no process drives it; go on with --resume"


def test_picked_text_is_shown_as_it_is_and_never_read_as_markup():
    odd = replace(
        SNAPSHOT,
        best=Best("x", 1, 0.5, 1, {"head": "[red]x[/]"}),
        running=(RunningTrial("x", 1, {"a": "[b]"}, 1, 2, (0.1,)),),
    )
    text = "\n".join(drawn(odd))
    assert "head=[red]x[/]" in text and "a=[b]" in text
