from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as V

from harness.config import Experiment
from harness.data import Frame, build_taxonomy, dataset_root, list_frames, read_image, read_mask
from harness.engine.evaluate import (
    Evaluation,
    evaluate,
    evaluating,
    freeze_batchnorm,
    open_eval_frames,
    open_train_frames,
)
from harness.engine.inference import View
from harness.errors import ModelError
from harness.losses import build_loss
from harness.metrics import confusion_matrix
from harness.models import SegmentationModel, build_model

CPU = torch.device("cpu")
#: three val frames of 37 x 53, seen at 24 x 40
ODD = {"data.synthetic.height": 37, "data.synthetic.width": 53, "data.input_size": [24, 40]}
FALCON7 = {"kind": "named", "name": "falcon7"}


def _model(experiment: Experiment) -> nn.Module:
    """Random weights whose predictions hold several classes."""
    torch.manual_seed(1)
    model = build_model(experiment.model, len(build_taxonomy(experiment.taxonomy).names))
    model.eval()
    with torch.no_grad():
        # no class is ahead of the others everywhere
        model.head.bias -= model(2 * torch.randn(8, 3, 24, 40)).mean((0, 2, 3))
    return model


def _evaluate(experiment: Experiment, model: nn.Module, **options) -> Evaluation:  # noqa: ANN003
    frames = open_eval_frames(experiment, "val")
    return evaluate(model, frames, experiment, build_taxonomy(experiment.taxonomy), CPU, **options)


