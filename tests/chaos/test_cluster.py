"""Nodes are started, lost and ended by the processes that they are; a stand-in takes the place of `ray start`."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from harness.chaos import cluster
from harness.chaos.cluster import LocalCluster
from harness.chaos.processes import below, is_alive
from harness.errors import TrainingError

#: as `ray start --block`: starts a raylet and a helper, says so, and ends when the raylet does or when it is asked to
NODE = """
import os, pathlib, signal, subprocess, sys
print(*sys.argv[1:])
print(*(f"{name}={os.environ.get(name)}" for name in ("HARNESS_CACHE", "RAY_ADDRESS", "RAY_AUTH_MODE")))
helper = subprocess.Popen(["helper", "1000"], executable="/bin/sleep")
raylet = subprocess.Popen(["raylet", "1000"], executable="/bin/sleep")
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("Ray runtime started.", flush=True)
raylet.wait()
helper.kill()
helper.wait()
sys.exit(1)
"""


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A head and another node."""
    monkeypatch.setenv("RAY_ADDRESS", "somebody.else:1")
    monkeypatch.setattr(cluster, "_START", (sys.executable, "-c", NODE))
    # a helper ends by no signal but the last
    monkeypatch.setattr(cluster, "_IN_ORDER", 0.2)
    nodes = LocalCluster(tmp_path, tmp_path / "scratch", tmp_path / "cache", 1.5)
    nodes.add()
    nodes.add()
    yield nodes
    nodes.stop()


def test_the_head_is_started_first_the_others_join_it_and_all_use_the_searchs_own_cache(two, tmp_path):
    head, other = (path.read_text() for path in sorted(tmp_path.glob("node-*.log"), key=lambda p: p.stat().st_mtime_ns))
    assert f"--head --port={two.port} " in head and "--num-cpus=2" in head
    assert f"--address={two.address} " in other and "--head" not in other
    for said in (head, other):
        assert f"HARNESS_CACHE={tmp_path / 'cache'} RAY_ADDRESS=None RAY_AUTH_MODE=token" in said


def test_every_cluster_has_a_token_of_its_own(two, tmp_path):
    another = LocalCluster(tmp_path, tmp_path, tmp_path, 1.0)
    assert two.key["RAY_AUTH_TOKEN"] != another.key["RAY_AUTH_TOKEN"] and len(two.key["RAY_AUTH_TOKEN"]) == 64


def test_a_node_without_its_raylet_is_lost_and_the_head_stays(two):
    head, other = two.nodes
    family = below(other.pid)
    two.lose(other)
    assert other.returncode == 1 and two.nodes == [head] and two.others() == []
    assert not any(map(is_alive, family))
    assert [process.cmdline()[0] for process in below(head.pid, "raylet")] == ["raylet"]


def test_nothing_of_a_cluster_that_was_stopped_is_left(two, wait_until):
    family = [process for node in two.nodes for process in (psutil.Process(node.pid), *below(node.pid))]
    assert len(family) == 6
    two.stop()
    wait_until(lambda: not any(map(is_alive, family)))


def test_a_node_that_does_not_start_is_named_by_the_log_that_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_START", (sys.executable, "-c", "import sys; sys.exit('no port is free')"))
    with pytest.raises(TrainingError, match=r"^a node of Ray did not start; .+/node-\d+\.log says why$") as error:
        LocalCluster(tmp_path, tmp_path, tmp_path, 1.0).add()
    log = str(error.value).partition("; ")[2].removesuffix(" says why")
    assert "no port is free" in Path(log).read_text()
