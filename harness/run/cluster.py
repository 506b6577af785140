"""Where a study runs: a Ray of its own on this machine, or a cluster that is joined, and what its nodes must share.

Code and environment are not sent: every node has the same installation (see deploy/), which is checked before the
first trial. Decoded frames and features are each node's own: a worker whose node lacks them builds them.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# read by ray when it is imported
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# a worker that was given no GPU sees none
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
# without it, Ray does not show its token to a cluster that is joined by an address, and is refused; set after ray has
# read it, it would be half in force
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.errors import StudyError, first_line
from harness.run.study import Resources

_log = logging.getLogger(__name__)
#: bytes; nothing of ours travels through the object store, so it stays at Ray's minimum
_OBJECT_STORE = 100 * 2**20
#: seconds after which the nodes are counted again
_COUNT_AGAIN = 10.0
#: seconds in which a node must answer: its first Python process takes a few
_ANSWER = 120.0
#: seconds after which a network file system shows a new file
_SHOWN = 15.0


def connect(resources: Resources) -> Resources:
    """Start a local Ray, or join the cluster at `resources.address`.

    Returns:
        The resources, one GPU for each trial where none was asked for and a node has one.

    Raises:
        StudyError: the cluster cannot be reached, refuses the token or does not have what one trial asks for, or Ray
            is to let in who has no token.
    """
    _check_asks_for_token()
    _on_loopback_only(resources.address is None)
    if resources.address is None:
        _start()
        close_token_file()
    else:
        _join(resources.address)
    if resources.gpus_per_trial is None:
        gpus = any(node["Resources"].get("GPU", 0) >= 1 for node in alive_nodes())
        resources = replace(resources, gpus_per_trial=float(gpus))
    try:
        fitting(resources)
    except StudyError:
        ray.shutdown()
        raise
    return resources


def _check_asks_for_token() -> None:
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise StudyError(
            f"RAY_AUTH_MODE={mode}: whoever reaches Ray's ports could run code as this user; unset it, or set it to "
            "token"
        )


def _on_loopback_only(alone: bool) -> None:
    """Let Ray use 127.0.0.1 alone; in a cluster, nodes on other machines could not answer a driver of that address."""
    # the constant is what this process uses, the variable what the processes that it starts will
    ray_constants.ENABLE_RAY_CLUSTER = not alone
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0" if alone else "1"


def _start() -> None:
    # without "local", Ray would join a cluster that somebody else started on this machine
    _init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE)


def _join(address: str) -> None:
    try:
        _init(address)
    except (ConnectionError, AuthenticationError) as error:
        raise StudyError(
            f"--address {address}: no Ray cluster there that this machine may join ({first_line(error)}); "
            "start one with `ray start --head`, put its token (~/.ray/auth_token of its head) into this machine's "
            "~/.ray/auth_token or RAY_AUTH_TOKEN (with RAY_AUTH_MODE=token), or leave --address out to use this "
            "machine alone"
        ) from error


def _init(address: str, **local: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)


def close_token_file() -> None:
    """Let nobody else read this user's token, with which code can be run as this user: Ray writes it for all to see."""
    path = Path.home() / ".ray" / "auth_token"
    if path.is_file() and path.stat().st_uid == os.getuid():
        path.chmod(0o600)


