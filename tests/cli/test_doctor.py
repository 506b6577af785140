"""`harness doctor` as people call it: exit codes, JSON, and libraries that are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.doctor import examine as examined
from harness.doctor import libraries
from harness.doctor.check import bad, ok, warn

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def answers(monkeypatch):
    """Every library answers at once, and well."""
    for name in ("torch", "images", "ray"):
        monkeypatch.setattr(libraries, name, lambda name=name: [ok(name, "fine")])
    monkeypatch.setattr(libraries, "weights", lambda spaces: [warn("weights", f"of {len(spaces)} spaces", "fetch")])
    return monkeypatch


def test_hints_leave_the_exit_code_at_0_and_show_their_remedy(harness, answers):
    said = harness("doctor")
    assert said.code == 0, said.out
    assert "✓  torch" in said.out and "!  weights" in said.out and "→ fetch" in said.out
    assert "hint(s)" in said.out and "of 3 spaces" in said.out


def test_a_fault_is_exit_code_2_and_marked(harness, answers):
    answers.setattr(libraries, "ray", lambda: [bad("Ray", "does not start", "ray stop")])
    said = harness("doctor")
    assert said.code == 2 and "✗  Ray" in said.out and "→ ray stop" in said.out and "1 fault(s)" in said.out


def test_json_has_every_check(harness, answers):
    said = harness("doctor", "--json")
    values = json.loads(said.out)
    assert values["ok"] is True and said.code == 0
    checks = {check["name"]: check for check in values["checks"]}
    assert {"Python", "packages", "torch", "images", "ray", "Ray token", "Ray cluster", "cache", "cache limit",
            "results", "memory", "shared memory", "open files", "text encoding", "weights"} <= set(checks)  # fmt: skip
    assert checks["weights"] == {"name": "weights", "state": "warn", "found": "of 3 spaces", "remedy": "fetch"}


def test_a_dataset_is_looked_through_if_it_is_named(harness, answers, frames):
    next((frames / "val" / "Segmentation").iterdir()).unlink()
    said = harness("doctor", "--data", frames, "--space", "x.yaml")
    assert said.code == 2 and "✗  dataset" in said.out and "1 problem(s) in 6 train, 2 val, 2 test frames" in said.out
    assert f"→ harness data check {frames}" in said.out and "of 1 spaces" in said.out


def test_it_examines_without_a_library_of_its_own(answers):
    assert [check.name for check in examined()][:3] == ["Python", "packages", "optional"]


def test_missing_libraries_are_reported_and_no_other_check_is_lost(tmp_path):
    """In a Python that has neither torch nor ray nor NumPy nor OpenCV."""
    for name in ("torch", "ray", "numpy", "cv2", "timm"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\")\n")
    where = {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY))), "HARNESS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "harness", "doctor", "--json"], capture_output=True, text=True, env=os.environ | where
    )
    assert done.returncode == 2, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["PyTorch"]["found"] == "ModuleNotFoundError: No module named 'torch'"
    assert checks["Ray"]["state"] == "bad" and "pip install 'ray[tune]'" in checks["Ray"]["remedy"]
    assert checks["OpenCV"]["state"] == "bad" and checks["weights"]["state"] == "warn"
    assert checks["cache"]["state"] in ("ok", "warn") and checks["Python"]["state"] == "ok"


def test_a_screen_without_the_marks_gets_plain_ones(tmp_path):
    code = """
import sys
from harness.doctor import libraries
from harness.doctor.check import ok
for name in ("torch", "images", "ray"):
    setattr(libraries, name, lambda name=name: [ok(name, "fine ✓")])
libraries.weights = lambda spaces: []
from harness.cli import main
sys.argv = ["harness", "doctor"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    text = done.stdout.decode("ascii")
    assert done.returncode == 0, done.stderr
    assert "+  torch" in text and "!  text encoding" in text


def test_each_line_is_written_before_the_next_check_ends_and_in_the_usual_order():
    """Where standard output is a pipe: Ray answers only once the line of PyTorch was read from it."""
    code = """
import sys
from harness.doctor import libraries
from harness.doctor.check import ok
libraries.torch = lambda: [ok("torch", "fine")]
libraries.images = lambda: [ok("images", "fine")]
libraries.ray = lambda: [ok("ray", sys.stdin.readline().strip())]
libraries.weights = lambda spaces: []
from harness.cli import main
sys.argv = ["harness", "doctor"]
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    ) as process:
        before: list[str] = []
        # it would wait for ever if nothing were written before the last check ends
        while not before or (before[-1] and " images " not in before[-1]):
            before.append(process.stdout.readline())
        rest, err = process.communicate("read\n")
    names = [line.split("  ")[1].strip() for line in (*before, *rest.splitlines()) if line[:1] in "✓!✗"]
    assert names[:2] == ["Python", "packages"] and names.index("torch") < names.index("images") < names.index("ray")
    assert "read" in rest and names.index("ray") < names.index("Ray token") < names.index("cache")
    assert process.returncode == 0 and err == ""
