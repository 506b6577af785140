"""A cluster of Ray nodes on this machine, which a disturbed search joins and one of which can be lost."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.chaos.processes import below, kill_all
from harness.errors import TrainingError

#: seconds in which a busy machine starts a node, or notices that one is gone
PATIENCE = 120.0
#: seconds in which a node ends by itself that was asked to
_IN_ORDER = 10.0
_LOOK = 0.1
_STARTED = b"Ray runtime started"

#: waits until a cluster has so many nodes: only Ray knows whom it still takes to be alive
_COUNT = """
import sys, time
from harness.run import Resources
from harness.run.cluster import alive_nodes, connect
connect(Resources(address=sys.argv[1], cpus_per_trial=float(sys.argv[3])))
while len(alive_nodes()) != int(sys.argv[2]):
    time.sleep(0.2)
"""


class LocalCluster:
    """The nodes, by the process that started each; the first is the head, which drivers join and which is never lost.

    Each has room for one trial.
    """

    def __init__(self, home: Path, scratch: Path, cache: Path, cpus: float) -> None:
        self.home, self.cpus, self.port = home, cpus, _free_port()
        #: what a driver needs to be let in
        self.key = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        # a worker has the cache of its node, whatever the driver's is
        ours = {"HARNESS_CACHE": str(cache), "RAY_TMPDIR": str(scratch), "RAY_USAGE_STATS_ENABLED": "0"}
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self.environment = inherited | ours | self.key
        self.nodes: list[subprocess.Popen] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def others(self) -> list[subprocess.Popen]:
        """All but the head."""
        return self.nodes[1:]

    def add(self) -> None:
        """Start one more node."""
        head = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        where = [f"--address={self.address}"] if self.nodes else head
        log = self.home / f"node-{time.monotonic_ns()}.log"
        with open(log, "wb") as file:
            self.nodes.append(
                subprocess.Popen(
                    [*_START, *where, f"--num-cpus={max(1, math.ceil(self.cpus))}", *_OPTIONS],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    # its own group: a Ctrl-C at this terminal is not one of the faults
                    start_new_session=True,
                )
            )
        node = self.nodes[-1]
        _wait(lambda: _STARTED in log.read_bytes() or node.poll() is not None, log)
        if node.poll() is not None:
            raise TrainingError(f"a node of Ray did not start; {log} says why")

    def lose(self, node: subprocess.Popen) -> None:
        """Kill what a node is, the raylet; what is left of it then goes by itself."""
        for process in below(node.pid, "raylet"):
            process.kill()
        node.wait(PATIENCE)
        self.nodes.remove(node)

    def settle(self) -> None:
        """Wait until Ray knows who came and who is gone; it takes a dead node to be alive for some seconds."""
        words = [sys.executable, "-c", _COUNT, self.address, str(len(self.nodes)), str(self.cpus)]
        log = self.home / "count.log"
        with open(log, "wb") as file:
            process = subprocess.Popen(words, env=self.environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            _wait(lambda: process.poll() is not None, log)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise TrainingError(f"Ray does not say how many nodes it has; {log} says why")

    def stop(self) -> None:
        """End every node, the head last."""
        for node in reversed(self.nodes):
            family = below(node.pid)
            node.terminate()
            try:
                node.wait(_IN_ORDER)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
            kill_all(family, _IN_ORDER)


@contextmanager
def local_cluster(home: Path, cache: Path, nodes: int, cpus: float) -> Iterator[LocalCluster]:
    """Run a cluster of so many nodes, each with room for one trial of so many CPUs, to the end of this context.

    Args:
        home: folder for what the nodes say.
        cache: folder of the decoded frames, the same for all nodes.

    Raises:
        TrainingError: a node does not start.
    """
    # not below home: the path of a socket has at most some hundred characters
    scratch = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    cluster = LocalCluster(home, scratch, cache, cpus)
    try:
        for _ in range(nodes):
            cluster.add()
        cluster.settle()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(scratch, ignore_errors=True)


_START = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block")
_OPTIONS = (
    "--disable-usage-stats",
    f"--object-store-memory={100 * 2**20}",
    # any that is free: every node of this machine would ask for the same
    "--dashboard-agent-listen-port=0",
    "--min-worker-port=0",
    "--max-worker-port=0",
)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _wait(condition: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TrainingError(f"a node of Ray did not come or go within {PATIENCE:g} s; {log} says how far it came")
        time.sleep(_LOOK)
