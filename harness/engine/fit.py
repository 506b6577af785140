"""The training loop: a generator that yields one row per epoch.

Read from `fit` down. Checkpoints are written in the background, in order, and all of them before the last row is
yielded or the generator is closed. A resumed run first yields the rows of the checkpoint that it resumes from which
its caller lacks, or the last of them, and repeats an epoch whose checkpoint a kill has cut short, or that is damaged:
whoever keeps the rows can lose none and, by epoch, doubles none.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.config import Experiment, Trial, canonical_json
from harness.data import Taxonomy, build_taxonomy
from harness.data.batches import Batch
from harness.engine.checkpoint import (
    DamagedCheckpoint,
    check_sum,
    load_header,
    load_state,
    pack_state,
    pack_weights,
    save_frozen,
    write_checkpoint,
)
from harness.engine.evaluate import EvalFrames, Evaluation, evaluate, freeze_batchnorm, open_eval_frames
from harness.engine.inference import forward, views
from harness.engine.memory import free_memory, half_batch, in_parts, least_images, scoring_named, too_large
from harness.engine.optimiser import clip_gradients, set_learning_rates
from harness.engine.schedule import encoder_is_frozen, learning_rates
from harness.engine.seeds import EPOCH, INITIALISATION, seed_torch, set_determinism
from harness.engine.session import Session, open_session, selection_split
from harness.engine.start import Ensemble, load_start, start_path
from harness.engine.trained import open_run
from harness.errors import DataError, NonFiniteLoss, OutOfMemory, StudyError
from harness.losses import build_loss
from harness.metrics import CONVENTIONS, dataset_counts, iou
from harness.models import build_model, set_encoder_trainable
from harness.store import BackgroundWriter, EpochRow, RunFolder, write_bytes


def fit(trial: Trial, run: RunFolder, device: torch.device, known: int | None = None) -> Iterator[EpochRow]:
    """Train, or go on training, one trial.

    Args:
        known: the last epoch whose row the caller keeps; a power loss may have cost those after it. None: all that
            were saved.

    Yields:
        One row per epoch, the last with `done`; a resumed run starts with the epochs that were saved after `known`, or
        else with the last that was saved.

    Raises:
        HarnessError: data, model or size that cannot be used.
        NonFiniteLoss: the loss became inf or nan.
        OutOfMemory: on the GPU, and smaller forward passes did not help or cannot be.
        StorageError: the run's files cannot be written; what is there can be resumed.
    """
    run.create(trial)
    if trial.experiment.training.epochs == 0:
        yield score_start(trial, run, device)
        return
    session = open_session(trial, run, device)
    rows = resume(session, run)
    with BackgroundWriter() as writer:
        if not rows and session.whole_start and not trial.experiment.protocol.reset_best:
            # the weights that it starts from are the first to beat
            rows = [save_epoch_zero(session, run, writer)]
        yield from [row for row in rows if known is not None and row.epoch > known] or rows[-1:]
        micro_batch = rows[-1].micro_batch if rows else None
        while not (rows and rows[-1].done):
            trained = _train_if_it_fits(session, rows, micro_batch)
            if trained is None:
                # the steps until then have moved the weights: all is built anew from the last checkpoint
                del session
                writer.wait()
                micro_batch = _note_half(trial, run)
                free_memory(device)
                session = open_session(trial, run, device)
                rows = resume(session, run)
                continue
            row, evaluation = trained
            rows.append(row)
            save(session, run, rows, evaluation, writer)
            yield row


def resume(session: Session, run: RunFolder) -> list[EpochRow]:
    """Put the last checkpoint's state back, or that before it where the last is damaged.

    Returns:
        The checkpoint's rows; none where there is none, or none that can be read: the trial then starts anew.

    Raises:
        StudyError: the checkpoint is of another trial or another frozen encoder.
    """
    for path in (run.last, run.previous):
        if not path.exists():
            continue
        try:
            rows = _resume_from(path, session)
        except DamagedCheckpoint as error:
            path.unlink()
            earlier = run.previous.name if run.previous.exists() else "the beginning"
            run.note(f"{path.name} was damaged ({error.why}) and is removed; training goes on from {earlier}")
            continue
        if path == run.previous:
            path.replace(run.last)
        return rows
    return []


def _resume_from(path: Path, session: Session) -> list[EpochRow]:
    check_sum(path)
    header = load_header(path)
    rows = [EpochRow.model_validate(row) for row in header["rows"]]
    if rows[-1].trial != session.trial.id:
        raise StudyError(
            f"{path.parent}: holds trial {rows[-1].trial}, not {session.trial.id}; give each trial a folder of its own"
        )
    load_state(path, session.model, session.optimiser, session.frozen)
    session.scaler.load_state_dict(header["scaler"])
    return rows


def _train_if_it_fits(
    session: Session, rows: list[EpochRow], micro_batch: int | None
) -> tuple[EpochRow, Evaluation] | None:
    """The next epoch; None where the GPU's memory ran out and half the batch may fit.

    Nothing of the error stays: it holds the frames that hold the memory.
    """
    try:
        return train_epoch(session, rows, micro_batch)
    except torch.OutOfMemoryError as error:
        if micro_batch is not None or half_batch(session.experiment) is None:
            raise OutOfMemory(too_large(session.trial, micro_batch, error)) from error
        return None


def _note_half(trial: Trial, run: RunFolder) -> int | None:
    half = half_batch(trial.experiment)
    whole = trial.experiment.training.batch_size
    run.note(f"out of GPU memory: from here on {half} images in a forward pass of training, not {whole}")
    return half


def train_epoch(session: Session, rows: list[EpochRow], micro_batch: int | None = None) -> tuple[EpochRow, Evaluation]:
    """Train and validate the epoch after `rows`, with at most `micro_batch` images in a forward pass of training."""
    experiment, epoch = session.experiment, rows[-1].epoch + 1 if rows else 1
    seed_torch(session.trial.seed, EPOCH, epoch)
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)
    rates = learning_rates(experiment, epoch, [row.score for row in rows if row.epoch > 0])
    rates = set_learning_rates(session.optimiser, rates)
    set_encoder_trainable(session.model, not encoder_is_frozen(experiment.schedule, epoch))

    asked = time.perf_counter()
    batches = session.inputs(epoch)
    session.store_scored()
    started = time.perf_counter()
    total, terms, images = train_steps(session, batches, epoch, micro_batch)
    trained = time.perf_counter()
    evaluation = _evaluate(session, session.val_frames, session.loss)
    train_score = _training_score(session) if experiment.training.score_training_set else None
    finished = time.perf_counter()
    if not math.isfinite(evaluation.loss):
        raise _not_finite(session, f"epoch {epoch}, validation: total {evaluation.loss}")

    scored = _scored(session.trial, epoch, session.taxonomy, evaluation)
    scores = [row.score for row in rows] + [scored["score"]]
    row = EpochRow(
        **scored,
        train_loss=total,
        terms=terms,
        train_score=train_score,
        lr=rates,
        setup_seconds=started - asked,
        train_seconds=trained - started,
        val_seconds=finished - trained,
        images=images,
        parameters=_parameters(session.model),
        peak_memory_mb=_peak_memory_mb(session.device),
        micro_batch=micro_batch,
        done=epoch == experiment.training.epochs or _out_of_patience(scores, experiment.training.patience),
    )
    return row, evaluation


def _scored(trial: Trial, epoch: int, taxonomy: Taxonomy, evaluation: Evaluation) -> dict[str, Any]:
    """The fields of a row that come from its evaluation."""
    return {
        "trial": trial.id,
        "epoch": epoch,
        "score": _score(trial.experiment, evaluation),
        "val_loss": evaluation.loss,
        "iou": _iou_by_name(evaluation, taxonomy),
    }


def _row_without_training(trial: Trial, taxonomy: Taxonomy, evaluation: Evaluation, **fields: Any) -> EpochRow:
    return EpochRow(
        **_scored(trial, 0, taxonomy, evaluation),
        train_loss=None,
        terms={},
        train_score=None,
        lr={},
        train_seconds=0.0,
        images=0,
        **fields,
    )


def save_epoch_zero(session: Session, run: RunFolder, writer: BackgroundWriter) -> EpochRow:
    """Score the weights that a training starts from, and keep them as the best so far."""
    asked = time.perf_counter()
    session.store_scored()
    started = time.perf_counter()
    evaluation = _evaluate(session, session.val_frames, session.loss)
    row = _row_without_training(
        session.trial,
        session.taxonomy,
        evaluation,
        setup_seconds=started - asked,
        val_seconds=time.perf_counter() - started,
        parameters=_parameters(session.model),
        peak_memory_mb=_peak_memory_mb(session.device),
        done=False,
    )
    save(session, run, [row], evaluation, writer)
    return row


def score_start(trial: Trial, run: RunFolder, device: torch.device) -> EpochRow:
    """The one row of a trial of 0 epochs: the starting weights, or the ensemble of several, scored with its views."""
    experiment = trial.experiment
    set_determinism(experiment.training.deterministic)
    taxonomy = build_taxonomy(experiment.taxonomy)
    model = _starting_model(trial, run, taxonomy).to(device)
    looks = views(experiment, experiment.evaluation.tta)
    # nothing trains, so no training frame is counted: val_loss weighs classes as if each were as frequent
    counts = np.ones(len(taxonomy.names))
    loss = build_loss(experiment.loss, counts, taxonomy.names).to(device)
    started = time.perf_counter()
    frames = open_eval_frames(experiment, selection_split(experiment))
    with scoring_named(experiment):
        evaluation = evaluate(model, frames, experiment, taxonomy, device, loss=loss, looks=looks)
    row = _row_without_training(
        trial,
        taxonomy,
        evaluation,
        val_seconds=time.perf_counter() - started,
        parameters=_parameters(model),
        peak_memory_mb=_peak_memory_mb(device),
        done=True,
    )
    if len(experiment.start) == 1:
        write_checkpoint(run.best, _best(trial, row, model))
    _write_matrices(run.confusion, evaluation)
    if experiment.evaluation.score_test:
        test = open_eval_frames(experiment, "test")
        _write_matrices(run.test_confusion, evaluate(model, test, experiment, taxonomy, device, looks=looks))
    return row


def _starting_model(trial: Trial, run: RunFolder, taxonomy: Taxonomy) -> nn.Module:
    experiment = trial.experiment
    if len(experiment.start) > 1:
        return Ensemble([_member(start, trial, run, taxonomy) for start in experiment.start])
    seed_torch(trial.seed, INITIALISATION)
    model = build_model(experiment.model.model_copy(update={"weights": "none"}), len(taxonomy.names))
    if not load_start(model, trial, run):
        raise StudyError(
            f"start {experiment.start[0]}: its head has other classes, and with training.epochs 0 nothing would train "
            "a new one; use the taxonomy of that run"
        )
    return model


def _member(start: str, trial: Trial, run: RunFolder, taxonomy: Taxonomy) -> nn.Module:
    """A member of an ensemble, as its own Experiment describes it."""
    path = start_path(start, trial, run)
    folder = RunFolder(path.parent)
    if path != folder.best:
        raise StudyError(
            f"start {start}: a member of an ensemble is a run with its {folder.best.name}; give that folder"
        )
    member = open_run(folder, torch.device("cpu"))
    normalised = trial.experiment.data.normalise
    if member.taxonomy.names != taxonomy.names or member.experiment.data.normalise != normalised:
        raise StudyError(
            f"start {start}: a member with classes {', '.join(member.taxonomy.names)} and data.normalise "
            f"{member.experiment.data.normalise}, in an ensemble with {', '.join(taxonomy.names)} and {normalised}; "
            "an ensemble averages logits of the same classes over the same pixels: leave that member out"
        )
    return member.model


def train_steps(
    session: Session, batches: Iterable[Batch], epoch: int, micro_batch: int | None = None
) -> tuple[float, dict[str, float], int]:
    """All optimiser steps of an epoch: mean loss over images, mean of each term, images seen.

    With `micro_batch` each step sees the same images in the same order, each with the same weight; as with
    `training.accumulation`, BatchNorm, and a loss that divides by weights or areas, see those of a pass alone.
    """
    config = session.experiment.training
    least = 1 if micro_batch is None else least_images(session.experiment)
    session.model.train()
    if config.batchnorm == "frozen":
        freeze_batchnorm(session.model)
    sizes, values, names = [], [], []
    for group in _groups(batches, config.accumulation):
        in_group = sum(len(images) for images, _ in group)
        for images, truth in group if micro_batch is None else in_parts(group, micro_batch, least):
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
    truth = truth.to(session.device, non_blocking=True).long()
    logits = forward(session.model, images, session.experiment)
    return session.loss(logits, truth)


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


def save(
    session: Session, run: RunFolder, rows: list[EpochRow], evaluation: Evaluation, writer: BackgroundWriter
) -> None:
    """Best weights and their matrices first, then the state to resume from.

    A kill in between repeats the epoch, which writes the same best again.
    """
    row = rows[-1]
    if row.score > max((r.score for r in rows[:-1]), default=-1.0):
        if session.frozen:
            save_frozen(run.frozen(session.frozen), session.model)
        writer.run(write_checkpoint, run.best, _best(session.trial, row, session.model, session.frozen))
        writer.write(run.confusion, _packed_matrices(evaluation))
    if row.done and session.experiment.evaluation.score_test:
        writer.wait()
        _save_test_matrices(session, run)
    header = {"rows": [r.model_dump() for r in rows], "scaler": session.scaler.state_dict()}
    state = pack_state(session.model, session.optimiser, header, session.frozen)
    writer.run(write_checkpoint, run.last, state, run.previous)
    if row.done:
        writer.wait()


def _best(trial: Trial, row: EpochRow, model: nn.Module, frozen: str | None = None) -> bytes:
    about = {"trial": row.trial, "epoch": row.epoch, "score": row.score}
    return pack_weights(model, about | {"experiment": canonical_json(trial.experiment)}, frozen)


def _write_matrices(path: Path, evaluation: Evaluation) -> None:
    write_bytes(path, _packed_matrices(evaluation))


def _packed_matrices(evaluation: Evaluation) -> bytes:
    return _npz(names=np.array(evaluation.names), matrices=evaluation.matrices)


def _save_test_matrices(session: Session, run: RunFolder) -> None:
    """Score the test frames once, with the best weights; the training's own weights stay as they are."""
    best = open_run(run, session.device)
    frames = open_eval_frames(session.experiment, "test")
    looks = views(session.experiment, session.experiment.evaluation.tta)
    evaluation = evaluate(best.model, frames, session.experiment, best.taxonomy, session.device, looks=looks)
    _write_matrices(run.test_confusion, evaluation)


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _evaluate(session: Session, frames: EvalFrames, loss: nn.Module | None = None) -> Evaluation:
    with scoring_named(session.experiment):
        return evaluate(
            session.model, frames, session.experiment, session.taxonomy, session.device, loss=loss, cache=session.cache
        )


def _training_score(session: Session) -> float:
    return _score(session.experiment, _evaluate(session, open_eval_frames(session.experiment, "train")))


def _score(experiment: Experiment, evaluation: Evaluation) -> float:
    """The study's number: dataset mIoU, unless a team's rule is asked for (protocol.score)."""
    counts = dataset_counts(evaluation.matrices)
    if not counts.truth.any():
        raise DataError(
            f"the masks of the {len(evaluation.names)} frames from {evaluation.names[0]} hold no pixel of a class, so "
            "there is nothing to score; ignore fewer classes or give other frames"
        )
    names = build_taxonomy(experiment.taxonomy).names
    return float(CONVENTIONS[experiment.protocol.score](evaluation.matrices, names))


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


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
