from __future__ import annotations

import importlib
import mmap
import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.bench.memory import pss
from harness.config import Experiment, Trial
from harness.data.cache import cache_folder
from harness.engine import kept
from harness.engine.features import FeatureCache, check_cached_views, views_of_epoch
from harness.engine.inference import forward
from harness.engine.session import Session, open_session
from harness.errors import ConfigError, DataError
from harness.models import SegmentationModel
from harness.store import EpochRow, RunFolder
from harness.store.cache_room import cache_entries

CPU = torch.device("cpu")
PAGE = mmap.PAGESIZE
NOWHERE = RunFolder(Path("nowhere"))
Train = Callable[..., list[EpochRow]]
Build = Callable[..., Experiment]

#: a ViT whose blocks can train in part, and a CNN with BatchNorm
VIT = {
    "model.backbone": "test_vit2",
    "model.stride": None,
    "model.trainable_blocks": 0,
    "data.input_size": [32, 48],
    "training.epochs": 4,
}
CNN = {"model.trainable_blocks": 0, "training.epochs": 4}
AUGMENTED = {"augmentation.policy": "ignitia_phase5"}
FROZEN = {
    "vit fp32": VIT,
    "vit bf16": VIT | {"training.precision": "bf16"},
    "vit fp16": VIT | {"training.precision": "fp16"},
    "vit with blocks that train": VIT | {"model.trainable_blocks": 1, "training.precision": "bf16"},
    "cnn": CNN,
    "cnn with a last batch of one": CNN | {"training.batch_size": 4},
    "augmented, a view for each epoch": VIT | AUGMENTED | {"training.cached_views": 4, "training.precision": "bf16"},
    "crops, a view for each epoch": CNN | {"augmentation.policy": "desertmind_phase3", "training.cached_views": 9},
    "border as a class": CNN | AUGMENTED | {"training.cached_views": 4, "protocol.border_class": True},
}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing stored, nothing kept from other tests."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    kept._kept.clear()
    yield
    kept._kept.clear()


def _stored() -> list[str]:
    return sorted(path.name for path in cache_folder().glob("features-*"))


def _numbers(rows: list[EpochRow]) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"setup_seconds", "train_seconds", "val_seconds", "trial"}) for row in rows]


@pytest.mark.parametrize("overrides", FROZEN.values(), ids=FROZEN)
def test_a_training_from_stored_features_equals_the_plain_one_bit_for_bit(
    overrides: dict[str, Any], experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiment(overrides)
    first, again = train(whole, tmp_path / "a" / "first"), train(whole, tmp_path / "b" / "again")
    assert _stored() != []
    monkeypatch.setenv("HARNESS_CACHE_FEATURES", "0")
    plain = train(whole, tmp_path / "c" / "plain")

    assert _numbers(first) == _numbers(again) == _numbers(plain)
    weights = [(tmp_path / run / "last.safetensors").read_bytes() for run in ("a/first", "b/again", "c/plain")]
    assert len({w[-1000:] for w in weights}) == 1


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 64
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["features", "truths", "counts"])
def test_a_stored_array_with_a_changed_byte_is_made_again_and_the_scores_are_the_same(
    kind: str, experiment: Build, train: Train, tmp_path: Path
) -> None:
    whole = experiment(CNN | AUGMENTED | {"training.cached_views": 4})
    expected = train(whole, tmp_path / "a" / "before")
    stored = sorted(cache_folder().glob(f"{kind}-*/array.npy"))
    contents = [path.read_bytes() for path in stored]
    for path in stored:
        _flip(path)

    with pytest.warns(UserWarning, match="the bytes of array.npy have changed; it is removed and built again"):
        rows = train(whole, tmp_path / "b" / "after")

    assert stored and [path.read_bytes() for path in stored] == contents
    assert _numbers(rows) == _numbers(expected)


SMP = {"model": {"kind": "smp", "decoder": "Unet", "encoder": "resnet18", "weights": "none"}}


