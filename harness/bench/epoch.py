"""Epochs of a trial with a frozen backbone: stored features, or fresh augmentation, against the teams' loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import albumentations as A
import numpy as np
import torch
from torch import nn

from harness.bench import teams
from harness.bench.frames import desert_frames, one_opencv_thread
from harness.bench.phase3_loss import PHASE3, both_losses
from harness.bench.rows import Goal, Row, milliseconds
from harness.bench.team_models import team_model
from harness.bench.teams_input import IGNITIA, TeamFrames, ignitia_phase2, plain, team_loader
from harness.bench.timing import Comparison, Side, compare
from harness.bench.workplace import Workplace
from harness.config import Experiment, Trial, apply_overrides
from harness.config.loss import LossConfig
from harness.config.model import ConvNeXtStyleHead, Head, UPerNetStyleHead
from harness.engine import fit
from harness.store import EpochRow, RunFolder

TITLE = "Epochs with a frozen backbone, against the teams' loop"
_BATCH = 2
#: training and validation frames of the Falcon set
_WHOLE = 2857 + 317


class Case(NamedTuple):
    """A phase of Ignitia: its model, loss and input on both sides."""

    name: str
    backbone: str
    head: Head
    size: tuple[int, int]
    accumulation: int
    focal_and_dice: bool
    policy: str
    transform: Callable[[int, int], A.Compose]
    goal: Goal | None
    peer_precision: str
    note: str


_EXACT = "no augmentation, so that stored features are exact"
_SMALL = Case(
    name="ViT-S/14, phase 1, features stored",
    backbone="vit_small_patch14_dinov2",
    head=ConvNeXtStyleHead(),
    size=(266, 476),
    accumulation=1,
    focal_and_dice=False,
    policy="none",
    transform=plain,
    goal=Goal(25, at_least=True),
    peer_precision="fp32",
    note=_EXACT,
)
_BASE = Case(
    name="ViT-B/14-reg, phase 3 without its augmentation, features stored",
    backbone="vit_base_patch14_reg4_dinov2",
    head=UPerNetStyleHead(),
    size=(364, 644),
    accumulation=2,
    focal_and_dice=True,
    policy="none",
    transform=plain,
    goal=Goal(50, at_least=True),
    peer_precision="fp32",
    note=_EXACT,
)
_FRESH = _SMALL._replace(
    name="ViT-S/14, phase 2, fresh augmentation, nothing stored but frames",
    policy="ignitia_phase2",
    transform=ignitia_phase2,
    goal=Goal(4, at_least=True),
    note="every epoch draws anew",
)
_SAME_PRECISION = _FRESH._replace(
    name=f"{_FRESH.name}; the teams' loop in bf16 too",
    goal=None,
    peer_precision="bf16",
    note="how much bf16 alone gives",
)
CASES = (_SMALL, _BASE, _FRESH, _SAME_PRECISION)


@dataclass(frozen=True)
class Effort:
    """Frames of an epoch, and pairs of epochs; every epoch of the sides together costs their sum."""

    train: int
    val: int
    pairs: int


FULL, QUICK = Effort(18, 2, 6), Effort(4, 2, 1)


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """One row for each case."""
    one_opencv_thread()
    effort = QUICK if quick else FULL
    root = desert_frames(place, effort.train, effort.val)
    for number, case in enumerate(CASES):
        place.console.print(f"epoch: {case.name}, {1 + effort.pairs} epochs on both sides", highlight=False)
        run = RunFolder(place.folder / f"epoch-{number}")
        yield epoch_row(case, effort, root, run)


def epoch_row(case: Case, effort: Effort, root: Path, run: RunFolder) -> Row:
    """Time epochs by turns; what is judged is training and validation, our checkpoint is stated beside it."""
    done: list[EpochRow] = []
    ours = our_epochs(experiment_of(case, root, epochs=1 + effort.pairs), run, done)
    result = compare(ours, their_epochs(case, root), effort.pairs)
    worked = replace_ours(result, [row.train_seconds + row.val_seconds for row in done])
    images = effort.train + effort.val
    return Row(
        what=f"epoch, {case.name}",
        ours=milliseconds(worked.ours.median / images, "an image"),
        theirs=milliseconds(worked.theirs.median / images, "an image"),
        value=worked.speedup,
        unit="x",
        pairs=effort.pairs,
        goal=case.goal,
        why="the head, the loss and the scores are left, which nothing stored can save",
        note=f"{effort.train} training and {effort.val} validation frames, one thread; ours in bf16, the teams' loop "
        f"in {case.peer_precision}; {case.note}; {_extra(result, worked, images)}",
    )


def replace_ours(result: Comparison, seconds: list[float]) -> Comparison:
    """The comparison with other seconds on our side: the first, and one for each pair."""
    return result._replace(ours=Side(seconds[0], tuple(seconds[1:])))


def _extra(result: Comparison, worked: Comparison, images: int) -> str:
    """What an epoch costs beside its images, and what the whole set's epoch comes to with that."""
    beside = result.ours.median - worked.ours.median
    whole = _WHOLE / images
    ratio = whole * worked.theirs.median / (whole * worked.ours.median + beside)
    return (
        f"checkpoint and the like {milliseconds(beside, 'an epoch')} on ours, not counted; with them an epoch of "
        f"{_WHOLE} frames comes to {ratio:.3g} times; our first epoch, start and whatever is stored included, "
        f"{milliseconds(result.ours.first / images, 'an image')}"
    )


def experiment_of(case: Case, root: Path, epochs: int) -> Experiment:
    """The case as an Experiment of the harness, scored on the same raster as the team's."""
    loss = PHASE3 if case.focal_and_dice else LossConfig()
    return apply_overrides(
        Experiment(),
        {
            "data": {"root": str(root), "input_size": case.size},
            "taxonomy": {"kind": "named", "name": "ignitia10"},
            "augmentation": {"kind": "named", "policy": case.policy},
            "model": {"kind": "backbone", "backbone": case.backbone, "weights": "none"},
            "model.head": case.head.model_dump(),
            "loss": loss.model_dump(),
            "training": {
                "epochs": epochs,
                "batch_size": _BATCH,
                "accumulation": case.accumulation,
                "precision": "bf16",
            },
            "evaluation": {"raster": "input"},
        },
    )


def our_epochs(experiment: Experiment, run: RunFolder, done: list[EpochRow]) -> Callable[[], None]:
    """An epoch of the harness, every call the next one; the first call also opens the trial."""
    epochs = fit(Trial(experiment, 0), run, torch.device("cpu"))
    return lambda: done.append(next(epochs))


def their_epochs(case: Case, root: Path) -> Callable[[], teams.TeamEpoch]:
    """An epoch of the team, every call the next one."""
    train = team_loader(TeamFrames(root, "train", case.transform(*case.size), IGNITIA), _BATCH, shuffle=True)
    val = team_loader(TeamFrames(root, "val", plain(*case.size), IGNITIA), _BATCH, shuffle=False)
    model = team_model(case.backbone, case.head)
    optimiser = torch.optim.AdamW(model.head.parameters(), lr=3e-4, weight_decay=1e-4)
    loss = _team_loss(case)

    def run() -> teams.TeamEpoch:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.peer_precision == "bf16"):
            return teams.epoch(model, train, val, loss, optimiser, case.accumulation)

    return run


def _team_loss(case: Case) -> teams.LossFunction:
    if not case.focal_and_dice:
        return nn.functional.cross_entropy
    truth = torch.from_numpy(np.arange(teams.CLASSES)).view(1, 1, -1)
    return both_losses(truth)[1]
