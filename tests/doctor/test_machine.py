"""The checks that need no library, on made-up machines."""

from __future__ import annotations

import resource
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from harness.doctor import machine

Usage = namedtuple("Usage", "total used free")
GOOD = {"albumentations": "2.0.8", "opencv-python-headless": "5.0.0", "numpy": "2.4.6", "torch": "2.13.0"}
NEEDS = ["torch>=2.6", "albumentations==2.0.8", "numpy", "opencv_python.headless>=4.9", "onnx; extra == 'onnx'"]


def states(checks) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_packages_that_fit_are_counted_and_extras_are_not_asked_for():
    (check,) = machine.packages(GOOD, NEEDS)
    assert (check.state, check.found) == ("ok", "4 required ones are there, in versions that fit")


def test_a_missing_package_and_a_wrong_version_are_named():
    (check, other) = machine.packages(GOOD | {"albumentations": "1.4.0"}, [*NEEDS, "ray[tune]>=2.50"])
    assert check.state == "bad" and "missing: ray[tune]>=2.50" in check.found
    assert "wrong: albumentations 1.4.0 (needs ==2.0.8)" in check.found and "pip install" in check.remedy
    assert other.state == "bad" and "pip install albumentations==2.0.8" in other.remedy


def test_two_builds_of_opencv_are_a_fault_with_the_way_out():
    check = machine.packages(GOOD | {"opencv-python": "4.11.0"}, NEEDS)[1]
    assert check.name == "OpenCV builds" and check.state == "bad"
    assert "opencv-python 4.11.0 and opencv-python-headless 5.0.0 overwrite each other" in check.found
    assert "pip uninstall -y opencv-python opencv-python-headless" in check.remedy


def test_what_only_options_need_is_no_fault():
    check = machine.extras(GOOD | {"onnx": "1", "onnxscript": "1"})
    assert check.state == "ok" and "--onnx lacks onnxruntime" in check.found
    assert "--tracker lacks tensorboard, mlflow-skinny, wandb" in check.found
    assert "harness[onnx,trackers,dashboard]" in check.found


def test_this_very_environment_satisfies_the_harness():
    assert states(machine.packages()) == {"packages": "ok"}


@pytest.mark.parametrize(("free", "state"), [(100, "ok"), (3, "warn"), (0.2, "bad")])
def test_a_disk_with_little_room_is_told_with_the_variable_that_moves_it(monkeypatch, tmp_path, free, state):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, int(free * 1e9)))
    found = {check.name: check for check in machine.folders()}
    assert found["cache"].state == found["results"].state == state
    assert state == "ok" or "HARNESS_CACHE" in found["cache"].remedy
    assert not (tmp_path / "not" / "there" / "doctor").exists()


def test_a_limit_that_is_no_number_is_a_fault(monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE_GB", "lots")
    found = {check.name: check for check in machine.folders()}
    assert found["cache limit"].state == "bad" and "'lots' is not a number" in found["cache limit"].found
    monkeypatch.setenv("HARNESS_CACHE_GB", "50")
    assert "50 GB (HARNESS_CACHE_GB)" in machine.folders()[0].found


def test_little_shared_memory_is_told_as_in_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64 * 2**20, 0, 64 * 2**20))
    check = machine.shared_memory(tmp_path)
    assert check.state == "warn" and "0.1 GB" in check.found and "--shm-size" in check.remedy
    assert machine.shared_memory(tmp_path / "none").state == "ok"


@pytest.mark.parametrize(
    ("soft", "state"), [(65536, "ok"), (resource.RLIM_INFINITY, "ok"), (1024, "warn"), (256, "bad")]
)
def test_few_open_files_are_told(monkeypatch, soft, state):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 65536))
    check = machine.handles()
    assert check.state == state and (state == "ok" or "ulimit -n 65536" in check.remedy)


def test_a_text_encoding_that_is_not_utf8_is_told():
    assert machine.text_encoding({"files": "UTF-8", "screen": "utf8"}).state == "ok"
    check = machine.text_encoding({"files": "ANSI_X3.4-1968", "screen": "utf-8"})
    assert check.state == "warn" and "files ANSI_X3.4-1968" in check.found and "LC_ALL=C.UTF-8" in check.remedy


@pytest.fixture
def ray(monkeypatch, tmp_path) -> Path:
    """Ray's folder, and a list of processes with none of Ray's in it."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "comm").write_text("bash\n")
    return tmp_path


def test_a_cluster_that_answers_one_that_is_gone_and_one_that_was_left(ray):
    def look():
        return machine.ray_cluster(ray, ray / "proc")

    assert look().state == "ok" and "none runs here" in look().found
    with socket.create_server(("127.0.0.1", 0)) as server:
        (ray / "ray_current_cluster").write_text(f"127.0.0.1:{server.getsockname()[1]}")
        assert look().state == "ok" and "one answers at 127.0.0.1:" in look().found
    assert look().state == "ok" and "none runs here" in look().found
    (ray / "proc" / "7" / "comm").write_text("raylet\n")
    assert look().state == "warn" and "does not answer: 7" in look().found and "ray stop" in look().remedy


def test_an_address_in_the_environment_that_is_dead_is_told(ray, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    check = machine.ray_cluster(ray, ray / "proc")
    assert check.state == "warn" and check.remedy == "unset RAY_ADDRESS"


def test_the_token_is_looked_for_and_should_be_private(ray, monkeypatch):
    assert "Ray makes" in machine.ray_token(ray).found
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert machine.ray_token(ray).state == "bad"
    (ray / ".ray").mkdir()
    token = ray / ".ray" / "auth_token"
    token.write_text("secret")
    token.chmod(0o600)
    assert machine.ray_token(ray).state == "ok" and "secret" not in machine.ray_token(ray).found
    token.chmod(0o644)
    assert machine.ray_token(ray).remedy == f"chmod 600 {token}"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert machine.ray_token(ray).state == "warn"
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert machine.ray_token(ray).found == "in RAY_AUTH_TOKEN"
