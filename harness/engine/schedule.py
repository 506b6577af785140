"""Learning rates as a pure function of the epoch and of the scores so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.config import Experiment
from harness.config.training import Cosine, OptimiserConfig, Plateau, ScheduleConfig

#: the smallest relative rise that counts, as in torch's ReduceLROnPlateau
PLATEAU_THRESHOLD = 1e-4


def learning_rates(experiment: Experiment, epoch: int, scores: Sequence[float]) -> dict[str, float]:
    """The learning rate of each parameter group during an epoch.

    Args:
        epoch: from 1, as in the rows.
        scores: validation scores of the epochs before this one (only a plateau looks at them).
    """
    return {
        group: peak_rate(experiment.optimiser, group)
        * _factor(experiment.schedule, experiment.training.epochs, epoch - 1, group, scores)
        for group in ("encoder", "decoder", "head")
    }


def peak_rate(optimiser: OptimiserConfig, group: str) -> float:
    """The peak learning rate of a parameter group."""
    own = {"encoder": optimiser.encoder_lr, "decoder": optimiser.decoder_lr}.get(group)
    return optimiser.lr if own is None else own


def encoder_is_frozen(schedule: ScheduleConfig, epoch: int) -> bool:
    """Whether the encoder does not train yet in an epoch (from 1)."""
    return epoch <= schedule.freeze_encoder_epochs


def _factor(schedule: ScheduleConfig, epochs: int, index: int, group: str, scores: Sequence[float]) -> float:
    """Share of the peak at an epoch's index (from 0)."""
    start, warmup = 0, schedule.warmup_epochs
    if group == "encoder" and schedule.freeze_encoder_epochs:
        start, warmup = schedule.freeze_encoder_epochs, schedule.encoder_warmup_epochs
    if index < start:
        return 0.0
    if index < start + warmup:
        return (index - start + 1) / warmup
    if isinstance(schedule, Cosine):
        return _cosine(schedule.floor, index - start - warmup, epochs - start - warmup)
    if isinstance(schedule, Plateau):
        return _plateau(schedule, scores)
    return 1.0


def _cosine(floor: float, index: int, length: int) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * index / length)) / 2


def _plateau(schedule: Plateau, scores: Sequence[float]) -> float:
    factor, best, stale = 1.0, -math.inf, 0
    for score in scores:
        if score > best * (1 + PLATEAU_THRESHOLD):
            best, stale = score, 0
        else:
            stale += 1
        if stale > schedule.patience:
            factor, stale = factor * schedule.factor, 0
    return factor
