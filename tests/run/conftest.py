"""A training of a second, a search over it, and a results folder for each test."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.config import Experiment, Space, apply_overrides, validate_section
from harness.data import write_desert
from harness.store import StudyFolder

TINY: dict[str, Any] = {
    "data": {
        "synthetic": {"train": 6, "val": 3, "test": 2, "height": 32, "width": 48},
        "input_size": [32, 48],
    },
    "model": {
        "kind": "backbone",
        "backbone": "mobilenetv3_small_050",
        "weights": "none",
        "trainable_blocks": "all",
        "stride": 8,
        "head": {"kind": "linear"},
    },
    "training": {"epochs": 3, "batch_size": 2, "drop_last": True},
}

PARAMETERS: dict[str, Any] = {
    "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    # with drop_last, nine of six frames are no batch: such a trial fails
    "batch": {"kind": "int", "field": "training.batch_size", "low": 2, "high": 9, "step": 7},
}


#: forks a process for every line of its input: one that has loaded all, which a new one takes seconds for
SERVER = """
import json, os, sys
import harness.cli, harness.run.launch

def start(code, said, names):
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    exec(code, {"__name__": "__main__", **names})
    sys.exit()

def look(pid, flags):
    ended, status = os.waitpid(pid, flags)
    return os.waitstatus_to_exitcode(status) if ended else None

for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps({"start": start, "look": look}[name](*arguments)), flush=True)
"""


class Forks:
    """A server of forked processes, each in a session of its own, as a terminal starts a program."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, code: str, said: Path, **names: Any) -> Forked:
        """A process that runs code with these names, its output in the file `said`."""
        return Forked(self, self.ask("start", code, str(said), names))

    def ask(self, *words: Any) -> Any:
        self.server.stdin.write(json.dumps(words) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def close(self) -> None:
        self.server.communicate()


class Forked:
    """One such process."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.forks, self.pid, self.code = forks, pid, None

    def poll(self) -> int | None:
        """Its exit code, negative a signal; none while it lives."""
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        return self._look(0)

    def kill(self) -> None:
        """As `kill -9`."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def _look(self, flags: int) -> int | None:
        if self.code is None:
            self.code = self.forks.ask("look", self.pid, flags)
        return self.code


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts processes that have loaded harness already."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def one_thread():
    """As the workers of one CPU have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of this test, not there yet."""
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Experiment]:
    """The tiny Experiment, with overrides by dotted path."""

    def make(**overrides: Any) -> Experiment:
        experiment = validate_section(Experiment, TINY, "tiny")
        return apply_overrides(experiment, {path.replace("__", "."): value for path, value in overrides.items()})

    return make


@pytest.fixture(scope="session")
def tiny_space() -> Callable[..., Space]:
    """A search over the tiny Experiment; `parameters` replace the default ones."""

    def make(parameters: dict[str, Any] | None = None, experiment: Experiment | None = None, trials: int = 5) -> Space:
        values = {
            "experiment": TINY if experiment is None else experiment.model_dump(mode="json"),
            "search": {"trials": trials, "strategy": "random_asha"},
            "parameters": parameters or PARAMETERS,
        }
        return validate_section(Space, values, "space")

    return make


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """An empty study folder."""
    path = tmp_path / "study"
    path.mkdir()
    return StudyFolder(path)


@pytest.fixture
def console() -> Console:
    """A console that is no terminal and keeps what is printed in its file."""
    return Console(file=io.StringIO(), width=160)


@pytest.fixture(scope="session")
def desert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of six training, three validation and two test frames; not to be changed."""
    root = tmp_path_factory.mktemp("data") / "desert"
    write_desert(root, train=6, val=3, test=2, height=32, width=48, seed=0)
    return root


@pytest.fixture
def frames(desert: Path, tmp_path: Path) -> Path:
    """A copy of the dataset for this test to break."""
    return Path(shutil.copytree(desert, tmp_path / "frames"))
