"""A GPU whose memory runs out, simulated where torch says so: smaller forward passes, or one clear message."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.config import Experiment, Trial
from harness.engine.memory import half_batch, in_parts
from harness.engine.trained import open_run
from harness.errors import OutOfMemory
from harness.losses import build_loss
from harness.store import EpochRow, RunFolder

# the package's door hides the module behind the function of the same name
loop = importlib.import_module("harness.engine.fit")

Train = Callable[..., list[EpochRow]]
Build = Callable[..., Experiment]

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB.\nSee documentation"
#: two images a step of four at most; no BatchNorm, whose statistics would be those of two
FOUR = {
    "model.backbone": "test_vit",
    "model.stride": None,
    "training.batch_size": 4,
    "augmentation.policy": "ignitia_phase5",
    "optimiser.lr": 0.01,
    "training.epochs": 3,
}


class Small(nn.Module):
    """A loss on a GPU that has memory for a number of images, from a certain training pass on."""

    def __init__(self, loss: nn.Module, images: int, first: int = 1) -> None:
        super().__init__()
        self.loss, self.images, self.left = loss, images, first

    def forward(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if logits.requires_grad:
            self.left -= 1
            if self.left < 1 and len(logits) > self.images:
                raise torch.OutOfMemoryError(CUDA)
        return self.loss(logits, truth)

    def per_image(self, logits: Tensor, truth: Tensor) -> Tensor:
        return self.loss.per_image(logits, truth)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give all trainings memory for so many images only; `first`: of the first session, from which pass on."""

    def small(images: int, first: int = 1) -> None:
        firsts = iter([first])
        monkeypatch.setattr(
            "harness.engine.session.build_loss", lambda *a: Small(build_loss(*a), images, next(firsts, 1))
        )

    return small


def _numbers(rows: list[EpochRow]) -> list[dict[str, Any]]:
    times = {"setup_seconds", "train_seconds", "val_seconds"}
    return [row.model_dump(exclude=times | {"trial", "micro_batch"}) for row in rows]


def _weights(folder: Path) -> dict[str, Tensor]:
    return open_run(RunFolder(folder), torch.device("cpu")).model.state_dict()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_trial_that_does_not_fit_equals_one_of_half_the_batch_and_twice_the_accumulation_bit_for_bit(
    accumulation: int, gpu, experiment: Build, train: Train, tmp_path: Path
) -> None:
    halves = experiment(FOUR | {"training.batch_size": 2, "training.accumulation": 2 * accumulation})
    by_hand = train(halves, tmp_path / "by hand")
    gpu(2)
    whole = experiment(FOUR | {"training.accumulation": accumulation})

    rows = train(whole, tmp_path / "forced")

    assert _numbers(rows) == _numbers(by_hand)
    assert {row.micro_batch for row in rows} == {2} and {row.micro_batch for row in by_hand} == {None}
    assert {row.trial for row in rows} == {Trial(whole, 0).id}
    assert RunFolder(tmp_path / "forced").read_experiment() == whole


def test_its_steps_are_those_of_the_whole_batch_up_to_rounding(gpu, experiment: Build, train: Train, tmp_path) -> None:
    plain = FOUR | {"augmentation": {"kind": "named", "policy": "none"}, "optimiser": {"kind": "sgd", "lr": 0.1}}
    expected = train(experiment(plain), tmp_path / "whole")
    gpu(2)

    rows = train(experiment(plain), tmp_path / "forced")

    for row, reference in zip(rows, expected, strict=True):
        assert row.train_loss == pytest.approx(reference.train_loss, rel=1e-5)
        assert row.val_loss == pytest.approx(reference.val_loss, rel=1e-5)
    weights, reference = _weights(tmp_path / "forced"), _weights(tmp_path / "whole")
    assert rows[-1].epoch == 3 and weights.keys() == reference.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, reference[name], rtol=1e-3, atol=1e-5)


def test_memory_that_runs_out_in_the_middle_of_an_epoch_takes_nothing_over_from_it(
    gpu, experiment: Build, train: Train, tmp_path: Path
) -> None:
    # two steps an epoch: the fourth is in the middle of the second
    train(experiment(FOUR), tmp_path / "cut", epochs=1)
    gpu(2)
    expected = train(experiment(FOUR), tmp_path / "cut")
    gpu(2, first=3)

    rows = train(experiment(FOUR), tmp_path / "whole")

    assert [row.micro_batch for row in rows] == [None, 2, 2]
    assert _numbers(rows) == _numbers(expected)


