"""Faults come in a random order that leaves none out."""

from __future__ import annotations

import random
from collections import Counter

from harness.chaos import run
from harness.chaos.faults import Fault


def test_every_fault_comes_once_before_any_comes_twice_and_one_that_finds_nothing_comes_later(monkeypatch) -> None:
    ready = []
    kinds = [Fault(name, lambda *_: True) for name in "abc"] + [Fault("late", lambda *_: bool(ready))]
    monkeypatch.setattr(run, "FAULTS", tuple(kinds))
    faults = run.Faults(random.Random(0))
    struck = [fault.name for _ in range(5) if (fault := faults.strike(None, None)) is not None]
    assert Counter(struck) == {"a": 1, "b": 1, "c": 1}
    ready.append(True)
    assert faults.strike(None, None).name == "late"
    assert sorted(faults.strike(None, None).name for _ in range(4)) == ["a", "b", "c", "late"]
