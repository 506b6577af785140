"""What a session opens, and on which pixels class weights and scores stand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harness.config import IGNORE, Experiment, Trial
from harness.data import build_taxonomy, dataset_fingerprint, dataset_root, list_frames, read_mask
from harness.engine.session import (
    Session,
    known_training_counts,
    open_all_train_frames,
    open_session,
    selection_split,
    training_counts,
)
from harness.store import RunFolder

CPU = torch.device("cpu")
NOWHERE = RunFolder(Path("nowhere"))
Build = Callable[..., Experiment]
#: turns every frame by up to 90 degrees: much of the truth is uncovered
TURNED = {
    "augmentation": {"kind": "steps", "steps": [{"kind": "shift_scale_rotate", "degrees": 90.0, "probability": 1.0}]}
}
INVERSE = {"loss.cross_entropy.class_weights": {"kind": "inverse_frequency"}}


def _open(experiment: Experiment, seed: int = 0) -> Session:
    return open_session(Trial(experiment, seed), NOWHERE, CPU)


def _counts_by_hand(experiment: Experiment, split: str = "train") -> np.ndarray:
    """Pixels per class of the frames' own masks, read and resized here."""
    taxonomy, (height, width) = build_taxonomy(experiment.taxonomy), experiment.data.input_size
    counts = np.zeros(256, np.int64)
    for frame in list_frames(dataset_root(experiment.data), split):
        raw = cv2.resize(read_mask(frame.mask), (width, height), interpolation=cv2.INTER_NEAREST)
        counts += np.bincount(taxonomy.to_classes(raw, frame.name).ravel(), minlength=256)
    return counts[: len(taxonomy.names)]


def test_class_weights_stand_on_the_frames_themselves_whatever_the_augmentation(experiment: Build) -> None:
    whole = experiment(TURNED | INVERSE | {"data.input_size": [24, 40]})

    session = _open(whole)

    expected = _counts_by_hand(whole)
    assert training_counts(session).tolist() == expected.tolist()
    occurs = expected > 0
    weights = session.loss.get_buffer("cross_entropy_class_weights").numpy()
    np.testing.assert_allclose(weights[occurs], 5 * expected[occurs].min() / expected[occurs], rtol=1e-6)


def test_augmented_counts_are_those_of_one_augmented_pass_without_ignored_pixels(experiment: Build) -> None:
    whole = experiment(TURNED | INVERSE | {"protocol.augmented_class_counts": True})
    session = _open(whole)

    counts = training_counts(session)

    seen = np.concatenate([truth.numpy().ravel() for _, truth in session.batches(0)])
    assert (seen == IGNORE).sum() > 0
    assert counts.tolist() == [int((seen == index).sum()) for index in range(len(session.taxonomy.names))]
    assert counts.tolist() != _counts_by_hand(whole).tolist()
    occurs = counts > 0
    weights = session.loss.get_buffer("cross_entropy_class_weights").numpy()
    np.testing.assert_allclose(weights[occurs], 5 * counts[occurs].min() / counts[occurs], rtol=1e-6)


def test_augmented_counts_repeat_themselves_and_follow_the_seed(experiment: Build) -> None:
    whole = experiment(TURNED | {"protocol.augmented_class_counts": True})

    first, again, other = (training_counts(_open(whole, seed)).tolist() for seed in (0, 0, 1))

    assert first == again
    assert first != other


def test_augmented_counts_with_the_border_as_class_0_count_the_border(experiment: Build) -> None:
    # Ignitia: 52 to 66 % of the pixels that were counted for class 0 were black border
    faults = {"protocol.augmented_class_counts": True, "protocol.border_class": True}
    ignored, filled = (
        training_counts(_open(experiment(TURNED | faults | {"protocol.border_class": on}))) for on in (False, True)
    )

    assert filled.sum() == 5 * 32 * 48
    assert filled[0] - ignored[0] == 5 * 32 * 48 - ignored.sum()
    assert filled[1:].tolist() == ignored[1:].tolist()


