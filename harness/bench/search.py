"""A whole search with caches on and off: three heads and four losses on one frozen DINOv2 ViT-S.

Frames are 224x126, where 100 passes over 200 frames take one core some 20 minutes in fp32, so that no side has to
be extrapolated. Heads are small beside the backbone: what a head, the loss and the scores cost, a cache cannot save.
That is why bf16, which makes the backbone three times faster and the loss not, gains less from it: a second row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from harness.bench.frames import desert_frames, one_opencv_thread
from harness.bench.rows import Goal, Row
from harness.bench.timing import ratio_interval
from harness.bench.workplace import Workplace
from harness.config import Space, Trial, validate_section
from harness.errors import TrainingError
from harness.run.launch import execute
from harness.run.preflight import decode_frames_of
from harness.run.study import Resources
from harness.search import Search
from harness.store import StudyFolder, TrialRow

TITLE = "Search: three heads and four losses on one frozen backbone, caches on against caches off"
#: the switch of stored features, and the value that turns it off
SWITCH, OFF = "HARNESS_CACHE_FEATURES", "0"
_HEADS = {
    "linear": {"kind": "linear"},
    "conv_stack": {"kind": "conv_stack", "channels": 32},
    "upernet_style": {"kind": "upernet_style", "channels": 32},
}
_LOSSES = {
    "cross_entropy": {},
    "focal": {"cross_entropy": {"weight": 0.0}, "focal": {"weight": 1.0}},
    "dice": {"cross_entropy": {"weight": 0.0}, "dice": {"weight": 1.0}},
    "cross_entropy_dice": {"dice": {"weight": 1.0}},
}


@dataclass(frozen=True)
class Effort:
    """Trials, epochs, training and validation frames, height and width."""

    trials: int
    epochs: int
    train: int
    val: int
    size: tuple[int, int]


FULL = Effort(20, 5, 160, 40, (126, 224))
QUICK = Effort(3, 2, 6, 2, (56, 84))


class TimedSearch(Search):
    """A search that notes the wall seconds of each of its trials."""

    def __init__(self, folder: StudyFolder, space: Space) -> None:
        super().__init__(folder, space, seed=0)
        self.seconds: list[float] = []

    def next_trial(self) -> Trial | None:
        self.started = time.perf_counter()
        return super().next_trial()

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        row = super().on_end(trial_id, error)
        self.seconds.append(time.perf_counter() - self.started)
        if row is None or row.outcome != "complete":
            raise TrainingError(f"harness bench search: trial {trial_id} did not run to its end ({error})")
        return row


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """The same trials with stored features and without, in the default precision of an Experiment, and in bf16."""
    one_opencv_thread()
    for precision, goal in (("fp32", Goal(10, at_least=True)), ("bf16", None)):
        yield search_row(place, QUICK if quick else FULL, precision, goal)


def search_row(place: Workplace, effort: Effort, precision: str, goal: Goal | None) -> Row:
    """Run the search with caches on, the building included, then with caches off."""
    space = _space(place, effort, precision)
    decode_frames_of(space.experiment)
    place.console.print(f"search in {precision}: caches on", highlight=False)
    on = run_search(place, space, f"search-{precision}-on")
    place.console.print(f"search in {precision}: caches off", highlight=False)
    with _features_off():
        off = run_search(place, space, f"search-{precision}-off")
    return Row(
        what=f"search of {effort.trials} trials x {effort.epochs} epochs, {len(_HEADS)} heads, {len(_LOSSES)} losses, "
        f"{effort.train + effort.val} frames at {effort.size[1]}x{effort.size[0]}, {precision}",
        ours=f"{sum(on.seconds):.1f} s",
        theirs=f"{sum(off.seconds):.1f} s",
        value=ratio_interval(off.seconds, on.seconds, np.random.default_rng(0)),
        unit="x",
        pairs=effort.trials,
        goal=goal,
        note="one frozen ViT-S/14 with random weights, both sides trial after trial in one process on one core, every "
        f"trial run in full; storing the features is counted (first trial {on.seconds[0]:.1f} s); caches off: "
        f"{SWITCH}={OFF}, frames decoded beforehand on both sides; interval over trials; {_agreement(on, off)}",
        why="what head, loss, scores and checkpoints cost is in both sides",
    )


def run_search(place: Workplace, space: Space, name: str) -> TimedSearch:
    """Run a search in this process, one trial after the other."""
    folder = StudyFolder(place.folder / name)
    folder.path.mkdir()
    study = TimedSearch(folder, space)
    resources = Resources(executor="inprocess", cpus_per_trial=1.0)
    execute(study, resources, place.console, space.search.trials, space.experiment.training.epochs)
    return study


def _agreement(on: Search, off: Search) -> str:
    pairs = zip(on.record.ended.values(), off.record.ended.values(), strict=True)
    apart = max(abs(mine.score - peer.score) for mine, peer in pairs)
    return f"the trials' scores differ by at most {apart:.2g}"


@contextmanager
def _features_off() -> Iterator[None]:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = OFF
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def _space(place: Workplace, effort: Effort, precision: str) -> Space:
    root = desert_frames(place, effort.train, effort.val, effort.size)
    values = {
        "experiment": {
            "data": {"root": str(root), "input_size": effort.size},
            "augmentation": {"kind": "named", "policy": "none"},
            "model": {"kind": "backbone", "backbone": "vit_small_patch14_dinov2", "weights": "none"},
            "training": {"epochs": effort.epochs, "precision": precision},
        },
        "search": {"trials": effort.trials, "strategy": "random"},
        "parameters": {
            "head": {"kind": "choice", "field": "model.head", "choices": _HEADS},
            "loss": {"kind": "choice", "field": "loss", "choices": _LOSSES},
            "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2, "log": True},
        },
    }
    return validate_section(Space, values, "space")
