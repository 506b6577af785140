"""Faults, each really done to small processes; HARNESS_LONG_TESTS=1 loses a node of a search that trains."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from harness.chaos import Plan, chaos, cluster, faults, run
from harness.chaos.cluster import LocalCluster
from harness.chaos.driver import Command, Driver
from harness.chaos.processes import is_alive
from harness.errors import TrainingError

RNG = random.Random(0)
LONG = pytest.mark.skipif("HARNESS_LONG_TESTS" not in os.environ, reason="two minutes of a cluster")
#: writes a file again and again until there is no room for it, and ends as a driver does then
WRITER = """
import pathlib, sys
try:
    while True:
        pathlib.Path(sys.argv[1]).write_bytes(bytes(100_000))
except OSError:
    sys.exit(3)
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(faults, "TRAINING", (0.0, 0.0))


@pytest.fixture
def driver(start_parent) -> Driver:
    """A driver with one worker."""
    return Driver(start_parent("ray::TrialActor"))


def stands_still(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


@pytest.fixture
def strike_and_look(command, monkeypatch) -> Callable[..., bool]:
    """Suspend for a moment, and look at it meanwhile."""
    monkeypatch.setattr(faults, "SUSPENDED", (1.0, 1.5))

    def strike_and_look(strike, driver: Driver, look: Callable[[], None]) -> bool:
        struck: list[bool] = []
        thread = threading.Thread(target=lambda: struck.append(strike(command, driver, RNG)))
        thread.start()
        look()
        thread.join()
        return struck[0]

    return strike_and_look


def test_a_suspended_driver_stands_still_and_goes_on_while_its_worker_never_stops(driver, strike_and_look, wait_until):
    process, (worker,) = psutil.Process(driver.process.pid), driver.workers()

    def look() -> None:
        wait_until(lambda: stands_still(process))
        assert not stands_still(worker)

    assert strike_and_look(faults.suspend_driver, driver, look)
    wait_until(lambda: not stands_still(process))
    assert driver.runs() and driver.workers() == [worker]


def test_a_suspended_worker_stands_still_and_goes_on_while_its_driver_never_stops(driver, strike_and_look, wait_until):
    process, (worker,) = psutil.Process(driver.process.pid), driver.workers()

    def look() -> None:
        wait_until(lambda: stands_still(worker))
        assert not stands_still(process)

    assert strike_and_look(faults.suspend_worker, driver, look)
    wait_until(lambda: not stands_still(worker))
    assert driver.workers() == [worker]


def test_a_chaos_that_is_interrupted_leaves_nobody_suspended(driver, command, monkeypatch, wait_until):
    def interrupt(seconds: float) -> None:
        # a busy machine takes a moment
        while not stands_still(psutil.Process(driver.process.pid)):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(faults.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        faults.suspend_driver(command, driver, RNG)
    monkeypatch.undo()
    wait_until(lambda: not stands_still(psutil.Process(driver.process.pid)))


@pytest.mark.parametrize("strike", [faults.kill_worker, faults.suspend_worker])
def test_without_a_worker_and_with_one_that_ended_just_now_there_was_nothing_to_strike(
    strike, driver, command, monkeypatch
):
    (worker,) = driver.workers()
    worker.kill()
    driver.process.wait()
    assert driver.workers() == [] and not strike(command, driver, RNG)
    monkeypatch.setattr(Driver, "workers", lambda _: [worker])
    assert not strike(command, driver, RNG)


def test_workers_of_a_driver_that_joined_a_cluster_are_found_below_its_nodes(start, start_parent, command):
    joined = Driver(
        start("import time; time.sleep(1000)"), SimpleNamespace(nodes=[start_parent("ray::TrialActor.step")])
    )
    (worker,) = joined.workers()
    assert faults.kill_worker(command, joined, RNG)
    assert joined.cluster.nodes[0].wait() is not None and joined.runs()
    assert not is_alive(worker) and joined.workers() == []


def test_a_driver_that_is_ended_takes_its_workers_along(driver, wait_until):
    (worker,) = driver.workers()
    # as Ray does it, when it finds that the driver is gone
    threading.Thread(target=lambda: (driver.process.wait(), worker.kill())).start()
    driver.end()
    assert not driver.runs() and not is_alive(worker)


# ---- a node ----


class Nodes(LocalCluster):
    """Nodes that are there already, in the place of Ray's."""

    def __init__(self, *nodes: subprocess.Popen) -> None:
        self.nodes, self.done = list(nodes), []

    def add(self) -> None:
        self.done.append("added")

    def settle(self) -> None:
        self.done.append("settled")


def test_the_node_that_trains_is_lost_with_all_that_it_runs_and_another_one_comes(
    start, start_parent, command, monkeypatch
):
    monkeypatch.setattr(faults, "MISSING", (0.0, 0.0))
    monkeypatch.setattr(cluster, "below", lambda pid, name: psutil.Process(pid).children())
    head, idle, trains = (start_parent(name) for name in ("ray::TrialActor", "raylet", "ray::TrialActor"))
    nodes = Nodes(head, idle, trains)
    joined = Driver(start("import time; time.sleep(1000)"), nodes)
    assert faults.lose_node(replace(command, cluster=nodes), joined, RNG)
    assert trains.poll() is not None and head.poll() is None and idle.poll() is None
    assert nodes.nodes == [head, idle] and nodes.done == ["added", "settled"]
    assert not faults.lose_node(replace(command, cluster=nodes), joined, RNG), "the head is never lost"


def test_a_worker_that_is_not_there_yet_is_waited_for(start, command, start_parent):
    nodes = SimpleNamespace(nodes=[])
    joined = Driver(start("import time; time.sleep(1000)"), nodes)
    late = threading.Timer(0.5, lambda: nodes.nodes.append(start_parent("ray::TrialActor")))
    late.start()
    assert faults.kill_worker(command, joined, RNG)
    late.join()


@LONG
def test_a_search_on_a_cluster_that_loses_nodes_and_drivers_ends_as_the_one_left_alone(tmp_path, monkeypatch):
    kinds = ("node lost", "driver killed (-9)", "worker killed (-9)")
    monkeypatch.setattr(run, "FAULTS", tuple(fault for fault in faults.FAULTS if fault.name in kinds))
    monkeypatch.setattr(run, "SPACING", 8.0)
    (tmp_path / "home").mkdir()
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    report = chaos(tmp_path / "home", Plan(space, ("--concurrency", "1"), 120.0, 0, nodes=2), lambda _: None)
    assert report.good() and set(report.faults) == set(kinds), report


SPACE = """
experiment:
  data: {synthetic: {train: 6, val: 3, test: 2, height: 32, width: 48}, input_size: [32, 48]}
  model: {kind: backbone, backbone: mobilenetv3_small_050, weights: none, trainable_blocks: all, stride: 8,
          head: {kind: linear}}
  training: {epochs: 9, batch_size: 2, drop_last: true}
search: {trials: 12, strategy: promote, grace_epochs: 1, reduction_factor: 3}
parameters:
  lr: {kind: float, field: optimiser.lr, low: 1.0e-4, high: 1.0e-1, log: true}
"""


# ---- ends ----

#: takes a signal as a driver does that trains: ends with the code that it is given; none: not at all
LISTENER = """
import signal, sys, time
def end(*_):
    if sys.argv[2]:
        sys.exit(int(sys.argv[2]))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
open(sys.argv[1], "w").write("row")
time.sleep(1000)
"""


@pytest.fixture
def listener(begun, start, wait_until, monkeypatch) -> Callable[[str], Driver]:
    """Start a driver that has written a row."""
    monkeypatch.setattr(faults, "is_driven", lambda folder: True)

    def run(code: str) -> Driver:
        begun.folder.epochs.path.unlink(missing_ok=True)
        driver = Driver(start(LISTENER, str(begun.folder.epochs.path), code))
        wait_until(lambda: begun.folder.epochs.path.exists() and begun.folder.epochs.path.read_text())
        return driver

    return run


STOPS = [faults.interrupt, faults.terminate, faults.interrupt_twice]


@pytest.mark.parametrize("stop", STOPS)
def test_a_driver_that_is_asked_to_end_has_to_end_with_130(stop, listener, begun):
    assert stop(begun, listener("130"), RNG)
    assert not stop(begun, listener("0"), RNG), "it had come to its end"
    with pytest.raises(TrainingError, match=r"did not end with exit code 130, but with 1; what it said is in .+\.log"):
        stop(begun, listener("1"), RNG)


@pytest.mark.parametrize("stop", STOPS)
def test_a_driver_that_is_asked_to_end_and_runs_on_is_a_failure(stop, listener, begun, monkeypatch):
    monkeypatch.setattr(faults, "PATIENCE", 0.3)
    with pytest.raises(TrainingError, match=r"did not end with exit code 130, but runs on after 0\.3 s"):
        stop(begun, listener(""), RNG)


def test_a_driver_that_trains_takes_sigterm_and_one_that_starts_need_not(begun, start, monkeypatch, wait_until):
    monkeypatch.setattr(faults, "is_driven", lambda folder: True)
    assert not faults.terminate(begun, Driver(start("import time; time.sleep(1000)")), RNG)
    driver = Driver(start("import time, sys; open(sys.argv[1], 'w'); time.sleep(1000)", str(begun.folder.epochs.path)))
    wait_until(begun.folder.epochs.path.exists)
    with pytest.raises(TrainingError, match="exit code 130, but with -15"):
        faults.terminate(begun, driver, RNG)


@pytest.mark.parametrize(
    ("second", "said"),
    [("sys.exit(0)", "exit code 2, but with 0"), ("time.sleep(1000)", "exit code 2, but runs on after 1 s")],
)
def test_a_second_driver_that_is_let_in_is_a_failure(second, said, begun, driver, start, monkeypatch):
    monkeypatch.setattr(faults, "PATIENCE", 1.0)
    monkeypatch.setattr(Command, "start", lambda _: Driver(start(f"import sys, time; {second}")))
    with pytest.raises(TrainingError, match=said):
        faults.second_driver(begun, driver, RNG)
    assert driver.runs()


def test_a_second_driver_that_is_refused_is_a_fault_and_one_that_comes_after_the_first_is_none(
    begun, driver, start, monkeypatch
):
    monkeypatch.setattr(Command, "start", lambda _: Driver(start("import sys; sys.exit(2)")))
    assert faults.second_driver(begun, driver, RNG)

    def after_the_first(_: Command) -> Driver:
        driver.kill()
        return Driver(start("pass"))

    monkeypatch.setattr(Command, "start", after_the_first)
    assert not faults.second_driver(begun, driver, RNG)


# ---- files ----


@pytest.fixture
def begun(command) -> Command:
    """A search that has written its settings."""
    command.folder.path.mkdir(parents=True)
    command.folder.settings.touch()
    return command


@pytest.mark.parametrize("strike", [faults.torn_line, faults.damaged_checkpoint, faults.damaged_cache])
def test_a_driver_without_the_files_that_a_fault_damages_is_left_alone(strike, driver, command):
    assert not strike(command, driver, RNG) and driver.runs()


def test_a_checkpoint_is_damaged_only_when_nobody_is_left_who_would_replace_it(driver, begun):
    path = begun.folder.run("one").last
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(100))
    (worker,) = driver.workers()
    threading.Thread(target=lambda: (driver.process.wait(), worker.kill())).start()
    assert faults.damaged_checkpoint(begun, driver, RNG)
    assert not driver.runs() and not is_alive(worker) and path.read_bytes() != bytes(100)


@pytest.fixture
def begun_on_small_disk(command, mount) -> Command:
    mount(command.results)
    command.folder.path.mkdir()
    command.folder.settings.touch()
    return command


def test_a_disk_is_full_until_the_driver_stopped_by_itself(begun_on_small_disk, start):
    results = begun_on_small_disk.results
    driver = Driver(start(WRITER, str(results / "writes")))
    assert faults.fill_disk(begun_on_small_disk, driver, RNG)
    assert driver.wait() == 3
    assert not (results / "ballast").exists() and os.statvfs(results).f_bfree > 0


def test_a_driver_that_ends_otherwise_where_the_disk_is_full_is_a_failure(begun_on_small_disk, start):
    with pytest.raises(TrainingError, match="a driver without room did not end with exit code 3, but with 1"):
        faults.fill_disk(begun_on_small_disk, Driver(start("raise SystemExit(1)")), RNG)
    assert not (begun_on_small_disk.results / "ballast").exists()


def test_a_driver_that_ended_before_it_found_the_disk_full_was_not_struck(begun_on_small_disk, start):
    assert not faults.fill_disk(begun_on_small_disk, Driver(start("pass")), RNG)
    assert not (begun_on_small_disk.results / "ballast").exists()
