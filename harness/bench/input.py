"""Input: milliseconds of a training sample, the frame cache against the teams' loop, both with augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import albumentations as A
import torch

from harness.bench.frames import desert_frames, one_opencv_thread
from harness.bench.rows import Goal, Row, milliseconds
from harness.bench.teams_input import (
    CODECRUNCH,
    IGNITIA,
    TeamFrames,
    codecrunch_phase5,
    ignitia_phase2,
    ignitia_phase3,
    team_loader,
)
from harness.bench.timing import compare, median_interval, seconds_of
from harness.bench.workplace import Workplace
from harness.config import IGNORE, policy_steps
from harness.config.augmentation import NamedPolicy, PolicyName
from harness.config.data import NamedTaxonomy
from harness.data import build_taxonomy, needs_native, open_frames, train_batches
from harness.engine.inference import normalise

TITLE = "Input: one training sample, the frame cache against the teams' loop"
_BATCH = 2


class Case(NamedTuple):
    """A team's training input: the policy, its plain version, the ids, and the size."""

    policy: PolicyName
    transform: Callable[[int, int], A.Compose]
    taxonomy: str
    ids: dict[int, int]
    unlisted: int
    size: tuple[int, int]
    goal: Goal | None


CASES = (
    Case("ignitia_phase2", ignitia_phase2, "ignitia10", IGNITIA, 0, (266, 476), Goal(10, at_least=True)),
    Case("ignitia_phase3", ignitia_phase3, "ignitia10", IGNITIA, 0, (364, 644), Goal(7, at_least=True)),
    Case("codecrunch_moderate", codecrunch_phase5, "falcon7", CODECRUNCH, IGNORE, (512, 896), None),
)


@dataclass(frozen=True)
class Effort:
    """Frames of an epoch, and pairs of epochs."""

    frames: int
    pairs: int


FULL, QUICK = Effort(frames=32, pairs=12), Effort(frames=4, pairs=2)


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """One row for each case."""
    one_opencv_thread()
    effort = QUICK if quick else FULL
    root = desert_frames(place, effort.frames, 2)
    for case in CASES:
        yield input_row(root, case, effort)


def input_row(root: Path, case: Case, effort: Effort) -> Row:
    """Time whole epochs of both loaders, batches of 2; ours also pays for the normalisation on the device."""
    result = compare(our_epochs(root, case), their_epochs(root, case), effort.pairs)
    mine, peer = result.ours.median / effort.frames, result.theirs.median / effort.frames
    return Row(
        what=f"input per sample, {case.policy} at {case.size[1]}x{case.size[0]}",
        ours=milliseconds(mine, "a sample"),
        theirs=milliseconds(peer, "a sample"),
        value=result.speedup,
        unit="x",
        pairs=effort.pairs,
        goal=case.goal,
        note=f"540x960 PNG frames, one thread; ours includes normalising on the device (here the processor), "
        f"{milliseconds(normalising(case), 'a sample')}; decoding into the cache, once for all trials: "
        f"{_build(result.ours.first - result.ours.median, effort)}",
        why="what the policy itself costs (shadow, CLAHE, affine) is in both sides; only decoding is saved",
    )


def our_epochs(root: Path, case: Case) -> Callable[[], None]:
    """An epoch of our loader, every call the next one; the first call also decodes the frames into the cache."""
    taxonomy, augmentation = build_taxonomy(NamedTaxonomy(name=case.taxonomy)), NamedPolicy(policy=case.policy)
    numbers = iter(range(1, 1_000_000))

    def run() -> None:
        batches = train_batches(
            open_frames(root, "train", _opened(augmentation, case.size)),
            taxonomy,
            augmentation,
            case.size,
            batch_size=_BATCH,
            drop_last=False,
            workers=0,
            seed=0,
            epoch=next(numbers),
        )
        for images, _ in batches:
            normalise(images, "imagenet")

    return run


def normalising(case: Case) -> float:
    """Seconds of a sample that our side spends on normalising."""
    images = torch.zeros(_BATCH, *case.size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    return median_interval([seconds_of(lambda: normalise(images, "imagenet")) for _ in range(9)]).point / _BATCH


def their_epochs(root: Path, case: Case) -> Callable[[], None]:
    """An epoch of the teams' loader."""
    frames = TeamFrames(root, "train", case.transform(*case.size), case.ids, case.unlisted)
    loader = team_loader(frames, _BATCH, shuffle=True)

    def run() -> None:
        for _ in loader:
            pass

    return run


def _opened(augmentation: NamedPolicy, size: tuple[int, int]) -> tuple[int, int] | None:
    """The size to open frames at: native where the policy crops."""
    return None if needs_native(policy_steps(augmentation)) else size


def _build(seconds: float, effort: Effort) -> str:
    return milliseconds(max(seconds, 0.0) / effort.frames, "a frame")
