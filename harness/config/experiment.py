"""The Experiment: a complete description of one training; with a seed, a Trial."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import Field, model_validator

from harness.config.augmentation import AugmentationConfig, CutMix, NamedPolicy
from harness.config.base import Section
from harness.config.data import DataConfig, NamedTaxonomy, TaxonomyConfig
from harness.config.loss import LossConfig
from harness.config.model import BackboneModel, ConvStackHead, ModelConfig, has_frozen_part
from harness.config.policies import policy_steps
from harness.config.training import (
    AdamW,
    Cosine,
    EvaluationConfig,
    OptimiserConfig,
    ProtocolConfig,
    ScheduleConfig,
    TrainingConfig,
)


class Experiment(Section):
    """Everything that decides a training but its seed."""

    data: DataConfig = Field(DataConfig(), description="frames and input size")
    taxonomy: TaxonomyConfig = Field(NamedTaxonomy(), description="what the mask's raw ids mean")
    augmentation: AugmentationConfig = Field(NamedPolicy(), description="random changes of training frames")
    model: ModelConfig = Field(
        BackboneModel(
            backbone="mobilenetv3_small_050",
            weights="none",
            trainable_blocks="all",
            stride=8,
            head=ConvStackHead(channels=64),
        ),
        description="the network; this default trains on a CPU in seconds",
    )
    loss: LossConfig = Field(LossConfig(), description="what is minimised")
    optimiser: OptimiserConfig = Field(AdamW(), description="how parameters move")
    schedule: ScheduleConfig = Field(Cosine(), description="how the learning rate moves")
    training: TrainingConfig = Field(TrainingConfig(), description="the loop")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="how it is scored")
    protocol: ProtocolConfig = Field(ProtocolConfig(), description="faults of published systems, on purpose")
    start: tuple[str, ...] = Field(
        (),
        description="weights to start from: a checkpoint file, or run:FINGERPRINT for that Experiment's run with the "
        "same seed in the same study; layers of another shape in the head stay random. Several: an ensemble, 0 epochs",
    )

    @model_validator(mode="after")
    def _schedule_fits(self) -> Experiment:
        schedule, epochs = self.schedule, self.training.epochs
        encoder_start = schedule.freeze_encoder_epochs + schedule.encoder_warmup_epochs
        if max(schedule.warmup_epochs, encoder_start) > epochs:
            raise ValueError(
                f"warm-up ({schedule.warmup_epochs}) and freeze + encoder warm-up ({encoder_start}) must fit into "
                f"training.epochs ({epochs}); raise the epochs or lower schedule.warmup_epochs, "
                "schedule.freeze_encoder_epochs or schedule.encoder_warmup_epochs"
            )
        if self.protocol.bilinear_masks and self.evaluation.raster != "input":
            raise ValueError(
                "protocol.bilinear_masks resizes the truth to the input size; set evaluation.raster: input"
            )
        if not self.start and epochs == 0:
            raise ValueError("training.epochs 0 only scores weights; give some in start, or train for an epoch")
        if len(self.start) > 1 and epochs > 0:
            raise ValueError(
                f"start names {len(self.start)} runs, an ensemble, which is only scored; set training.epochs: 0"
            )
        if schedule.encoder_warmup_epochs and not schedule.freeze_encoder_epochs:
            raise ValueError(
                "schedule.encoder_warmup_epochs needs schedule.freeze_encoder_epochs of at least 1; "
                "without a freeze the encoder follows warmup_epochs"
            )
        return self

    @model_validator(mode="after")
    def _views_can_be_cached(self) -> Experiment:
        if not self.training.cached_views:
            return self
        if not has_frozen_part(self.model):
            raise ValueError(
                "training.cached_views stores what a frozen part of the model makes of frames, and all of this model "
                "trains; set it to 0, or freeze the first blocks (model.trainable_blocks) or the encoder"
            )
        if any(isinstance(step, CutMix) for step in policy_steps(self.augmentation)):
            raise ValueError(
                "training.cached_views stores frames one by one, and a cutmix step joins the frames of a batch; "
                "set it to 0, or leave cutmix out"
            )
        return self


def canonical_json(section: Section) -> str:
    """The one spelling of a section: every field, sorted keys, no spaces."""
    return json.dumps(section.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def fingerprint(section: Section) -> str:
    """Twelve hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(section).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Trial:
    """An Experiment and a seed; the id follows from both."""

    experiment: Experiment
    seed: int

    @property
    def id(self) -> str:
        return f"{fingerprint(self.experiment)}-s{self.seed}"
