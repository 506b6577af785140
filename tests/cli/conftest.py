"""The command line called as a program would be, on data of a second."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli import main
from harness.cli.app import console
from harness.data import write_desert

SPACE = """
experiment:
  data: {input_size: [32, 48]}
  model: {kind: backbone, backbone: mobilenetv3_small_050, weights: none, trainable_blocks: all, stride: 8,
          head: {kind: linear}}
  training: {epochs: 2, batch_size: 2, drop_last: true}
search: {trials: 2, strategy: random_asha}
parameters:
  lr: {kind: float, field: optimiser.lr, low: 1e-4, high: 1e-1, log: true}
"""


class Said(NamedTuple):
    """Exit code, standard output and standard error of one call."""

    code: int
    out: str
    err: str


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of this test, not there yet."""
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def harness(results: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Call `harness WORDS...` in this process."""
    # rows in one line each, whatever terminal the tests run in
    monkeypatch.setattr(console, "width", 200)

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Said(exit_.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A search space file of two short trials."""
    path = tmp_path / "small.yaml"
    path.write_text(SPACE)
    return path


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
