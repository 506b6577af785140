"""How it is trained and scored: optimiser, schedule, training, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.config.base import Section

LearningRate = Annotated[float, Field(gt=0, le=10)]


class _Rates(Section):
    """Learning rates per parameter group and gradient clipping; the groups are encoder, decoder, head."""

    lr: LearningRate = Field(1e-3, description="peak learning rate of the head and of groups without their own")
    encoder_lr: LearningRate | None = Field(None, description="peak learning rate of the encoder; none: lr")
    decoder_lr: LearningRate | None = Field(None, description="peak learning rate of the decoder; none: lr")
    weight_decay: float = Field(0.01, ge=0, le=1, description="on every parameter")
    clip_norm: float | None = Field(None, gt=0, description="largest L2 norm of the gradient; none: no clipping")
    encoder_clip_norm: float | None = Field(
        None, gt=0, description="the encoder's own limit; clip_norm then holds for the rest; none: one norm for all"
    )


class AdamW(_Rates):
    """AdamW (arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the mean of squared gradients")


class Sgd(_Rates):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(False, description="Nesterov momentum; needs momentum above 0")


OptimiserConfig = Annotated[AdamW | Sgd, Field(discriminator="kind")]


class _Warmup(Section):
    """The start of a schedule; rates are constant within an epoch."""

    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up: epoch e of w runs at e/w")
    freeze_encoder_epochs: int = Field(0, ge=0, description="first epochs in which the encoder does not train")
    encoder_warmup_epochs: int = Field(0, ge=0, description="warm-up of the encoder after its freeze; needs one")


class Constant(_Warmup):
    """The peak rate throughout."""

    kind: Literal["constant"] = "constant"


class Cosine(_Warmup):
    """Half a cosine from the peak to floor x peak over the epochs after the warm-up."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, lt=1, description="last rate, share of the peak")


class Plateau(_Warmup):
    """Multiplied by `factor` when the validation score has not risen for more than `patience` epochs."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(0.5, gt=0, lt=1, description="multiplier")
    patience: int = Field(1, ge=0, description="epochs without a rise that are tolerated")


ScheduleConfig = Annotated[Constant | Cosine | Plateau, Field(discriminator="kind")]


class TrainingConfig(Section):
    """The loop."""

    epochs: int = Field(9, ge=1, le=10_000, description="planned epochs; the schedule's horizon")
    batch_size: int = Field(4, ge=1, le=1024, description="images per forward pass")
    accumulation: int = Field(1, ge=1, le=1024, description="forward passes per optimiser step")
    drop_last: bool = Field(False, description="leave out an incomplete last batch")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="autocast type; fp16 scales the loss")
    patience: int | None = Field(None, ge=1, description="epochs without a better score before stopping; none: never")
    workers: int = Field(0, ge=0, le=64, description="loader processes; 0: in the training process")
    deterministic: bool = Field(
        False, description="only deterministic kernels, an error where a GPU has none; a CPU repeats itself anyway"
    )
    score_training_set: bool = Field(False, description="also score the training frames, without augmentation")


class TestTimeAugmentation(Section):
    """Views whose logits are averaged at `evaluate` and `predict`; validation during training has one view."""

    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,), min_length=1, description="factors of the input size, rounded to a size the model takes"
    )
    flip: bool = Field(False, description="each scale also mirrored left to right")


class EvaluationConfig(Section):
    """How a model is scored."""

    raster: Literal["native", "input"] = Field(
        "native", description="native: logits resized to the frame; input: truth resized (nearest) to the input"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="images per forward pass; no score depends on it")
    tta: TestTimeAugmentation = Field(TestTimeAugmentation(), description="views averaged at evaluate and predict")
