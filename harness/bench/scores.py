"""Scores: one confusion matrix per image against three argmaxes and loops over classes.

How the logits lie in memory decides what an argmax costs: over NCHW about five times what it costs over channels
last. Networks on a ViT's patch tokens hand on channels last, the teams' too, so both layouts are measured, and each
side gets the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.bench import teams
from harness.bench.rows import Goal, Row, milliseconds
from harness.bench.timing import Comparison, compare
from harness.bench.workplace import Workplace
from harness.config import Experiment
from harness.config.data import NamedTaxonomy
from harness.data import build_taxonomy
from harness.engine.inference import predicted_classes, resize_logits
from harness.metrics.confusion_torch import confusion_matrices

TITLE = "Scores: the counts of a batch, against the teams' loop"
_EXPERIMENT = Experiment(taxonomy=NamedTaxonomy(name="ignitia10"))
_TAXONOMY = build_taxonomy(_EXPERIMENT.taxonomy)


@dataclass(frozen=True)
class Effort:
    """Height and width of the frames in patches of 14, images of a batch, and pairs of updates."""

    patches: tuple[int, int]
    batch: int
    pairs: int

    @property
    def size(self) -> tuple[int, int]:
        return self.patches[0] * 14, self.patches[1] * 14


FULL, QUICK = Effort((26, 46), 2, 30), Effort((6, 8), 2, 3)


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """The update with logits at hand, and from the head's logits, upsampling included; in both layouts."""
    effort = QUICK if quick else FULL
    contiguous, truth = batch_of(effort)
    channels_last = contiguous.contiguous(memory_format=torch.channels_last)
    for layout, logits in (("NCHW", contiguous), ("channels last", channels_last)):
        note = f"logits {layout} on both sides"
        yield _row(f"confusion update, {layout}", update(logits, truth, effort), effort, f"{note}, given at full size")
        what = f"upsampling and confusion update, {layout}"
        yield _row(what, whole(logits, truth, effort), effort, f"{note}, given at stride 14")


def batch_of(effort: Effort) -> tuple[Tensor, Tensor]:
    """Random logits (N 10 h w) at the head's raster and random truth (N H W) at the frame's."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(effort.batch, teams.CLASSES, *effort.patches, generator=generator)
    return logits, torch.randint(0, teams.CLASSES, (effort.batch, *effort.size), generator=generator)


def update(logits: Tensor, truth: Tensor, effort: Effort) -> Comparison:
    """From logits (N C H W) as each side upsamples them to counts or scores."""
    mine, peer = resize_logits(logits, effort.size), teams.upsample(logits, effort.size)
    return compare(lambda: our_counts(mine, truth), lambda: teams.scores(peer, truth), effort.pairs)


def whole(logits: Tensor, truth: Tensor, effort: Effort) -> Comparison:
    """From logits (N C h w) to counts or scores."""
    return compare(
        lambda: our_counts(resize_logits(logits, effort.size), truth),
        lambda: teams.scores(teams.upsample(logits, effort.size), truth),
        effort.pairs,
    )


def our_counts(logits: Tensor, truth: Tensor) -> Tensor:
    """The matrices (N C C+1) that an evaluation keeps; every score of an epoch is computed from them at its end."""
    return confusion_matrices(truth, predicted_classes(logits, _EXPERIMENT, _TAXONOMY), teams.CLASSES)


def _row(what: str, result: Comparison, effort: Effort, note: str) -> Row:
    height, width = effort.size
    return Row(
        what=f"{what}, batch of {effort.batch} at {width}x{height}",
        ours=milliseconds(result.ours.median, "a batch"),
        theirs=milliseconds(result.theirs.median, "a batch"),
        value=result.speedup,
        unit="x",
        pairs=effort.pairs,
        goal=Goal(10, at_least=True),
        note=f"one thread; {note}; theirs: three argmaxes, ten-class loops",
        why="over channels last the published loop's argmax is quick as well",
    )