@pytest.mark.parametrize(
    "model",
    [
        {"model.trainable_blocks": 1},
        VIT | {"model.trainable_blocks": 8},
        SMP | {"model.trainable_encoder": False},
    ],
    ids=["a CNN in part", "every block of a ViT", "an encoder of many maps"],
)
def test_views_of_a_model_of_which_nothing_can_be_stored_are_refused(model: dict[str, Any], experiment: Build) -> None:
    whole = experiment(model | {"training.cached_views": 2})
    with pytest.raises(ConfigError, match=r"training.cached_views 2: nothing of .* can be stored .* set training.cach"):
        open_session(Trial(whole, 0), NOWHERE, CPU)
    check_cached_views(experiment(model))
    check_cached_views(experiment(VIT | {"model.trainable_blocks": 1, "training.cached_views": 2}))


def test_nothing_is_stored_where_it_is_switched_off(
    experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE_FEATURES", "0")
    train(experiment(CNN), tmp_path / "runs" / "one", epochs=1)
    assert _stored() == []


def test_a_model_that_trains_as_a_whole_stores_nothing(experiment: Build, train: Train, tmp_path: Path) -> None:
    train(experiment(), tmp_path / "runs" / "one", epochs=1)
    assert _stored() == []


def test_without_cached_views_only_validation_frames_are_stored_of_an_augmented_training(
    experiment: Build, train: Train, tmp_path: Path
) -> None:
    train(experiment(VIT | AUGMENTED), tmp_path / "runs" / "one", epochs=2)
    (name,) = _stored()
    assert len(np.load(cache_folder() / name / "array.npy")) == 3  # the frames of val


def test_trials_that_differ_in_head_loss_and_rate_share_their_features(
    experiment: Build, train: Train, tmp_path: Path
) -> None:
    views = VIT | AUGMENTED | {"training.cached_views": 2, "training.epochs": 2}
    train(experiment(views), tmp_path / "runs" / "one")
    before = _stored()
    changed = {"model.head": {"kind": "convnext_style", "channels": 8}, "optimiser.lr": 0.1, "loss.dice.weight": 1.0}
    train(experiment(views | changed), tmp_path / "runs" / "two")
    assert len(before) == 3 and _stored() == before  # val and two views


@pytest.mark.parametrize(
    "change",
    [
        {"data.input_size": [32, 64]},
        {"data.normalise": "unit"},
        {"training.precision": "bf16"},
        {"model.backbone": "test_vit"},
        {"augmentation.policy": "ignitia_phase3"},
    ],
    ids=["size", "normalisation", "precision", "backbone", "policy"],
)
def test_what_reaches_the_backbone_has_features_of_its_own(
    change: dict[str, Any], experiment: Build, train: Train, tmp_path: Path
) -> None:
    views = VIT | AUGMENTED | {"training.cached_views": 1, "training.epochs": 1}
    train(experiment(views), tmp_path / "runs" / "one")
    before = set(_stored())
    train(experiment(views | change), tmp_path / "runs" / "two")
    shared = 1 if "augmentation.policy" in change else 0  # val frames know no policy
    assert len(before) == 2 and len(set(_stored()) - before) == 2 - shared


def test_equal_weights_in_another_network_have_features_of_their_own(experiment: Build) -> None:
    # they differ in padding, and in the epsilon of BatchNorm
    names = ("mobilenetv3_small_075", "tf_mobilenetv3_small_075")
    sessions = [open_session(Trial(experiment(CNN | {"model.backbone": name}), 0), NOWHERE, CPU) for name in names]
    assert sessions[0].cache.digest == sessions[1].cache.digest
    stored = [session.cache.of_frames(session.val_frames.images) for session in sessions]
    assert len(_stored()) == 2 and not np.array_equal(*stored)


def test_a_seed_has_random_weights_and_draws_of_its_own(experiment: Build, train: Train, tmp_path: Path) -> None:
    whole = experiment(VIT | {"training.epochs": 1})
    train(whole, tmp_path / "runs" / "one", seed=0)
    train(whole, tmp_path / "runs" / "two", seed=1)
    assert len(_stored()) == 4


def test_taxonomies_share_features_and_have_truths_of_their_own(
    experiment: Build, train: Train, tmp_path: Path
) -> None:
    views = VIT | AUGMENTED | {"training.cached_views": 1, "training.epochs": 1}
    train(experiment(views), tmp_path / "runs" / "one")
    train(experiment(views | {"taxonomy": {"kind": "named", "name": "falcon7"}}), tmp_path / "runs" / "two")
    assert len(_stored()) == 2
    assert len(list(cache_folder().glob("truths-*"))) == 2


def test_an_epoch_shows_its_own_view_while_there_is_one_and_later_a_choice_of_all() -> None:
    assert views_of_epoch(0, 3, views=4, frames=5).tolist() == [3] * 5
    later = np.concatenate([views_of_epoch(0, epoch, views=4, frames=50) for epoch in range(5, 15)])
    assert set(later.tolist()) == {1, 2, 3, 4}
    assert views_of_epoch(0, 7, 4, 50).tolist() == views_of_epoch(0, 7, 4, 50).tolist()
    assert views_of_epoch(0, 7, 4, 50).tolist() != views_of_epoch(0, 8, 4, 50).tolist()
    assert views_of_epoch(0, 7, 4, 50).tolist() != views_of_epoch(1, 7, 4, 50).tolist()


def _by_truth(session: Session, epoch: int) -> dict[bytes, bytes]:
    """Features of each frame of an epoch by its truth: image and mask must have moved together."""
    pairs: dict[bytes, bytes] = {}
    for inputs, truth in session.inputs(epoch):
        for one, its in zip(inputs, truth, strict=True):
            pairs[its.numpy().tobytes()] = one.contiguous().numpy().tobytes()
    return pairs


def test_later_epochs_pair_each_view_with_its_own_truth(experiment: Build) -> None:
    session = open_session(Trial(experiment(VIT | AUGMENTED | {"training.cached_views": 2}), 0), NOWHERE, CPU)
    views = [_by_truth(session, 1), _by_truth(session, 2)]
    later = [_by_truth(session, epoch) for epoch in range(3, 8)]
    assert all(pairs.items() <= (views[0] | views[1]).items() for pairs in later)
    assert any(pairs.keys() not in (views[0].keys(), views[1].keys()) for pairs in later)


def test_a_killed_or_interrupted_training_with_views_goes_on_as_if_it_had_not_been(
    experiment: Build, train: Train, tmp_path: Path
) -> None:
    whole = experiment(VIT | AUGMENTED | {"training.cached_views": 2})
    straight = train(whole, tmp_path / "a" / "run")
    train(whole, tmp_path / "b" / "run", epochs=2)
    kept._kept.clear()
    resumed = train(whole, tmp_path / "b" / "run")
    assert _numbers(resumed)[1:] == _numbers(straight)[2:]


def test_stored_features_are_what_the_stem_makes_of_the_frames(experiment: Build) -> None:
    session = open_session(Trial(experiment(VIT | {"training.precision": "bf16"}), 0), NOWHERE, CPU)
    frames = session.val_frames.images
    stored = torch.from_numpy(np.array(session.cache.of_frames(frames))).view(torch.bfloat16).permute(0, 3, 1, 2)
    images = torch.from_numpy(np.array(frames.images)).permute(0, 3, 1, 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        from_images = forward(session.model, images, session.experiment)
        from_stored = forward(session.model, stored, session.experiment)
    assert torch.equal(from_images, from_stored)


def test_adapted_batchnorm_statistics_are_never_taken_from_stored_features(
    experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiment(CNN | {"evaluation.batchnorm": "batch", "augmentation.policy": "ignitia_phase5"})
    rows = train(whole, tmp_path / "a" / "run", epochs=2)
    assert _stored() == []
    monkeypatch.setenv("HARNESS_CACHE_FEATURES", "0")
    assert _numbers(train(whole, tmp_path / "b" / "run", epochs=2)) == _numbers(rows)


def test_the_time_that_storing_takes_is_a_trials_own_and_no_part_of_its_pace(
    experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, make = [0.0], FeatureCache._features

    def slowly(cache: FeatureCache, images: torch.Tensor) -> np.ndarray:
        clock[0] += 100
        return make(cache, images)

    monkeypatch.setattr(FeatureCache, "_features", slowly)
    monkeypatch.setattr(importlib.import_module("harness.engine.fit").time, "perf_counter", lambda: clock[0])
    rows = train(experiment(VIT | {"training.score_training_set": True}), tmp_path / "run", epochs=2)

    # three batches: the training frames, which are scored as well, and the validation frames
    assert [(row.setup_seconds, row.seconds, row.all_seconds) for row in rows] == [(200, 0, 200), (0, 0, 0)]


def _room_for(more: int) -> str:
    """A limit of all caches that leaves so many bytes."""
    return repr((sum(entry.size for entry in cache_entries()) + more) / 1e9)


def test_a_training_whose_features_find_no_room_says_so_and_goes_on_without_to_the_same_scores(
    experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiment(VIT | {"training.epochs": 2})
    with monkeypatch.context() as patch:
        patch.setenv("HARNESS_CACHE_FEATURES", "0")
        plain = train(whole, tmp_path / "a" / "run")
    monkeypatch.setenv("HARNESS_CACHE_GB", _room_for(100))
    rows = train(whole, tmp_path / "b" / "run")

    assert _stored() == [] and _numbers(rows) == _numbers(plain)
    said = (tmp_path / "b" / "run" / "notes.txt").read_text().splitlines()
    assert len(said) == 1
    assert "no features are stored, every epoch computes them anew, to the same scores: features of 5 frames" in said[0]
    with pytest.raises(DataError, match="features of 5 frames need .* or use a smaller training.cached_views"):
        train(experiment(VIT | AUGMENTED | {"training.cached_views": 1}), tmp_path / "c" / "run")


def test_a_trial_lets_the_features_of_the_one_before_it_go_where_there_is_no_room_for_both(
    experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(experiment(VIT), tmp_path / "runs" / "one", epochs=1)
    before = _stored()
    monkeypatch.setenv("HARNESS_CACHE_GB", _room_for(100))
    train(experiment(VIT | {"data.normalise": "unit"}), tmp_path / "runs" / "two", epochs=1)

    assert len(before) == len(_stored()) == 2 and not set(before) & set(_stored())
    assert not (tmp_path / "runs" / "two" / "notes.txt").exists()


def _train_and_hold(cache: str, trial: Trial, path: Path, ready: Barrier, pipe: Connection) -> None:
    """Train an epoch in a process of its own, which writes down each image that it computes features of."""
    os.environ["HARNESS_CACHE"] = cache
    make = FeatureCache._features

    def written_down(cache: FeatureCache, images: torch.Tensor) -> np.ndarray:
        with open(path / "computed", "a") as file:
            file.write("image\n" * len(images))
        return make(cache, images)

    FeatureCache._features = written_down
    ready.wait(timeout=120)
    rows = importlib.import_module("harness.engine.fit").fit(trial, RunFolder(path / pipe.recv()), CPU)
    next(rows)
    pipe.send(None)
    pipe.recv()


def _held(pid: int, pattern: str) -> list[int]:
    """Bytes of each such file that a process holds in memory, pages that others hold too by its share of them."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    return [pss(smaps, str(path)) for path in sorted(cache_folder().glob(pattern))]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/<pid>/smaps")
def test_two_trials_at_once_compute_the_features_once_and_hold_them_and_the_frames_once_in_memory(
    experiment: Build, tmp_path: Path
) -> None:
    trial = Trial(experiment(VIT | AUGMENTED | {"training.epochs": 1}), 0)
    context = multiprocessing.get_context("spawn")
    pipes, ready = [context.Pipe() for _ in "ab"], context.Barrier(2)
    arguments = [(str(cache_folder()), trial, tmp_path, ready, there) for _, there in pipes]
    workers = [context.Process(target=_train_and_hold, args=each, daemon=True) for each in arguments]
    for worker, (here, there), name in zip(workers, pipes, "ab", strict=True):
        worker.start()
        there.close()
        here.send(f"{name}/run")
    for here, _ in pipes:
        here.recv()

    assert len(_stored()) == 1
    assert (tmp_path / "computed").read_text() == "image\n" * 3  # of the validation frames
    for pattern in ("features-*/array.npy", "frames-*-train-*/*s.npy"):
        sizes = [-(-path.stat().st_size // PAGE) * PAGE for path in sorted(cache_folder().glob(pattern))]
        assert sizes and [_held(worker.pid, pattern) for worker in workers] == [[size // 2 for size in sizes]] * 2

    for worker, (here, _) in zip(workers, pipes, strict=True):
        here.send(None)
        worker.join()
        assert worker.exitcode == 0
    assert (tmp_path / "a/run/best.safetensors").read_bytes() == (tmp_path / "b/run/best.safetensors").read_bytes()


def test_a_worker_keeps_a_frozen_encoder_and_a_trial_after_another_equals_the_trial_alone(
    experiment: Build, train: Train, tmp_path: Path
) -> None:
    first = experiment(VIT | {"model.head": {"kind": "conv_stack", "channels": 8}})
    second = experiment(VIT)
    alone = train(second, tmp_path / "a" / "run")
    kept._kept.clear()
    train(first, tmp_path / "b" / "first")
    (encoder,) = (held.encoder.module for held in kept._kept.values())
    after = train(second, tmp_path / "b" / "second")

    assert _numbers(after) == _numbers(alone)
    assert [held.encoder.module for held in kept._kept.values()] == [encoder]
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "second"]
    assert len({(path / "best.safetensors").read_bytes() for path in paths}) == 1


@pytest.mark.parametrize("change", [{"model.trainable_blocks": 1}, {"model.backbone": "test_vit"}])
def test_an_encoder_that_a_trial_does_not_use_waits_outside_of_the_gpu(
    change: dict[str, Any], experiment: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[torch.nn.Module, str]] = []
    to, cpu = torch.nn.Module.to, torch.nn.Module.cpu
    monkeypatch.setattr(torch.nn.Module, "to", lambda m, device: (moved.append((m, device.type)), to(m, device))[1])
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda m: (moved.append((m, "out")), cpu(m))[1])
    first = Trial(experiment(VIT), 0)
    model, _ = kept.build_trial_model(first, 3, CPU)
    encoder = model.encoder
    moved.clear()
    kept.build_trial_model(Trial(experiment(VIT | change), 0), 3, CPU)
    assert (encoder, "out") in moved
    moved.clear()
    again, _ = kept.build_trial_model(first, 3, CPU)
    assert again.encoder is encoder and (encoder, "out") not in moved
    assert (again, "cpu") in moved, "the whole model, and with it the encoder, goes to its device"


def test_an_encoder_that_starts_from_other_weights_is_not_the_kept_one(
    experiment: Build, train: Train, tmp_path: Path
) -> None:
    train(experiment(VIT), tmp_path / "runs" / "given", seed=1)
    train(experiment(VIT), tmp_path / "runs" / "kept", seed=0)
    held = list(kept._kept.values())[-1]
    before = {name: tensor.clone() for name, tensor in held.encoder.module.state_dict().items()}
    start = {"start": [str(tmp_path / "runs" / "given" / "best.safetensors")]}
    session = open_session(Trial(experiment(VIT | start), 0), NOWHERE, CPU)

    assert isinstance(session.model, SegmentationModel) and session.model.encoder is not held.encoder.module
    assert session.frozen != held.digest
    assert all(torch.equal(before[name], tensor) for name, tensor in held.encoder.module.state_dict().items())
