"""A search on a cluster of two nodes, joined by its address; and nodes that lack what a worker needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import StudyError
from harness.run import Resources, cluster, ray_executor, run_search
from harness.run.cluster import check_nodes, connect, ray
from harness.run.inprocess import run_inprocess
from harness.run.ray_executor import TrialActor
from harness.search import Search
from harness.store import StudyFolder

SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
#: seconds in which a busy machine starts a node, or a worker
PATIENCE = 120.0
HARNESS = Path(cluster.__file__).parents[1]

#: joins it as a search does
SEARCH = """
import sys
from harness.errors import HarnessError
from harness.run.cluster import Resources, connect
try:
    connect(Resources(address=sys.argv[1]))
except HarnessError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head and a second node with a cache of its own, one CPU each; clients need the token."""
    # after harness.run, which sets what ray reads when it is imported
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        # an earlier test of this process may have started a Ray for this machine alone
        cluster._on_loopback_only(False)
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        found.other_cache = tmp_path_factory.mktemp("other") / "cache"
        found.other = found.add_node(num_cpus=1, env_vars={"HARNESS_CACHE": str(found.other_cache)})
        yield found
        found.shutdown()


def in_order(folder: StudyFolder) -> tuple[list[dict], list[dict]]:
    trials = sorted(folder.trials.read(), key=lambda row: row.number)
    epochs = sorted(folder.epochs.read(), key=lambda row: (row.trial, row.epoch))
    return (
        [row.model_dump(exclude=SECONDS) for row in trials],
        [row.model_dump(exclude=SECONDS) for row in epochs],
    )


def test_a_search_on_two_nodes_equals_one_in_this_process_and_a_node_builds_the_frames_that_it_lacks(
    nodes, tiny_space, results, tmp_path, console, monkeypatch
):
    class Meeting(TrialActor):
        """Trains its first epoch when both nodes have a worker: otherwise the first to start would do all."""

        def step(self) -> dict[str, Any]:
            node = ray.get_runtime_context().get_node_id()
            (self._run.path.parents[1] / f"{node}.met").touch()
            until = time.monotonic() + PATIENCE
            while len(list(self._run.path.parents[1].glob("*.met"))) < 2 and time.monotonic() < until:
                time.sleep(0.05)
            return super().step()

    monkeypatch.setattr(ray_executor, "TrialActor", Meeting)
    space = tiny_space(trials=4)
    space = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "random"})})
    assert not nodes.other_cache.exists()
    folder = StudyFolder(results / "search")
    run_search(folder, space, Resources(address=nodes.address), console, seed=1)
    assert len(list(folder.path.glob("*.met"))) == 2
    assert list(nodes.other_cache.glob("frames-*")), "the second node used another's frames"
    (tmp_path / "search").mkdir()
    here = StudyFolder(tmp_path / "search")
    run_inprocess(Search(here, space, seed=1))
    assert in_order(folder) == in_order(here)
    assert folder.best.read_text() == here.best.read_text()
    assert not list(folder.path.glob(".seen-*"))


@pytest.fixture
def joined(nodes: Any) -> Iterator[Resources]:
    resources = Resources(address=nodes.address)
    connect(resources)
    yield resources
    ray.shutdown()


def test_every_node_that_has_the_code_and_sees_the_folder_is_let_through(joined, folder):
    check_nodes(folder.path, joined)
    assert list(folder.path.iterdir()) == []


def test_a_node_with_another_torch_is_named(nodes, joined, folder, tmp_path):
    (tmp_path / "torch-1.0.dist-info").mkdir()
    (tmp_path / "torch-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    old = nodes.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        with pytest.raises(StudyError, match=r"^node \S+ \(.+\) has torch 1\.0 instead of \d.+; install the same on "):
            check_nodes(folder.path, joined)
    finally:
        nodes.remove_node(old)


def test_other_source_files_of_the_same_version_are_other_code(tmp_path, monkeypatch):
    look = cluster._looker()
    _, here = look(str(tmp_path), 0)
    shutil.copytree(HARNESS, tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cluster, "find_spec", lambda name: SimpleNamespace(origin=tmp_path / "harness" / "__init__.py"))
    assert look(str(tmp_path / "not there"), 0) == (False, here)
    with open(tmp_path / "harness" / "errors.py", "a") as file:
        file.write("#")
    seen, there = look(str(tmp_path), 0)
    assert seen and there["torch"] == here["torch"]
    assert there["harness"].split()[0] == here["harness"].split()[0] and there["harness"] != here["harness"]
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    monkeypatch.setattr(cluster, "version", not_installed)
    assert look(str(tmp_path), 0)[1]["torch"] == "(not installed)"


def not_installed(name: str) -> str:
    raise PackageNotFoundError(name)


def test_a_node_that_does_not_see_the_results_folder_is_named(nodes, joined, folder, monkeypatch):
    monkeypatch.setattr(cluster, "_SHOWN", 0.5)
    with node_with_another_disk_at(folder.path, nodes.address):
        with pytest.raises(
            StudyError, match=r"^node .+ does not see the results folder .+/study: what it trains would "
        ):
            check_nodes(folder.path, joined)
    assert list(folder.path.iterdir()) == []


class node_with_another_disk_at:
    """A node of the cluster that has something else mounted over a folder."""

    def __init__(self, folder: Path, address: str) -> None:
        ray_start = f"{Path(sys.executable).parent / 'ray'} start --address={address} --num-cpus=1 --block"
        self.command = f"mount -t tmpfs none '{folder}' && exec {ray_start}"

    def __enter__(self) -> None:
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
            pytest.skip("this user may not mount anything")
        before = len(cluster.alive_nodes())
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", self.command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + PATIENCE
        while len(cluster.alive_nodes()) == before:
            assert self.process.poll() is None and time.monotonic() < until, "the node did not start"
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def test_a_machine_with_another_token_is_told_where_the_clusters_token_belongs(nodes):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Ray asks twenty times, once a second
    variables = {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_AUTH_TOKEN": "f" * 64}
    refused = subprocess.run(
        [sys.executable, "-c", SEARCH, nodes.address], env={**inherited, **variables}, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "InvalidAuthToken: Authentication token is missing or incorrect" in refused.stderr
    assert f"--address {nodes.address}: no Ray cluster there that this machine may join (" in refused.stderr
    assert "put its token (~/.ray/auth_token of its head) into this machine's ~/.ray/auth_token" in refused.stderr


def test_nodes_are_asked_only_where_a_trial_fits(joined, folder, monkeypatch):
    asked: list[str] = []
    ask = cluster._ask
    monkeypatch.setattr(cluster, "_ask", lambda node, probe: asked.append(node) or ask(node, probe))
    alive = cluster.alive_nodes()
    small = {**alive[0], "NodeID": "f" * 56, "Resources": {"memory": 1.0}}
    monkeypatch.setattr(cluster, "alive_nodes", lambda: [*alive, small])
    check_nodes(folder.path, joined)
    assert sorted(asked) == sorted(node["NodeID"] for node in alive)


@pytest.mark.parametrize("lost", ["study", "data"])
def test_a_worker_whose_node_lost_the_results_or_the_dataset_says_so_and_writes_nothing(lost, tiny, desert, tmp_path):
    folders = {"study": tmp_path, "data": desert, lost: tmp_path / "gone"}
    config = {
        "code": None,
        "experiment": tiny(data__root=str(folders["data"])).model_dump_json(),
        "seed": 0,
        "study": str(folders["study"]),
        "run": str(tmp_path / "gone" / "runs" / "t"),
        "known": -1,
    }
    with pytest.raises(StudyError, match=rf"^{os.uname().nodename} does not see {tmp_path}/gone: mount the shared"):
        TrialActor.setup(object.__new__(TrialActor), config)
    assert not (tmp_path / "gone").exists()


def test_a_worker_of_a_node_that_joined_later_with_other_code_says_so_and_trains_nothing():
    config = {"code": "0.1.0 of source 12345678"}
    with pytest.raises(
        StudyError, match=r" has harness .+ of source .{8} instead of 0\.1\.0 of source 12345678: install"
    ):
        TrialActor.setup(object.__new__(TrialActor), config)


def test_a_ray_that_would_let_in_who_has_no_token_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(StudyError, match="^RAY_AUTH_MODE=disabled: whoever reaches Ray's ports could run code as this"):
        connect(Resources())
    assert not ray.is_initialized()
