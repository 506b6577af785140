"""A study on paper, and a look at everything that lies around it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli import main
from harness.cli.app import console


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
    monkeypatch.setattr(console, "width", 200)

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Said(exit_.value.code or 0, *capsys.readouterr())

    return call


def tree_of(folder: Path, but: Path) -> dict[str, str]:
    """Every file below a folder with its content's digest, but for one folder."""
    files = (p for p in folder.rglob("*") if but not in p.parents and p != but)
    return {
        str(p): str(p.readlink()) if p.is_symlink() else hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.is_symlink() or p.is_file()
    }


@pytest.fixture
def untouched(tmp_path: Path) -> Callable:
    """A context in which nothing may change outside one folder."""

    @contextmanager
    def check(but: Path) -> Iterator[None]:
        before = tree_of(tmp_path, but)
        yield
        assert tree_of(tmp_path, but) == before

    return check
