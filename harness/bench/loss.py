"""Loss: forward and backward of focal + Dice at full resolution, against the per-class loop over one-hot truth."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.bench import teams
from harness.bench.phase3_loss import both_losses
from harness.bench.rows import Goal, Row, milliseconds
from harness.bench.scores import Effort, batch_of
from harness.bench.timing import compare
from harness.bench.workplace import Workplace

TITLE = "Loss: forward and backward from the head's logits, against the teams' loop"
FULL, QUICK = Effort((26, 46), 8, 12), Effort((6, 8), 2, 2)


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """Upsampling, loss and gradient of a batch, in both layouts (see `harness.bench.scores`)."""
    effort = QUICK if quick else FULL
    contiguous, truth = batch_of(effort)
    channels_last = contiguous.contiguous(memory_format=torch.channels_last)
    for layout, logits in (("NCHW", contiguous), ("channels last", channels_last)):
        yield loss_row(layout, logits.requires_grad_(), truth, effort)


def loss_row(layout: str, logits: Tensor, truth: Tensor, effort: Effort) -> Row:
    """Time both losses on the same logits (N C h w)."""
    ours, theirs = both_losses(truth)
    result = compare(lambda: our_step(ours, logits, truth), lambda: their_step(theirs, logits, truth), effort.pairs)
    height, width = effort.size
    return Row(
        what=f"loss forward and backward, focal + Dice, {layout}, batch of {effort.batch} at {width}x{height}",
        ours=milliseconds(result.ours.median / effort.batch, "an image"),
        theirs=milliseconds(result.theirs.median / effort.batch, "an image"),
        value=result.speedup,
        unit="x",
        pairs=effort.pairs,
        goal=Goal(5, at_least=True),
        note=f"one thread, fp32; from logits {layout} at stride 14, upsampling included on both sides; both give "
        "the same numbers",
    )


def our_step(loss: nn.Module, logits: Tensor, truth: Tensor) -> Tensor:
    """The total from logits (N C h w); their gradient is filled."""
    logits.grad = None
    total, _ = loss(logits, truth)
    total.backward()
    return total.detach()


def their_step(loss: teams.LossFunction, logits: Tensor, truth: Tensor) -> Tensor:
    """The same of the teams' loss."""
    logits.grad = None
    total = loss(teams.upsample(logits, truth.shape[-2:]), truth)
    total.backward()
    return total.detach()