def fitting(resources: Resources) -> int:
    """How many trials fit at once on the nodes that are there now.

    Raises:
        StudyError: not even one does.
    """
    nodes = alive_nodes()
    fits = sum(_fitting_on(node, resources) for node in nodes)
    if fits < 1:
        have = "; ".join(f"{n['Resources'].get('CPU', 0):g} and {n['Resources'].get('GPU', 0):g}" for n in nodes)
        raise StudyError(
            f"one trial asks for {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial or 0:g} GPUs; Ray's "
            f"nodes have {have}: lower --cpus-per-trial or --gpus-per-trial"
        )
    return fits


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of each node that has not died."""
    return [node for node in ray.nodes() if node["Alive"]]


def _fitting_on(node: dict[str, Any], resources: Resources) -> int:
    # node by node: a trial does not spread over two
    asked = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial or 0.0}
    have = node["Resources"]
    return min(math.floor(have.get(kind, 0) / amount + 1e-9) for kind, amount in asked.items() if amount > 0)


class Room:
    """How many trials may run at once, counted anew every few seconds: nodes come and go."""

    def __init__(self, resources: Resources, count_again: float = _COUNT_AGAIN) -> None:
        self.resources, self.count_again = resources, count_again
        self.counted_at = -math.inf
        self.fits = 0

    def __call__(self) -> int:
        """As many as were asked for and fit; at least one, which waits for a node where there is none."""
        if time.monotonic() >= self.counted_at + self.count_again:
            self._count()
        return max(1, min(self.resources.concurrency or self.fits, self.fits))

    def _count(self) -> None:
        before, self.fits = self.fits, sum(_fitting_on(node, self.resources) for node in alive_nodes())
        self.counted_at = time.monotonic()
        if before > 0 and self.fits == 0:
            _log.warning("no node with room for a trial is left in the cluster; waiting for one (Ctrl-C: stop)")


def check_nodes(folder: Path, resources: Resources) -> None:
    """Ask every node that can run a trial whether it has this machine's code and sees the study's folder.

    Raises:
        StudyError: names the first node that does not, with the fix.
    """
    probe = folder.resolve() / f".seen-{uuid.uuid4().hex}"
    probe.write_text("a driver asks every node whether it sees this folder\n")
    try:
        nodes = [node for node in alive_nodes() if _fitting_on(node, resources) > 0]
        asked = [(node, _ask(node["NodeID"], probe)) for node in nodes]
        for node, answer in asked:
            _check(f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})", answer, probe)
    finally:
        probe.unlink()


def _ask(node: str, probe: Path) -> ray.ObjectRef:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    look = ray.remote(_looker()).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return look.remote(str(probe), _SHOWN)


def _check(node: str, answer: ray.ObjectRef, probe: Path) -> None:
    try:
        seen, there = ray.get(answer, timeout=_ANSWER)
    except RayError as error:
        raise StudyError(
            f"node {node} does not answer ({type(error).__name__}: {first_line(error)}); look at it with "
            "`ray status`, mend it or take it out of the cluster"
        ) from error
    _, here = _looker()(str(probe), 0)
    different = [f"{name} {there[name]} instead of {here[name]}" for name in here if there[name] != here[name]]
    if different:
        raise StudyError(
            f"node {node} has {', '.join(different)}; install the same on every node (one container image does, see "
            "deploy/README.md)"
        )
    if not seen:
        raise StudyError(
            f"node {node} does not see the results folder {probe.parent}: what it trains would be lost; mount the same "
            "shared storage there on every node, or set HARNESS_RESULTS to a folder on it"
        )


@cache
def own_code() -> str:
    """Version and source of the package that this process runs."""
    _, found = _looker()("", 0)
    return found["harness"]


def _looker() -> Callable[[str, float], tuple[bool, dict[str, str]]]:
    # Ray sends a function inside a function whole: a node without our package can answer too
    def look(probe: str, patience: float) -> tuple[bool, dict[str, str]]:
        """Whether a file is seen here, and what is installed; neither torch nor our package is imported."""
        until = time.monotonic() + patience
        while not Path(probe).exists() and time.monotonic() < until:
            time.sleep(0.1)
        found = {}
        for name in ("harness", "torch"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "(not installed)"
        spec = find_spec("harness")
        digest = hashlib.sha256()
        for file in sorted(Path(spec.origin).parent.rglob("*.py")) if spec is not None else ():
            digest.update(file.read_bytes())
        # a checkout has the same version through many commits
        found["harness"] += f" of source {digest.hexdigest()[:8]}"
        return Path(probe).exists(), found

    return look
