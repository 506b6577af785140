"""How it is trained and scored: optimiser, schedule, training, evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0; set momentum, e.g. 0.9")
        return self


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

    epochs: int = Field(
        9, ge=0, le=10_000, description="planned epochs; the schedule's horizon. 0: only score what `start` gives"
    )
    batch_size: int = Field(4, ge=1, le=1024, description="images per forward pass")
    accumulation: int = Field(1, ge=1, le=1024, description="forward passes per optimiser step")
    drop_last: bool = Field(False, description="leave out an incomplete last batch")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="autocast type; fp16 scales the loss")
    compile: Literal["off", "default", "reduce-overhead"] = Field(
        "off",
        description="torch.compile's mode for all that trains, its warm-up in the first epoch's seconds; "
        "reduce-overhead uses CUDA graphs. Seldom pays on a CPU",
    )
    batchnorm: Literal["train", "frozen"] = Field(
        "train", description="frozen: BatchNorm statistics stand still; scale and shift still train"
    )
    patience: int | None = Field(None, ge=1, description="epochs without a better score before stopping; none: never")
    workers: int = Field(0, ge=0, le=64, description="loader processes; 0: in the training process")
    deterministic: bool = Field(
        False, description="only deterministic kernels, an error where a GPU has none; a CPU repeats itself anyway"
    )
    cached_views: int = Field(
        0,
        ge=0,
        le=1000,
        description="of a frozen backbone's augmented frames, the draws of the first so many epochs are stored as "
        "features; later epochs choose among them. 0: every epoch draws anew. As many as epochs changes no result",
    )
    score_training_set: bool = Field(False, description="also score the training frames, without augmentation")


class TestTimeAugmentation(Section):
    """Views whose logits are averaged at `evaluate` and `predict`; validation during training has one view."""

    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,), min_length=1, description="factors of the input size, rounded to a size the model takes"
    )
    flip: bool = Field(False, description="each scale also mirrored left to right")
    rounding: Literal["nearest", "floor"] = Field(
        "nearest", description="how a scaled side becomes one the model takes"
    )


class EvaluationConfig(Section):
    """How a model is scored."""

    raster: Literal["native", "input"] = Field(
        "native", description="native: logits resized to the frame; input: truth resized (nearest) to the input"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="images per forward pass; no score depends on it")
    tta: TestTimeAugmentation = Field(
        TestTimeAugmentation(), description="views averaged at evaluate, predict and in a trial of 0 epochs"
    )
    suppress: tuple[str, ...] = Field((), description="classes never predicted: logits at -inf after the last resize")
    batchnorm: Literal["stored", "batch"] = Field(
        "stored", description="batch: BatchNorm with the statistics of the batch at hand (test-time adaptation)"
    )
    score_test: bool = Field(False, description="also score the test frames once, with the best weights, at the end")


class ProtocolConfig(Section):
    """Faults of published systems, each off by default, so that the effect of each can be measured."""

    bilinear_masks: bool = Field(
        False, description="masks resized bilinearly: class borders become other classes (Ignitia T3)"
    )
    border_class: bool = Field(False, description="uncovered mask is class 0 instead of ignored (Ignitia T2)")
    augmented_class_counts: bool = Field(
        False, description="class weights from augmented frames (Ignitia T4, DesertMind D-T5)"
    )
    reset_best: bool = Field(False, description="epoch 1 replaces better starting weights as the best (Ignitia T11)")
    select_on_test: bool = Field(
        False, description="the score that chooses and stops is the test set's (CodeCrunch C-T2)"
    )
    score: Literal["miou", "batch2_union", "per_image_union", "union_present"] = Field(
        "miou",
        description="the rule of the score; other than miou: a team's (Ignitia T5, DesertMind D-T2, CodeCrunch C-T1)",
    )
