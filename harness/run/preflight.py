"""What can be known to be wrong before the first trial starts, and which weights there will be."""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.ablate import resolve_arms
from harness.config import (
    Ablation,
    Experiment,
    Space,
    apply_overrides,
    check_space,
    did_you_mean,
    is_active,
    policy_steps,
    to_overrides,
    validate_section,
)
from harness.config.model import BackboneModel, LinearHead
from harness.config.space import ChoiceParameter, Scalar
from harness.data import FrameArrays, Taxonomy, build_augmentation, build_taxonomy, dataset_root, list_frames, opening
from harness.data.cache import Progress
from harness.data.frames import MASKS
from harness.engine.evaluate import open_eval_frames, open_train_frames
from harness.engine.features import check_cached_views
from harness.errors import ConfigError, StudyError
from harness.losses import build_loss
from harness.models import check_input_size, needs_two_images, settle_weights
from harness.run.study import Resources
from harness.store.upload import check_upload

_IF_AVAILABLE = "pretrained_if_available"
#: seconds in which a cluster's address must answer
_REACH_TIMEOUT = 10


def check_resources(resources: Resources) -> None:
    """Refuse GPUs and CPU cores that this machine lacks; those of a cluster are counted when it is joined.

    Raises:
        StudyError: what was asked for, what there is, what to ask for instead.
    """
    gpus, cpus = resources.gpus_per_trial or 0.0, resources.cpus_per_trial
    if resources.upload is not None:
        check_upload(resources.upload)
    if gpus > 1 and gpus != int(gpus):
        raise StudyError(
            f"--gpus-per-trial {gpus:g} is neither a share of one GPU nor whole GPUs; "
            f"use {int(gpus)} or {int(gpus) + 1}"
        )
    if resources.executor == "ray" and resources.address is not None:
        _check_address(resources.address)
        return
    have = torch.cuda.device_count()
    if gpus > have:
        raise StudyError(
            f"--gpus-per-trial {gpus:g} asks for a GPU, and torch sees {have or 'none'} on this machine; "
            f"{f'ask for at most {have}' if have else 'leave it out to train on the CPU'}, or join a cluster that has "
            "more with --address"
        )
    if cpus > (os.cpu_count() or 1):
        raise StudyError(
            f"--cpus-per-trial {cpus:g}: this machine has {os.cpu_count()} CPU cores; ask for at most {os.cpu_count()}"
        )


def _check_address(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself tries for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_TIMEOUT).close()
    except OSError as error:
        raise StudyError(
            f"--address {address}: nothing answers there ({error}); start a cluster with `ray start --head`, or leave "
            "--address out to use this machine alone"
        ) from error


def check_experiment(experiment: Experiment) -> None:
    """Refuse what would stop a training: taxonomy, class names, frames, input size, model, views to store.

    Raises:
        HarnessError: what is wrong with the first of them.
    """
    names = build_taxonomy(experiment.taxonomy).names
    build_loss(experiment.loss, np.ones(len(names)), names)
    for name in experiment.evaluation.suppress:
        if name not in names:
            raise ConfigError(f"evaluation.suppress: there is no class '{name}'{did_you_mean(name, names)}")
    build_augmentation(policy_steps(experiment.augmentation), experiment.data.input_size)
    check_input_size(experiment.model, experiment.data.input_size)
    check_cached_views(experiment)
    root = dataset_root(experiment.data)
    frames = {split: list_frames(root, split) for split in ("train", "val")}
    _check_batches(experiment, len(frames["train"]))


def _check_batches(experiment: Experiment, frames: int) -> None:
    """Refuse a batch of one image where BatchNorm needs two: it would stop the first epoch."""
    training = experiment.training
    size = min(training.batch_size, frames)
    alone = size == 1 or (frames % size == 1 and not training.drop_last)
    if alone and needs_two_images(experiment.model, experiment.data.input_size):
        raise ConfigError(
            f"training.batch_size {training.batch_size} with {frames} frames gives a batch of one image, on which this "
            "model's BatchNorm cannot train; use another batch size, or training.drop_last: true"
        )


def settle_experiment(experiment: Experiment) -> tuple[Experiment, list[str]]:
    """Decide `pretrained_if_available`; returns the Experiment and a sentence on its weights."""
    model, note = settle_weights(experiment.model)
    return experiment.model_copy(update={"model": model}), [note]


def settle_space(space: Space) -> tuple[Space, list[str]]:
    """Check every model and size that a search can reach and decide `pretrained_if_available`.

    One answer for the whole study: where one of the models has no pretrained weights, none uses them, since
    pretrained against random would decide the comparison.

    Raises:
        HarnessError: a model, its weights or a size that cannot be used; before any trial starts.
    """
    check_space(space)
    check_experiment(space.experiment)
    experiments = _reachable(space, ("model", "data"))
    for experiment in _distinct(map(_without_head, experiments)):
        check_experiment(experiment)
    # apart, since every combination of all sections would be too many to check
    for sections in (("taxonomy", "loss"), ("augmentation",), ("training",)):
        for experiment in _reachable(space, sections):
            check_experiment(experiment)
    settled = [settle_weights(model) for model in _distinct(_without_head(e).model for e in experiments)]
    have_all = all(model.weights != "none" for model, _ in settled)
    values = _replace_weights(json.loads(space.model_dump_json()), "pretrained" if have_all else "none")
    return validate_section(Space, values, "space"), _grouped(note for _, note in settled)


