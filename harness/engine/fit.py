"""The training loop: a generator that yields one row per epoch.

Read from `fit` down. A checkpoint is written before its row is yielded, and a resumed run first yields the
row of the checkpoint that it resumes from: whoever keeps the rows can lose none and, by epoch, doubles none.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harness.config import Experiment, Trial, canonical_json
from harness.data import FrameArrays, Taxonomy, build_taxonomy, class_counts, train_batches
from harness.engine.checkpoint import load_header, load_state, save_state, save_weights
from harness.engine.evaluate import EvalFrames, Evaluation, evaluate, open_eval_frames, open_train_frames
from harness.engine.inference import autocast, normalise, resize_logits
from harness.engine.optimiser import build_optimiser, clip_gradients, set_learning_rates
from harness.engine.schedule import encoder_is_frozen, learning_rates
from harness.engine.seeds import EPOCH, INITIALISATION, seed_torch, set_determinism
from harness.errors import DataError, NonFiniteLoss, StudyError
from harness.losses import build_loss
from harness.metrics import dataset_counts, iou, miou
from harness.models import build_model, check_input_size, set_encoder_trainable
from harness.store import EpochRow, RunFolder, write_bytes


@dataclass
class Session:
    """Everything that a training holds in memory."""

    trial: Trial
    device: torch.device
    taxonomy: Taxonomy
    train_frames: FrameArrays
    val_frames: EvalFrames
    model: nn.Module
    loss: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    @property
    def experiment(self) -> Experiment:
        return self.trial.experiment


def fit(trial: Trial, run: RunFolder, device: torch.device) -> Iterator[EpochRow]:
    """Train, or go on training, one trial.

    Yields:
        One row per epoch, the last with `done`; a resumed run starts with the last epoch that was saved.

    Raises:
        HarnessError: data, model or size that cannot be used.
        NonFiniteLoss: the loss became inf or nan.
    """
    session = open_session(trial, device)
    run.create(trial)
    rows = resume(session, run)
    yield from rows[-1:]
    while not (rows and rows[-1].done):
        row, evaluation = train_epoch(session, rows)
        rows.append(row)
        save(session, run, rows, evaluation)
        yield row


def open_session(trial: Trial, device: torch.device) -> Session:
    """Build data, model, loss and optimiser of a trial."""
    experiment = trial.experiment
    set_determinism(experiment.training.deterministic)
    check_input_size(experiment.model, experiment.data.input_size)
    taxonomy = build_taxonomy(experiment.taxonomy)
    train_frames = open_train_frames(experiment)
    seed_torch(trial.seed, INITIALISATION)
    model = build_model(experiment.model, len(taxonomy.names)).to(device)
    return Session(
        trial=trial,
        device=device,
        taxonomy=taxonomy,
        train_frames=train_frames,
        val_frames=open_eval_frames(experiment, "val"),
        model=model,
        loss=build_loss(experiment.loss, class_counts(train_frames, taxonomy), taxonomy.names).to(device),
        optimiser=build_optimiser(experiment.optimiser, model),
        scaler=torch.amp.GradScaler(device.type, enabled=experiment.training.precision == "fp16"),
    )


def resume(session: Session, run: RunFolder) -> list[EpochRow]:
    """Put the last checkpoint's state back; returns its rows, none where there is no checkpoint.

    Raises:
        StudyError: the checkpoint is damaged, or of another trial.
    """
    if not run.last.exists():
        return []
    header = load_header(run.last)
    rows = [EpochRow.model_validate(row) for row in header["rows"]]
    if rows[-1].trial != session.trial.id:
        raise StudyError(
            f"{run.path}: holds trial {rows[-1].trial}, not {session.trial.id}; give each trial a folder of its own"
        )
    load_state(run.last, session.model, session.optimiser)
    session.scaler.load_state_dict(header["scaler"])
    return rows


def train_epoch(session: Session, rows: list[EpochRow]) -> tuple[EpochRow, Evaluation]:
    """Train and validate the epoch after `rows`."""
    experiment, epoch = session.experiment, len(rows) + 1
    seed_torch(session.trial.seed, EPOCH, epoch)
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)
    rates = learning_rates(experiment, epoch, [row.score for row in rows])
    rates = set_learning_rates(session.optimiser, rates)
    set_encoder_trainable(session.model, not encoder_is_frozen(experiment.schedule, epoch))

    started = time.perf_counter()
    total, terms, images = train_steps(session, epoch)
    trained = time.perf_counter()
    evaluation = _evaluate(session, session.val_frames, session.loss)
    train_score = _training_score(session) if experiment.training.score_training_set else None
    finished = time.perf_counter()
    if not math.isfinite(evaluation.loss):
        raise _not_finite(session, f"epoch {epoch}, validation: total {evaluation.loss}")

    scores = [row.score for row in rows] + [_score(evaluation)]
    row = EpochRow(
        trial=session.trial.id,
        epoch=epoch,
        score=scores[-1],
        train_loss=total,
        val_loss=evaluation.loss,
        terms=terms,
        iou=_iou_by_name(evaluation, session.taxonomy),
        train_score=train_score,
        lr=rates,
        train_seconds=trained - started,
        val_seconds=finished - trained,
        images=images,
        peak_memory_mb=_peak_memory_mb(session.device),
        done=epoch == experiment.training.epochs or _out_of_patience(scores, experiment.training.patience),
    )
    return row, evaluation


def train_steps(session: Session, epoch: int) -> tuple[float, dict[str, float], int]:
    """All optimiser steps of an epoch: mean loss over images, mean of each term, images seen."""
    config = session.experiment.training
    session.model.train()
    batches = train_batches(
        session.train_frames,
        session.taxonomy,
        session.experiment.augmentation,
        session.experiment.data.input_size,
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        workers=config.workers,
        seed=session.trial.seed,
        epoch=epoch,
    )
    sizes, values, names = [], [], []
    for group in _groups(batches, config.accumulation):
        in_group = sum(len(images) for images, _ in group)
        for images, truth in group:
            loss, terms = _forward(session, images, truth)
            # each image of the group weighs the same, in a short last group too
            session.scaler.scale(loss * (len(images) / in_group)).backward()
            sizes.append(len(images))
            names = list(terms)
            values.append(torch.stack([loss.detach(), *terms.values()]))
        _step(session)
    return _summary(session, torch.stack(values).double().cpu(), torch.tensor(sizes), names, epoch)


def _groups(batches, size: int):  # noqa: ANN001, ANN202
    """Lists of `size` batches; the last may be shorter."""
    group = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _forward(session: Session, images: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    images = images.to(session.device, non_blocking=True)
    truth = truth.to(session.device, non_blocking=True)
    with autocast(session.experiment.training.precision, session.device):
        logits = session.model(normalise(images, session.experiment.data.normalise))
    return session.loss(resize_logits(logits, truth.shape[-2:]), truth)


def _step(session: Session) -> None:
    session.scaler.unscale_(session.optimiser)
    clip_gradients(session.experiment, session.optimiser)
    session.scaler.step(session.optimiser)
    session.scaler.update()
    session.optimiser.zero_grad(set_to_none=True)


def _summary(
    session: Session, values: Tensor, sizes: Tensor, names: list[str], epoch: int
) -> tuple[float, dict[str, float], int]:
    """Means over images of (steps, 1 + terms) values; the one place where the device is waited for."""
    bad = (~values.isfinite()).any(1).nonzero()
    if len(bad):
        step = int(bad[0])
        shown = ", ".join(f"{n} {v:.4g}" for n, v in zip(["total", *names], values[step].tolist(), strict=True))
        raise _not_finite(session, f"epoch {epoch}, batch {step + 1}: {shown}")
    means = (values * sizes[:, None]).sum(0) / sizes.sum()
    return means[0].item(), dict(zip(names, means[1:].tolist(), strict=True)), int(sizes.sum())


def _not_finite(session: Session, where: str) -> NonFiniteLoss:
    rates = {group["name"]: group["lr"] for group in session.optimiser.param_groups}
    return NonFiniteLoss(
        f"trial {session.trial.id}: the loss is not finite at {where}; learning rates {rates}: lower them, clip the "
        "gradient (optimiser.clip_norm) or use bf16 instead of fp16"
    )


def save(session: Session, run: RunFolder, rows: list[EpochRow], evaluation: Evaluation) -> None:
    """Best weights and their matrices first, then the state to resume from.

    A kill in between repeats the epoch, which writes the same best again.
    """
    row = rows[-1]
    if row.score > max((r.score for r in rows[:-1]), default=-1.0):
        about = {"trial": row.trial, "epoch": row.epoch, "score": row.score}
        save_weights(run.best, session.model, about | {"experiment": canonical_json(session.experiment)})
        write_bytes(run.confusion, _npz(names=np.array(evaluation.names), matrices=evaluation.matrices))
    header = {"rows": [r.model_dump() for r in rows], "scaler": session.scaler.state_dict()}
    save_state(run.last, session.model, session.optimiser, header)


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _evaluate(session: Session, frames: EvalFrames, loss: nn.Module | None = None) -> Evaluation:
    return evaluate(session.model, frames, session.experiment, session.taxonomy, session.device, loss=loss)


def _training_score(session: Session) -> float:
    return _score(_evaluate(session, open_eval_frames(session.experiment, "train")))


def _score(evaluation: Evaluation) -> float:
    counts = dataset_counts(evaluation.matrices)
    if not counts.truth.any():
        raise DataError(
            f"the masks of the {len(evaluation.names)} frames from {evaluation.names[0]} hold no pixel of a class, so "
            "there is nothing to score; ignore fewer classes or give other frames"
        )
    return float(miou(counts))


def _iou_by_name(evaluation: Evaluation, taxonomy: Taxonomy) -> dict[str, float | None]:
    """IoU of the classes that the truth holds; None for the others."""
    counts = dataset_counts(evaluation.matrices)
    return {
        name: float(value) if pixels else None
        for name, value, pixels in zip(taxonomy.names, iou(counts), counts.truth, strict=True)
    }


def _out_of_patience(scores: list[float], patience: int | None) -> bool:
    return patience is not None and len(scores) - 1 - scores.index(max(scores)) >= patience


def _peak_memory_mb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
