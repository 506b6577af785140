"""`harness watch`, and `--quiet` and `--tracker` of the commands that it looks at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli import watch
from harness.cli.app import INTERRUPTED, console
from harness.cli.inputs import change_ablation
from harness.config import Ablation, read_section
from harness.run import Resources, run_ablation
from harness.run.driver_lock import driver_lock
from harness.store import Record, StudyFolder, find_study, write_json

ABLATION = """
experiment:
  data: {input_size: [32, 48]}
  model: {kind: backbone, backbone: mobilenetv3_small_050, weights: none, trainable_blocks: all, stride: 8,
          head: {kind: linear}}
  training: {epochs: 1, batch_size: 2, drop_last: true}
design: {kind: one_factor}
factors:
  slow: {set: {optimiser.lr: 1e-5}}
  dice: {set: {loss.dice.weight: 1.0}}
scale:
  full: {seeds: 2}
"""


@pytest.fixture
def hunt(harness, space, desert) -> StudyFolder:
    """A finished search of two trials."""
    assert harness("search", space, "--data", desert, "--name", "hunt", "--executor", "inprocess").code == 0
    return find_study("hunt")


def test_a_finished_search_is_shown_once_and_the_command_ends(harness, hunt):
    said = harness("watch", "hunt", "--once")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "hunt  search by random_asha  finished"
    assert lines[2].startswith("2 of 2 trials ended")
    best = max(row.score for row in Record(hunt).ended.values())
    assert any(line.startswith(f"best {best:.4f}") for line in lines)


def test_off_a_terminal_one_frame_is_all(harness, hunt):
    assert harness("watch", hunt.path).out == harness("watch", "hunt", "--once").out


def test_a_training_and_an_ablation_are_shown_too(harness, desert, tmp_path, results):
    (tmp_path / "arms.yaml").write_text(ABLATION)
    ablation = change_ablation(read_section(Ablation, tmp_path / "arms.yaml"), "full", desert, [])
    # by hand: the command would draw its plots too
    run_ablation(StudyFolder(results / "arms"), ablation, "full", None, Resources("inprocess"), Console(quiet=True))
    lines = harness("watch", "arms", "--once").out.splitlines()
    assert lines[0] == "arms  ablation  finished"
    assert lines[2] == "6 of 6 trials ended · 6 complete"
    assert any("arm=" in line for line in lines)
    experiment = find_study("arms").run(next(iter(Record(find_study("arms")).ended))).experiment
    words = ("--data", desert, "--executor", "inprocess", "--seeds", 1, "--name", "final")
    assert harness("train", experiment, *words).code == 0
    lines = harness("watch", "final", "--once").out.splitlines()
    assert (lines[0], lines[2]) == ("final  training  finished", "1 of 1 trials ended · 1 complete")


def test_a_study_that_no_process_drives_says_how_to_go_on(harness, hunt):
    lines = hunt.trials.path.read_text().splitlines(keepends=True)
    hunt.trials.path.write_text(lines[0])
    said = harness("watch", "hunt", "--once")
    assert said.out.splitlines()[0].endswith("stopped")
    assert "1 of 2 trials ended" in said.out
    assert said.out.splitlines()[-1] == ("no process drives it; go on with the same command and --name hunt --resume")


def test_a_study_that_is_driven_is_running(harness, hunt):
    with driver_lock(hunt):
        said = harness("watch", "hunt", "--once")
    first = said.out.splitlines()[0].split()
    assert first[:4] == ["hunt", "search", "by", "random_asha"] and ":" in first[4]
    assert "no process drives it" not in said.out


def test_an_unknown_study_is_refused(harness, results):
    said = harness("watch", "nowhere")
    assert said.code == 2 and "study 'nowhere' does not exist" in said.err


@pytest.fixture
def terminal(monkeypatch):
    """As if standard output were a terminal."""
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(watch, "_EVERY", 0.0)


def test_on_a_terminal_the_view_ends_with_the_study(harness, hunt, terminal, monkeypatch):
    frames = []
    looks = iter([True, True, False])
    monkeypatch.setattr("harness.run.folder_view.is_driven", lambda folder: next(looks))
    monkeypatch.setattr(watch, "_drawn", lambda snapshot: frames.append(snapshot.status) or snapshot.status)
    assert harness("watch", "hunt").code == 0
    assert frames == ["running", "running", "finished"]


def test_on_a_terminal_the_view_ends_with_a_study_that_stopped(harness, hunt, terminal, monkeypatch):
    hunt.trials.path.write_text("")
    frames = []
    looks = iter([True, False])
    monkeypatch.setattr("harness.run.folder_view.is_driven", lambda folder: next(looks))
    monkeypatch.setattr(watch, "_drawn", lambda snapshot: frames.append(snapshot.status) or snapshot.status)
    assert harness("watch", "hunt").code == 0
    assert frames[-1] == "stopped"


def test_the_view_of_a_search_goes_on_with_its_confirmation(hunt_of, terminal, monkeypatch):
    hunt = hunt_of().search([0.5], [0.4]).confirm({0: {1000: [0.4], 1001: [0.3], 1002: [0.2]}})
    write_json(hunt.folder.provenance, {"sessions": [{"command": ["harness", "search", "--confirm=3"]}]})
    begun, frames = iter([False, True]), []
    # between the search and its confirmation no process drives any of them
    monkeypatch.setattr("harness.run.driver_lock.is_driven", lambda folder: next(begun))
    driven = iter([True, True, False])
    monkeypatch.setattr("harness.run.folder_view.is_driven", lambda folder: folder.name == "confirm" and next(driven))
    monkeypatch.setattr(
        watch, "_drawn", lambda snapshot: frames.append((snapshot.plan.kind, snapshot.status)) or snapshot.status
    )
    watch.watch(str(hunt.folder.path))
    assert dict.fromkeys(frames) == dict.fromkeys(
        [("search", "stopped"), ("confirmation", "running"), ("confirmation", "finished")]
    )


def test_ctrl_c_ends_the_view_and_changes_nothing(harness, hunt, terminal, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupt)
    before = {path: path.stat().st_mtime_ns for path in hunt.path.rglob("*")}
    with driver_lock(hunt):
        assert harness("watch", "hunt").code == INTERRUPTED
    assert {path: path.stat().st_mtime_ns for path in hunt.path.rglob("*")} == before


def test_watching_loads_neither_torch_nor_ray(hunt):
    code = """