def settle_ablation(ablation: Ablation, scale: str) -> tuple[Ablation, list[str]]:
    """Check every arm at a scale and decide `pretrained_if_available`, one answer for all arms.

    Raises:
        HarnessError: an arm that cannot be trained, before any is.
    """
    experiments = [arm.experiment for arm in resolve_arms(ablation, scale).values()]
    for experiment in experiments:
        check_experiment(experiment)
    settled = [settle_weights(model) for model in _distinct(e.model for e in experiments)]
    have_all = all(model.weights != "none" for model, _ in settled)
    values = _replace_weights(json.loads(ablation.model_dump_json()), "pretrained" if have_all else "none")
    return validate_section(Ablation, values, "ablation"), [
        *_grouped(note for _, note in settled),
        *_warnings(experiments),
    ]


def _warnings(experiments: Iterable[Experiment]) -> list[str]:
    """What a reader of the scores must know before they exist."""
    if any(experiment.protocol.select_on_test for experiment in experiments):
        return ["WARNING: some arms choose their best epoch on the test set; their scores are too high by that choice"]
    return []


def _grouped(notes: Iterable[str]) -> list[str]:
    """`name: sentence` notes with the names of each sentence in one line."""
    names: dict[str, list[str]] = {}
    for note in notes:
        name, _, sentence = note.partition(": ")
        names.setdefault(sentence, []).append(name)
    return [f"{sentence}: {', '.join(dict.fromkeys(those))}" for sentence, those in names.items()]


def decode_frames(space: Space, progress: Progress | None = None) -> None:
    """Decode and check every frame size that a search can ask for, before its trials would wait for it."""
    for experiment in _reachable(space, ("data", "augmentation", "taxonomy", "evaluation")):
        decode_frames_of(experiment, progress)


def decode_frames_of(experiment: Experiment, progress: Progress | None = None) -> None:
    """Decode the frames that one Experiment asks for, and look for ids that its taxonomy does not list.

    Frames decoded earlier are verified by checksum; damaged ones are decoded again, with a warning.

    Args:
        progress: is told how many frames of a split are decoded, and how many there are.

    Raises:
        DataError: a file that breaks a rule, or an id in no class, which would fail every trial.
    """
    taxonomy = build_taxonomy(experiment.taxonomy)
    with opening(verify=True, progress=progress):
        root = dataset_root(experiment.data)
        train, val = open_train_frames(experiment), open_eval_frames(experiment, "val").truth
    _check_ids(train, taxonomy, root / "train")
    _check_ids(val, taxonomy, root / "val")


def distinct_shapes(experiments: Iterable[Experiment]) -> list[Experiment]:
    """One Experiment for each combination of what decides a step's memory and time."""
    shapes = {}
    for e in experiments:
        decides = (e.model, e.data.input_size, e.training.batch_size, e.training.precision, e.evaluation.batch_size)
        shapes.setdefault(str(decides), e)
    return list(shapes.values())


def shapes_of(space: Space) -> list[Experiment]:
    """The distinct shapes that a search can reach."""
    return distinct_shapes(_reachable(space, ("model", "data", "training", "evaluation")))


def _check_ids(frames: FrameArrays, taxonomy: Taxonomy, split: Path) -> None:
    for name, mask in zip(frames.names, frames.masks, strict=True):
        taxonomy.to_classes(mask, str(split / MASKS / f"{name}.png"))


def _reachable(space: Space, sections: tuple[str, ...]) -> list[Experiment]:
    """One Experiment for each combination of the choices in some of the Experiment's sections."""
    names = [
        name
        for name, parameter in space.parameters.items()
        if isinstance(parameter, ChoiceParameter) and parameter.field.split(".")[0] in sections
    ]
    labels = [list(space.parameters[name].values()) for name in names]
    picks = [_active(space, dict(zip(names, combination, strict=True))) for combination in itertools.product(*labels)]
    return _distinct(e for pick in picks if (e := _try(space, pick)) is not None)


def _without_head(experiment: Experiment) -> Experiment:
    """The Experiment with the smallest head: neither the input size nor the weights depend on the head."""
    if not isinstance(experiment.model, BackboneModel):
        return experiment
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"head": LinearHead()})})


def _active(space: Space, pick: dict[str, Scalar]) -> dict[str, Scalar]:
    kept: dict[str, Scalar] = {}
    for name, value in pick.items():
        if is_active(space.parameters[name], kept):
            kept[name] = value
    return kept


def _try(space: Space, pick: dict[str, Scalar]) -> Experiment | None:
    """The Experiment of a combination; None where its values exclude each other (such a trial fails alone)."""
    try:
        return apply_overrides(space.experiment, to_overrides(space, pick))
    except ConfigError:
        return None


def _distinct(values: Any) -> list[Any]:
    return list({value.model_dump_json(): value for value in values}.values())


def _replace_weights(values: Any, answer: str) -> Any:
    if isinstance(values, dict):
        return {key: _replace_weights(value, answer) for key, value in values.items()}
    if isinstance(values, list):
        return [_replace_weights(value, answer) for value in values]
    return answer if values == _IF_AVAILABLE else values