def _one_frame(experiment: Experiment, model: nn.Module, frame: Frame) -> tuple[torch.Tensor, np.ndarray]:
    """Logits (1 C H W) and truth (H W) of a frame at the raster of the score, read and resized by hand."""
    height, width = experiment.data.input_size
    image = cv2.resize(read_image(frame.image), (width, height), interpolation=cv2.INTER_LINEAR)
    raw = read_mask(frame.mask)
    if experiment.evaluation.raster == "input":
        raw = cv2.resize(raw, (width, height), interpolation=cv2.INTER_NEAREST)
    pixels = V.normalize(torch.from_numpy(image).permute(2, 0, 1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = F.interpolate(model(pixels[None]), raw.shape, mode="bilinear", align_corners=False)
    return logits, build_taxonomy(experiment.taxonomy).to_classes(raw, frame.name)


def _confusion(logits: torch.Tensor, truth: np.ndarray) -> np.ndarray:
    return confusion_matrix(truth, logits.numpy()[0].argmax(0).astype(np.uint8), logits.shape[1])


@pytest.mark.parametrize("raster", ["native", "input"])
@pytest.mark.parametrize("taxonomy", ["falcon10", "falcon7"])
def test_the_matrices_are_those_of_a_loop_over_images(
    experiment: Callable[..., Experiment], raster: str, taxonomy: str
) -> None:
    whole = experiment(ODD | {"evaluation.raster": raster, "taxonomy": {"kind": "named", "name": taxonomy}})
    model = _model(whole)
    classes = len(build_taxonomy(whole.taxonomy).names)
    frames = list_frames(dataset_root(whole.data), "val")

    result = _evaluate(whole, model)

    assert result.names == tuple(frame.name for frame in frames)
    for matrix, frame in zip(result.matrices, frames, strict=True):
        logits, truth = _one_frame(whole, model, frame)
        np.testing.assert_array_equal(matrix, _confusion(logits, truth))
    assert result.matrices.shape == (3, classes, classes + 1)
    assert result.matrices.dtype == np.int64
    # several classes are predicted, or the comparison would show little
    assert (result.matrices.sum((0, 1)) > 0).sum() > 2


@pytest.mark.parametrize(("raster", "pixels"), [("native", 37 * 53), ("input", 24 * 40)])
def test_every_pixel_of_the_raster_is_counted(experiment: Callable[..., Experiment], raster: str, pixels: int) -> None:
    whole = experiment(ODD | {"evaluation.raster": raster})

    assert _evaluate(whole, _model(whole)).matrices.sum((1, 2)).tolist() == [pixels] * 3


@pytest.mark.parametrize("raster", ["native", "input"])
def test_neither_score_nor_loss_depends_on_the_batch_size(experiment: Callable[..., Experiment], raster: str) -> None:
    loss = {"cross_entropy": {"weight": 1.0, "class_weights": {"kind": "inverse_frequency"}}, "dice": {"weight": 0.5}}
    results = []
    for size in (1, 2, 3, 8):
        whole = experiment(
            ODD | {"evaluation": {"batch_size": size, "raster": raster}, "taxonomy": FALCON7, "loss": loss}
        )
        names = build_taxonomy(whole.taxonomy).names
        built = build_loss(whole.loss, np.arange(1, len(names) + 1), names)
        results.append(_evaluate(whole, _model(whole), loss=built))

    for other in results[1:]:
        np.testing.assert_array_equal(other.matrices, results[0].matrices)
        assert other.loss == pytest.approx(results[0].loss, rel=1e-5)


def test_the_loss_is_the_plain_mean_over_images(experiment: Callable[..., Experiment]) -> None:
    whole = experiment(ODD | {"taxonomy": FALCON7, "evaluation.batch_size": 2})
    names, model = build_taxonomy(whole.taxonomy).names, _model(whole)

    result = _evaluate(whole, model, loss=build_loss(whole.loss, np.ones(len(names)), names))

    each = []
    for frame in list_frames(dataset_root(whole.data), "val"):
        logits, truth = _one_frame(whole, model, frame)
        # images with different numbers of ignored pixels weigh the same
        each.append(F.cross_entropy(logits, torch.from_numpy(truth)[None].long(), ignore_index=255).item())
    assert result.loss == pytest.approx(np.mean(each), rel=1e-5)


def test_without_a_loss_there_is_none(experiment: Callable[..., Experiment]) -> None:
    assert _evaluate(experiment(), _model(experiment())).loss is None


def test_the_model_is_scored_in_evaluation_mode_and_does_not_change(experiment: Callable[..., Experiment]) -> None:
    model = _model(experiment()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    _evaluate(experiment(), model)

    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_views_decide_together(experiment: Callable[..., Experiment]) -> None:
    whole = experiment(ODD)
    model, frames = _model(whole), list_frames(dataset_root(whole.data), "val")
    mirrored = nn.Sequential()
    mirrored.forward = lambda images: (model(images) + model(images.flip(3)).flip(3)) / 2

    result = _evaluate(whole, model, looks=(View(24, 40, False), View(24, 40, True)))

    for matrix, frame in zip(result.matrices, frames, strict=True):
        logits, truth = _one_frame(whole, mirrored, frame)
        np.testing.assert_array_equal(matrix, _confusion(logits, truth))
    assert (result.matrices != _evaluate(whole, model).matrices).any()


@pytest.mark.parametrize(("policy", "size"), [("flip", (24, 40)), ("codecrunch_moderate", (37, 53))])
def test_training_frames_stay_native_where_the_policy_crops(
    experiment: Callable[..., Experiment], policy: str, size: tuple[int, int]
) -> None:
    assert open_train_frames(experiment(ODD | {"augmentation.policy": policy})).size == size


@pytest.mark.parametrize("raster", ["native", "input"])
def test_suppressed_classes_are_never_predicted_and_the_loss_still_sees_them(
    experiment: Callable[..., Experiment], raster: str
) -> None:
    plain = experiment(ODD | {"evaluation.raster": raster})
    model, names = _model(plain), build_taxonomy(plain.taxonomy).names
    loss = build_loss(plain.loss, np.ones(len(names)), names)
    free = _evaluate(plain, model, loss=loss)
    # the two that are predicted most
    gone = free.matrices.sum((0, 1))[:-1].argsort()[-2:]
    chosen = experiment(ODD | {"evaluation.raster": raster, "evaluation.suppress": [names[i] for i in gone]})

    result = _evaluate(chosen, model, loss=loss)

    assert free.matrices[:, :, gone].sum() > 0
    assert result.matrices[:, :, gone].sum() == 0
    # every pixel is predicted, by the best of the classes that are left
    assert result.matrices.sum() == free.matrices.sum()
    for matrix, frame in zip(result.matrices, list_frames(dataset_root(plain.data), "val"), strict=True):
        logits, truth = _one_frame(plain, model, frame)
        logits[:, gone] = logits.min() - 1
        np.testing.assert_array_equal(matrix, _confusion(logits, truth))
    assert result.loss == free.loss and np.isfinite(result.loss)


# ---- BatchNorm ----


class _Normalised(nn.Module):
    """A network whose logits are the normalised pixels: one BatchNorm with statistics of its own, and dropout."""

    def __init__(self, momentum: float | None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.norm = nn.BatchNorm2d(3, momentum=momentum)
        self.norm.running_mean.fill_(0.3)
        self.norm.running_var.fill_(4.0)
        self.norm.num_batches_tracked.fill_(17)
        self.dropout = nn.Dropout(0.9)
        self.up = nn.Conv2d(3, 10, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.up(self.dropout(self.norm(images)))


def _state(model: nn.Module) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


def test_batch_statistics_are_those_of_the_batch_at_hand() -> None:
    model, images = _Normalised(0.1), torch.rand(3, 3, 8, 8) + 5

    with torch.no_grad(), evaluating(model, "batch"):
        adapted = model(images)
    with torch.no_grad(), evaluating(model, "stored"):
        stored = model(images)

    mean, variance = images.mean((0, 2, 3), keepdim=True), images.var((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(adapted, model.up((images - mean) / (variance + 1e-5).sqrt()).detach())
    torch.testing.assert_close(stored, model.up((images - 0.3) / (4.0 + 1e-5) ** 0.5).detach())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_statistics_leave_the_stored_ones_their_count_and_the_momentum_as_they_were(
    momentum: float | None,
) -> None:
    model = _Normalised(momentum)
    before = _state(model)

    for _ in range(2):
        with torch.inference_mode(), evaluating(model, "batch"):
            model(torch.rand(2, 3, 8, 8))

    # the count too: without a momentum the next training step divides by it
    assert _state(model) == before
    assert (model.norm.momentum, model.norm.track_running_stats, model.norm.training) == (momentum, True, False)
    model.train()(torch.rand(2, 3, 8, 8))
    assert _state(model)["norm.running_mean"] != before["norm.running_mean"]


def test_batch_statistics_are_given_back_after_an_error_too() -> None:
    model = _Normalised(0.1)

    with pytest.raises(RuntimeError, match="should contain 4 elements"), evaluating(model, "batch"):
        model(torch.rand(2, 4, 8, 8))

    assert (model.norm.track_running_stats, model.norm.training) == (True, False)


def test_a_batch_of_one_image_that_is_pooled_to_one_pixel_has_no_statistics() -> None:
    # 317 validation frames in batches of 4 end with one image, and DeepLabV3+ pools it before a BatchNorm
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), _Normalised(0.1))

    with pytest.raises(ModelError, match="evaluation.batch_size of 2 or more that leaves no last batch of one image"):
        with evaluating(model, "batch"):
            model(torch.rand(1, 3, 8, 8))
    with evaluating(model, "stored"):
        assert model(torch.rand(1, 3, 8, 8)).isfinite().all()


def test_a_model_is_scored_with_batch_statistics_and_does_not_change(experiment: Callable[..., Experiment]) -> None:
    sizes = {"evaluation.batchnorm": "batch", "evaluation.batch_size": 3}
    stored, whole = experiment(ODD), experiment(ODD | sizes)
    model = _model(stored)
    before = _state(model)

    result = _evaluate(whole, model)

    assert _state(model) == before
    assert not any(module.training for module in model.modules())
    assert (result.matrices != _evaluate(stored, model).matrices).any()
    # all three frames are one batch here, and this is what the model says in training mode
    frames, classes = list_frames(dataset_root(whole.data), "val"), build_taxonomy(whole.taxonomy)
    pixels = torch.stack([_pixels(frame, whole) for frame in frames])
    with torch.no_grad():
        logits = F.interpolate(model.train()(pixels), (37, 53), mode="bilinear", align_corners=False)
    for matrix, frame, one in zip(result.matrices, frames, logits.split(1), strict=True):
        np.testing.assert_array_equal(matrix, _confusion(one, classes.to_classes(read_mask(frame.mask), frame.name)))


def _pixels(frame: Frame, experiment: Experiment) -> torch.Tensor:
    height, width = experiment.data.input_size
    image = cv2.resize(read_image(frame.image), (width, height), interpolation=cv2.INTER_LINEAR)
    return V.normalize(torch.from_numpy(image).permute(2, 0, 1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_frozen_batchnorm_reaches_every_norm_and_nothing_else(experiment: Callable[..., Experiment]) -> None:
    model: SegmentationModel = build_model(experiment({"model.head": {"kind": "conv_stack"}}).model, 10).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    others = [m for m in model.modules() if not isinstance(m, nn.BatchNorm2d) and not list(m.children())]

    freeze_batchnorm(model)

    assert len(norms) > 5 and not any(m.training for m in norms)
    assert all(p.requires_grad for m in norms for p in m.parameters())
    assert model.training and any(m.training for m in others)