import sys
from harness.cli import main
sys.argv = ["harness", "watch", sys.argv[1], "--once"]
try:
    main()
except SystemExit as end:
    assert not end.code
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "ray", "timm", "wandb", "mlflow"}))
"""
    done = subprocess.run([sys.executable, "-c", code, str(hunt.path)], capture_output=True, text=True, check=True)
    assert "finished" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("quiet", [False, True])
def test_quiet_leaves_the_summary_alone(harness, space, desert, quiet):
    words = ("--quiet",) if quiet else ()
    said = harness("search", space, "--data", desert, "--name", "hunt", "--executor", "inprocess", *words)
    assert said.code == 0
    assert "best trials" in said.out
    assert ("hunt → " in said.out) is not quiet
    assert any(line.split()[:2] == ["0", "complete"] for line in said.out.splitlines()) is not quiet


def test_a_tracker_that_does_not_exist_is_refused_before_anything_is_written(harness, space, desert, results: Path):
    said = harness("search", space, "--data", desert, "--tracker", "mlfow", "--executor", "inprocess")
    assert said.code == 2 and "there is no such tracker; did you mean 'mlflow'" in said.err
    assert not results.exists()


def test_a_tracker_is_fed_from_the_command_line(harness, space, desert):
    pytest.importorskip("tensorboard")
    words = ("--name", "hunt", "--executor", "inprocess", "--tracker", "tensorboard")
    assert harness("search", space, "--data", desert, *words).code == 0
    folder = find_study("hunt")
    shown = {path.name for path in (folder.path / "tensorboard").iterdir()}
    assert shown == set(Record(folder).ended)


def test_control_characters_of_a_study_on_disk_are_spelt_out(harness, hunt_of):
    hunt = hunt_of().search([0.5], [0.4])
    lines = hunt.folder.trials.path.read_text().splitlines()
    row = json.loads(lines[1]) | {"outcome": "failed", "score": None, "error": "no\x1b[2J memory\x07\nat step 3"}
    best = json.loads(lines[0])
    best["picked"] = {"lr": "a\x1b]0;b"}
    hunt.folder.trials.path.write_text("".join(json.dumps(one) + "\n" for one in (best, row)))
    said = harness("watch", hunt.folder.path, "--once")
    assert r"failed: no\x1b[2J memory\x07\nat step 3" in said.out and r"lr=a\x1b]0;b" in said.out
    assert all(c.isprintable() or c == "\n" for c in said.out)
