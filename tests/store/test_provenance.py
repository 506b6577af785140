"""Where numbers come from."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.store import provenance as provenance_of
from harness.store import record_session
from harness.store.provenance import commit

ROOT = Path(__file__).resolve().parents[2]


def test_provenance_tells_versions_machine_command_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/some/where/harness", "search", "--trials", "3"])
    found = provenance_of()
    assert found["command"] == ["harness", "search", "--trials", "3"]
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == version("torch")
    assert found["packages"]["harness"] == version("harness")
    assert None not in found["packages"].values()
    assert set(found["machine"]) == {"system", "processor", "cpus"}
    age = datetime.now(timezone.utc) - datetime.fromisoformat(found["created"])
    assert timedelta(seconds=-1) <= age < timedelta(minutes=5)


def test_what_else_is_given_stands_beside_it() -> None:
    assert provenance_of(device="cpu", seeds=[0, 1])["seeds"] == [0, 1]


def test_provenance_can_be_written_as_json() -> None:
    found = provenance_of(dataset="abc")
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_that_of_the_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commit()
    if not (ROOT / ".git").exists():
        assert found is None
        return
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    match = re.fullmatch(r"([0-9a-f]{12,40})(-dirty)?", found)
    assert match
    assert head.stdout.startswith(match.group(1))


def test_every_start_of_a_study_is_kept_with_what_has_changed_since_the_first(tmp_path: Path) -> None:
    path = tmp_path / "provenance.json"
    record_session(path, {"trials": 5}, device="cpu", resources={"executor": "ray"}, dataset="abc")
    first = json.loads(path.read_text())
    assert first.keys() == {*provenance_of(device="cpu", resources={}, dataset="abc"), "sessions"}
    older = {**first, "python": "3.10.1", "packages": {**first["packages"], "torch": "1.0"}}
    path.write_text(json.dumps(older))
    record_session(path, {"trials": 9}, device="gpu", resources={"executor": "inprocess"}, dataset="abc")
    then = json.loads(path.read_text())
    assert {**then, "sessions": None} == {**older, "sessions": None}
    assert then["sessions"][:1] == first["sessions"] and len(then["sessions"]) == 2
    assert then["sessions"][1].keys() == {"started", "command", "resources", "asked", "changed"}
    assert then["sessions"][1]["asked"] == {"trials": 9}
    assert then["sessions"][1]["resources"] == {"executor": "inprocess"}
    assert then["sessions"][1]["changed"] == {
        "python": f"3.10.1 -> {platform.python_version()}",
        "packages.torch": f"1.0 -> {version('torch')}",
        "device": "cpu -> gpu",
    }


def test_a_provenance_without_sessions_gets_them_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps(provenance_of()))
    record_session(path, {})
    assert len(json.loads(path.read_text())["sessions"]) == 1
    path.write_text('{"created": ')
    with pytest.raises(StudyError, match=r"provenance.json: damaged \(.*\); restore it, or move it away"):
        record_session(path, {})
