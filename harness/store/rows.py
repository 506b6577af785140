"""The records in the journals."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from harness.config import Section

#: whose fault an end is: `memory`, too little of it for the trial's values; `disk`, full or broken, which no trial can
#: help
Cause = Literal["error", "memory", "disk"]


#: how a trial ended
Outcome = Literal["complete", "stopped", "failed", "infeasible"]


class Failure(str):
    """One line about what ended a trial, and its cause."""

    cause: Cause

    def __new__(cls, message: str, cause: Cause = "error") -> Failure:
        failure = super().__new__(cls, message)
        failure.cause = cause
        return failure


class EpochRow(Section):
    """One epoch of one trial."""

    trial: str = Field(description="trial id")
    epoch: int = Field(ge=0, description="from 1; 0: the weights that the training started from")
    score: float = Field(
        description="validation mIoU over the classes in the truth, 0-1, or what protocol.score asks for"
    )
    train_loss: float | None = Field(description="mean over the epoch's images; none: epoch 0")
    val_loss: float = Field(description="mean over the validation images, at the raster of the score")
    terms: dict[str, float] = Field(description="unweighted training loss of each active term")
    iou: dict[str, float | None] = Field(description="validation IoU per class; none: not in the truth")
    train_score: float | None = Field(description="training mIoU without augmentation; none: not asked for")
    lr: dict[str, float] = Field(description="learning rate in effect, per parameter group")
    setup_seconds: float = Field(0.0, description="making, or waiting for, what is stored of the frames, seconds")
    train_seconds: float = Field(description="training, seconds")
    val_seconds: float = Field(description="validation, seconds")
    images: int = Field(description="training images seen in the epoch")
    parameters: int = Field(0, description="of the whole model, trained or not")
    peak_memory_mb: float | None = Field(description="peak allocated GPU memory, MB; none: no GPU")
    micro_batch: int | None = Field(
        None, ge=1, description="most images in a forward pass, where memory forced fewer than training.batch_size"
    )
    done: bool = Field(description="no epoch follows: all run, or the trial's own patience is over")

    @property
    def seconds(self) -> float:
        """Training and validation: what another epoch would take."""
        return self.train_seconds + self.val_seconds

    @property
    def all_seconds(self) -> float:
        """All seconds that the epoch took its machine."""
        return self.setup_seconds + self.seconds


class TrialRow(Section):
    """The end of one trial."""

    trial: str = Field(description="trial id")
    number: int = Field(ge=0, description="position in the study, from 0; equals Optuna's trial number")
    outcome: Outcome = Field(description="stopped: early, at a rung; infeasible: it broke a constraint of the search")
    seed: int = Field(description="seed of the training")
    picked: dict[str, Any] = Field(description="parameter name to value or label")
    score: float | None = Field(description="best epoch's score; none: no epoch finished")
    best_epoch: int | None = Field(description="epoch of the best score")
    epochs: int = Field(description="epochs finished")
    seconds: float = Field(description="training and validation, and what was stored for them, seconds")
    error: str | None = Field(description="what went wrong, if it failed, or which constraint it broke")
    out_of_memory: bool = Field(False, description="it failed because its values need more memory than there is")