def test_counting_leaves_the_first_epochs_batches_as_they_are(experiment: Build) -> None:
    plain, counted = (
        _open(experiment(TURNED | {"protocol.augmented_class_counts": on}), seed=2) for on in (False, True)
    )

    for (images, truth), (other, again) in zip(plain.batches(1), counted.batches(1), strict=True):
        assert torch.equal(images, other)
        assert torch.equal(truth, again)


def test_the_best_epoch_is_chosen_on_val_unless_the_fault_is_asked_for(experiment: Build) -> None:
    assert selection_split(experiment()) == "val"
    assert selection_split(experiment({"protocol.select_on_test": True})) == "test"
    val, test = _open(experiment()), _open(experiment({"protocol.select_on_test": True}))
    root = dataset_root(experiment().data)
    assert val.val_frames.images.names == tuple(frame.name for frame in list_frames(root, "val"))
    assert test.val_frames.images.names == tuple(frame.name for frame in list_frames(root, "test"))


def test_native_masks_and_test_images_are_opened_only_where_they_are_needed(experiment: Build) -> None:
    size = {"data.input_size": [24, 40]}
    plain = open_all_train_frames(experiment(size))
    assert (plain.native, plain.style) == (None, None)

    blended = open_all_train_frames(experiment(size | {"protocol.bilinear_masks": True, "evaluation.raster": "input"}))
    assert blended.frames.size == (24, 40)
    assert blended.native.size == (32, 48)
    assert blended.native.names == blended.frames.names

    fourier = {"augmentation": {"kind": "steps", "steps": [{"kind": "fourier"}]}}
    style = open_all_train_frames(experiment(size | fourier)).style
    # the test set's images, without its masks
    assert (len(style), style.size, style.masks) == (2, (24, 40), None)


def test_a_start_is_whole_only_if_the_head_came_with_it(
    experiment: Build, train: Callable[..., list], tmp_path: Path
) -> None:
    train(experiment({"training.epochs": 1}), tmp_path / "given")
    start = {"start": [str(tmp_path / "given")]}
    run = RunFolder(tmp_path / "run")

    whole = open_session(Trial(experiment(start), 0), run, CPU)
    other = open_session(Trial(experiment(start | {"taxonomy": {"kind": "named", "name": "falcon7"}}), 0), run, CPU)

    assert whole.whole_start is True
    assert other.whole_start is False
    assert _open(experiment()).whole_start is False


def test_the_optimiser_holds_the_parameters_that_the_start_has_filled(
    experiment: Build, train: Callable[..., list], tmp_path: Path
) -> None:
    train(experiment({"training.epochs": 1}), tmp_path / "given")

    session = open_session(Trial(experiment({"start": [str(tmp_path / "given")]}), 1), RunFolder(tmp_path / "run"), CPU)

    held = {id(p) for group in session.optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in session.model.parameters()}


@pytest.mark.parametrize("changes", [{}, {"data.input_size": [24, 40]}])
def test_training_counts_are_known_by_the_fingerprint_alone_once_a_training_made_them(
    experiment: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    whole = experiment(changes)
    assert known_training_counts(whole, "0123") is None
    _open(whole)
    fingerprint = dataset_fingerprint(dataset_root(whole.data))
    assert known_training_counts(whole, fingerprint).tolist() == _counts_by_hand(whole).tolist()
    assert known_training_counts(experiment({"data.input_size": [40, 64]}), fingerprint) is None


@pytest.mark.parametrize("blocks", [1, "all"])
def test_the_blocks_of_a_vit_that_train_are_compiled_and_those_that_do_not_are_not(
    blocks: int | str, experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def note_only(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Callable:
        compiled.append(str(graph.graph))
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode: compile_(f, backend=note_only))
    vit = {"model.backbone": "test_vit2", "model.stride": None, "model.trainable_blocks": blocks}
    session = _open(experiment(vit | {"training.compile": "default"}))

    session.model(torch.zeros(2, 3, 32, 48))

    attentions = sum(graph.count("scaled_dot_product_attention") for graph in compiled)
    assert attentions == (8 if blocks == "all" else blocks)