def test_a_resumed_trial_keeps_its_small_passes(gpu, experiment: Build, train: Train, tmp_path: Path) -> None:
    gpu(2)
    whole = train(experiment(FOUR), tmp_path / "whole")
    train(experiment(FOUR), tmp_path / "cut", epochs=2)
    gpu(4)

    rows = train(experiment(FOUR), tmp_path / "cut")

    assert _numbers(rows) == _numbers(whole[1:])
    assert [row.micro_batch for row in rows] == [2, 2]
    note = "out of GPU memory: from here on 2 images in a forward pass of training, not 4\n"
    assert RunFolder(tmp_path / "cut").notes.read_text().endswith(note)


def test_where_half_does_not_fit_either_the_trial_fails_with_what_to_do(
    gpu, experiment: Build, train: Train, tmp_path: Path
) -> None:
    gpu(1)
    trial = Trial(experiment(FOUR), 0).id

    with pytest.raises(
        OutOfMemory,
        match=rf"trial {trial}: the GPU has no memory for a training step of 4 images of 32 x 48 pixels, nor for 2 at "
        r"a time \(CUDA out of memory. Tried to allocate 2.00 GiB. .+8.00 GiB.\); lower training.batch_size \(raise ",
    ):
        train(experiment(FOUR), tmp_path)


def test_a_batch_of_one_is_not_halved(gpu, experiment: Build, train: Train, tmp_path: Path) -> None:
    gpu(0)

    with pytest.raises(OutOfMemory, match=r"for a training step of 1 images of 32 x 48 pixels \(CUDA out of memory"):
        train(experiment(FOUR | {"training.batch_size": 1}), tmp_path)
    assert not RunFolder(tmp_path).notes.exists()


#: its BatchNorm after pooling to one pixel cannot train on one image
POOLED = {"model": {"kind": "smp", "decoder": "DeepLabV3Plus", "encoder": "resnet18", "weights": "none"}}


@pytest.mark.parametrize(
    ("overrides", "half"),
    [
        ({"training.batch_size": 1}, None),
        ({"training.batch_size": 2}, 1),
        ({"training.batch_size": 5}, 3),
        ({"training.batch_size": 8}, 4),
        (POOLED | {"training.batch_size": 2}, None),
        (POOLED | {"training.batch_size": 3}, None),
        (POOLED | {"training.batch_size": 4}, 2),
        (POOLED | {"training.batch_size": 2, "training.batchnorm": "frozen"}, 1),
    ],
)
def test_half_a_batch_is_at_least_what_batchnorm_needs(overrides: dict, half: int | None, experiment: Build) -> None:
    assert half_batch(experiment({"data.input_size": [32, 48]} | overrides)) == half


@pytest.mark.parametrize(
    ("batches", "size", "least", "parts"),
    [
        ([4, 1], 2, 1, [2, 2, 1]),
        ([4, 3], 2, 1, [2, 2, 2, 1]),
        ([5, 2], 3, 1, [3, 2, 2]),
        ([4, 3], 2, 2, [2, 2, 3]),
        ([6, 5], 3, 2, [3, 3, 3, 2]),
    ],
)
def test_each_image_of_a_group_is_in_one_part_and_in_order(
    batches: list[int], size: int, least: int, parts: list[int]
) -> None:
    images = torch.arange(sum(batches)).split(batches)
    group = [(batch, batch + 100) for batch in images]

    found = list(in_parts(group, size, least))

    assert [len(images) for images, _ in found] == parts
    assert torch.cat([images for images, _ in found]).tolist() == list(range(sum(batches)))
    assert all(torch.equal(truth, images + 100) for images, truth in found)


def test_memory_that_runs_out_while_scoring_names_the_setting_that_helps(
    experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(loop, "evaluate", refuse)

    with pytest.raises(OutOfMemory, match=r"to score 8 images at a time \(CUDA .+\); lower evaluation.batch_size"):
        train(experiment(FOUR), tmp_path)


def test_nothing_of_the_failed_session_is_held_when_the_next_is_built(
    gpu, experiment: Build, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(2)
    alive: list[int] = []
    open_session, models = loop.open_session, []

    def counted(*arguments: Any) -> Any:
        alive.append(sum(model() is not None for model in models))
        session = open_session(*arguments)
        models.append(weakref.ref(session.model))
        return session

    monkeypatch.setattr(loop, "open_session", counted)

    train(experiment(FOUR), tmp_path)

    assert alive == [0, 0]
